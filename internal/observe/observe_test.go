package observe

import (
	"fmt"
	"testing"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []string // of one cart, one after another; "" for none
		lost   string   // "" for nothing
	}{
		{"two add to an empty cart", []string{`{"items":{}}`, `{"items":{"a":1}}`, `{"items":{"b":1}}`}, "/items/a"},
		{"two create a cart", []string{``, `{"items":{"a":1}}`, `{"items":{"b":1}}`}, "/items/a"},
		{"one raises a quantity, one adds", []string{`{"a":1}`, `{"a":2}`, `{"a":1,"b":1}`}, "/a"},
		{"lists of objects", []string{`{"items":[{"sku":"x","n":1}]}`, `{"items":[{"sku":"a","n":1},{"sku":"x","n":1}]}`, `{"items":[{"sku":"x","n":1},{"sku":"b","n":1}]}`}, "/items/a"},
		{"lists of names", []string{`["x"]`, `["x","a"]`, `["x","b"]`}, `/"a"`},
		{"equal elements", []string{`["x","x"]`, `["x","x","x"]`, `["x","x","b"]`}, `/"x" (3)`},
		{"a removal is lost", []string{`{"a":1,"b":1}`, `{"b":1}`, `{"a":1,"b":1,"c":1}`}, "/a"},
		{"with a time", []string{`{"at":1,"i":{}}`, `{"at":2,"i":{"a":1}}`, `{"at":3,"i":{"b":1}}`}, "/i/a"},
		{"PHP", []string{`a:1:{s:1:"x";i:1;}`, `a:2:{s:1:"x";i:1;s:1:"a";i:1;}`, `a:2:{s:1:"x";i:1;s:1:"b";O:4:"Item":1:{s:1:"n";d:1.5;}}`}, "/a"},
		{"PHP around JSON", []string{`s:7:"{"x":1}";`, `s:13:"{"x":1,"a":1}";`, `s:13:"{"x":1,"b":1}";`}, "/a"},

		{"one after the other", []string{`{}`, `{"a":1}`, `{"a":1,"b":1}`}, ""},
		{"taken back", []string{`{"a":1}`, `{"a":2}`, `{"a":1}`}, ""},
		{"taken back with a time", []string{`{"at":1,"a":1}`, `{"at":2,"a":2}`, `{"at":3,"a":1}`}, ""},
		{"emptied", []string{`{"items":{"a":1}}`, `{"items":{"a":1,"b":1}}`, `{"items":{}}`}, ""},
		{"emptied with a time", []string{`{"at":1,"items":{"a":1}}`, `{"at":2,"items":{"a":1,"b":1}}`, `{"at":3,"items":{}}`}, ""},
		{"gone", []string{`{"a":1}`, `{"a":2}`, ``}, ""},
		{"another order of a list", []string{`["a","b"]`, `["b","a","c"]`, `["a","b","c"]`}, ""},
		{"no document", []string{`x1`, `x2`, `x1y`}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Detector
			for i, value := range c.values {
				var raw []byte
				if value != "" {
					raw = []byte(value)
				}
				loss := d.Saw("cart", raw)
				switch {
				case i < 2 && loss != nil:
					t.Fatalf("value %d: lost %+v", i, loss)
				case i == 2 && (loss == nil) != (c.lost == ""), i == 2 && loss != nil && loss.Gone != c.lost:
					t.Errorf("lost %+v, want %q", loss, c.lost)
				}
			}
			want := Counts{Carts: 1, Writes: 3}
			if c.lost != "" {
				want.Lost = 1
			}
			if c.name == "no document" {
				want.Opaque = 3
			}
			if got := d.Counts(); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

func TestCounts(t *testing.T) {
	var d Detector
	d.Saw("a", []byte(`{"n":1}`))
	d.Saw("a", []byte(`{"n":1}`))
	d.Missed(2)
	d.Saw("b", nil)
	if got, want := d.Counts(), (Counts{Carts: 2, Writes: 5, Repeated: 1, Missed: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for i := range maxCarts + 10 {
		d.Saw(fmt.Sprint(i), nil)
	}
	if n := d.Counts().Carts; n != maxCarts {
		t.Errorf("%d carts are remembered, want %d", n, maxCarts)
	}
}

// A value that was there before is not a write, but the first write is judged with it.
func TestFound(t *testing.T) {
	var d Detector
	d.Found("a", []byte(`{"x":1}`))
	d.Saw("a", []byte(`{"x":1,"a":1}`))
	if loss := d.Saw("a", []byte(`{"x":1,"b":1}`)); loss == nil || loss.Gone != "/a" {
		t.Errorf("lost %+v, want /a", loss)
	}
	if got, want := d.Counts(), (Counts{Carts: 1, Writes: 2, Lost: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Reading ends whatever the value is.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"id":"x"}]}`, `a:1:{s:1:"x";a:0:{}}`, `O:1:"C":1:{s:1:"n";d:1;}`, `s:9:"`, `a:99999999999:{`, `"\"{}\""`, `i:;`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		got, ok := parse(value)
		if ok != (got != nil) {
			t.Errorf("%v, %v", got, ok)
		}
		again, _ := parse(value)
		if judge("c", got, again, got) != nil {
			t.Error("a value differs from itself")
		}
	})
}
