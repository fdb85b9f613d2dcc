package cart

import (
	"strings"
	"sync"
	"testing"
)

func TestObject(t *testing.T) {
	var zero Object
	if zero.Len() != 0 || string(zero.Bytes()) != `{}` || !zero.Equal(mustObject(t, `[]`)) || !zero.Equal(mustObject(t, `{ }`)) {
		t.Error("the zero Object is not {}")
	}
	o := mustObject(t, `{"a":1,"b":[1.0,{"c":"]}\\\""}],"c":{}}`)
	for key, want := range map[string]string{"a": `1`, "b": `[1.0,{"c":"]}\\\""}]`, "c": `{}`} {
		if got, ok := o.Get(key); !ok || string(got) != want {
			t.Errorf("Get(%q) = %s, %v", key, got, ok)
		}
	}
	if _, ok := o.Get("d"); ok {
		t.Error("d is there")
	}
	for _, tc := range []struct {
		got  Object
		want string
	}{
		{o.With("a", []byte(`"new"`)), `{"a":"new","b":[1.0,{"c":"]}\\\""}],"c":{}}`},
		{o.With("d\"\n\u00fc\\", []byte(`4`)), `{"a":1,"b":[1.0,{"c":"]}\\\""}],"c":{},"d\"\u000aü\\":4}`},
		{o.Without("b"), `{"a":1,"c":{}}`},
		{o.Without("x"), `{"a":1,"b":[1.0,{"c":"]}\\\""}],"c":{}}`},
		{o.Without("a").Without("b").Without("c"), `{}`},
		{zero.With("a", []byte(`1`)), `{"a":1}`},
		{mustObject(t, `{"\ud800":1,"b":2}`).Without("b"), `{"\ud800":1}`},
	} {
		if got := string(tc.got.Bytes()); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
		if tc.got.size() != len(tc.want) {
			t.Errorf("%s: size %d, want %d", tc.want, tc.got.size(), len(tc.want))
		}
		again := mustObject(t, tc.want)
		if !tc.got.Equal(again) || !again.Equal(tc.got) {
			t.Errorf("%s is not equal to itself", tc.want)
		}
	}
	if got := string(o.Bytes()); got != `{"a":1,"b":[1.0,{"c":"]}\\\""}],"c":{}}` {
		t.Errorf("the object was changed: %s", got)
	}
}

func TestObjectEqual(t *testing.T) {
	texts := []string{`{}`, `{"a":1}`, `{"a":2}`, `{"b":1}`, `{"a":10,"b":1}`, `{"b":1,"a":10}`, `{"a":1.0}`, `{"a":1,"b":1,"c":1}`}
	for i, a := range texts {
		for j, b := range texts {
			x, y := mustObject(t, a), mustObject(t, b).With("z", []byte(`0`)).Without("z")
			if x.Equal(y) != (i == j) || y.Equal(x) != (i == j) {
				t.Errorf("%s equals %s: %v", a, b, i != j)
			}
		}
	}
}

func TestTrustedObject(t *testing.T) {
	raw := []byte(`{"a": {"quantity": 2},"k\u0065y":1}`)
	o, err := TrustedObject(raw)
	if err != nil {
		t.Fatal(err)
	}
	clear(raw) // a backend may use its buffer again
	if v, ok := o.Get("a"); !ok || string(v) != `{"quantity":2}` || o.Len() != 2 || o.Members()[1].Key != "key" {
		t.Errorf("members %v", o.Members())
	}
	for _, bad := range []string{``, `null`, `[]`, `"x"`, `{"a":1`, `{"a":1}}`, `{"a":01}`, `{"a"}`, "\x00", `{"a":"\x"}`} {
		if _, err := TrustedObject([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestObjectShared is for the race detector: carts in a cache are read by many.
func TestObjectShared(t *testing.T) {
	lazy, err := TrustedObject([]byte(`{"a":1,"b":2}`))
	if err != nil {
		t.Fatal(err)
	}
	unwritten := lazy.With("c", []byte(`3`))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if string(unwritten.Bytes()) != `{"a":1,"b":2,"c":3}` || lazy.Len() != 2 || lazy.Equal(unwritten) {
				t.Error("the objects differ between goroutines")
			}
		})
	}
	wg.Wait()
}

func TestKeysSurvive(t *testing.T) {
	for _, text := range []string{
		`a`, ``, `ü😀`, `\u0000`, `\"\\`, `\ud800`, `\udfffx`, `\ud800\ud800`, `\udc00\ud800`, `<>&`, "\u2028", `\u001f`, strings.Repeat("x", 300),
	} {
		o := mustObject(t, `{"`+text+`":1}`).With("z", []byte(`2`))
		if got, want := string(o.Bytes()), `{"`+text+`":1,"z":2}`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
