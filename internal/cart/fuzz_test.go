package cart

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

var fuzzSeeds = []string{
	``, `{}`, `[]`, `null`, ` { } `, `[1]`, `{"a":{}}`, `{"a":{},"a":{}}`, `{"\u0061":{},"a":{}}`, `{"":{}}`,
	`{"sku-1":{"id":"sku-1","name":"Mug","price":19.90,"quantity":2,"attributes":[],"conditions":{},"associated_model":null}}`,
	`{"vat":{"name":"vat","type":"tax","target":"subtotal","value":"6%","attributes":{},"order":0}}`,
	`{"a":{"quantity":1e99}}`, `{"a":{"x":[{"\\":"\"]}"},[[]],-0.0E+1,true]}}`, `{"\ud83d\ude00":{}}`, `{"\ud800":{}}`, `{"a":{"\udc00":1}}`,
	`"\ud800\udc00"`, `[[[[{}]]]]`, "{\"\xff\":1}", `{"a":{"id":"\u0061"}}`, `{"k":{"a":1,"a":2}}`, "\ufeff{}", `{"a\/\n\u001f":{}}`,
}

func FuzzParseItems(f *testing.F) {
	for _, s := range fuzzSeeds {
		f.Add([]byte(s))
	}
	l := DefaultLimits()
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		o, err := ParseItems("items", raw, l)
		if !bytes.Equal(raw, before) {
			t.Fatal("the input was written to")
		}
		if err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) || !utf8.ValidString(err.Error()) {
				t.Fatalf("error %T %q", err, err)
			}
			return
		}
		again, err := ParseItems("items", o.Bytes(), l)
		if err != nil || !bytes.Equal(again.Bytes(), o.Bytes()) || !again.Equal(o) || o.size() != len(o.Bytes()) {
			t.Fatalf("%s becomes %s: %v", o.Bytes(), again.Bytes(), err)
		}
		var c Cart
		if err := c.StorePart(PartItems, o.Bytes(), 1); err != nil || !c.Items.Object.Equal(o) {
			t.Fatalf("%s does not survive a backend: %v", o.Bytes(), err)
		}
		c.ID, c.Version = "c1", 1
		for _, m := range o.Members() {
			d := NewDraft(&c, Unlimited(), "")
			if altered, err := d.Change(AddItem{Item{ID: m.Key}}); err != nil || !altered {
				t.Fatalf("add to %q of %s: %v", m.Key, o.Bytes(), err)
			}
			if got := d.Cart().Items.Object; got.size() != len(got.Bytes()) {
				t.Fatalf("size %d of %s", got.size(), got.Bytes())
			}
			if _, err := ParseItems("items", d.Cart().Items.Object.Bytes(), Unlimited()); err != nil {
				t.Fatalf("add to %q of %s makes %s: %v", m.Key, o.Bytes(), d.Cart().Items.Object.Bytes(), err)
			}
		}
	})
}

func FuzzParseValue(f *testing.F) {
	for _, s := range fuzzSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		value, err := ParseValue("value", raw)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || !utf8.ValidString(err.Error()) {
				t.Fatalf("error %q", err)
			}
			return
		}
		var want, got any
		if err := json.Unmarshal(raw, &want); err != nil {
			// Too large a number for a float64 is still JSON.
			if syntax := new(json.SyntaxError); errors.As(err, &syntax) {
				t.Fatalf("%q is accepted: %v", raw, err)
			}
			return
		}
		if value == nil {
			if want != nil {
				t.Fatalf("%q is read as null", raw)
			}
			return
		}
		if err := json.Unmarshal(value, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q becomes %q: %v", raw, value, err)
		}
		if again, err := ParseValue("value", value); err != nil || !bytes.Equal(again, value) {
			t.Fatalf("%q becomes %q: %v", value, again, err)
		}
		// Members must be those that encoding/json finds.
		if object, ok := want.(map[string]any); ok && !bytes.Contains(raw, []byte(`\u`)) {
			o, err := ParseObject("value", raw)
			if err != nil || o.Len() != len(object) {
				t.Fatalf("%q: %v %v", raw, o.Members(), err)
			}
			for _, m := range o.Members() {
				var got any
				if err := json.Unmarshal(m.Value, &got); err != nil || !reflect.DeepEqual(got, object[m.Key]) {
					t.Fatalf("%q: member %q is %q: %v", raw, m.Key, m.Value, err)
				}
			}
		}
	})
}

// FuzzIsCompact holds the quick scanner against encoding/json.
func FuzzIsCompact(f *testing.F) {
	for _, s := range fuzzSeeds {
		f.Add([]byte(s))
	}
	for _, s := range []string{
		`-0.5e+10`, `01`, `1.`, `.5`, `-`, `1e`, `tru`, `truefalse`, `"\u12g4"`, `"\x"`, `"`, `"\`, "\"\x1f\"", "\"1234567\x01\"", `"12345678\"`,
		`[1,]`, `[,1]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{1:1}`, `[}`, `{]`, `[1}`, `{"a":1]`, `[[]`, `[]]`, `{"a":1}{}`, `"é☃😀12345678"`, "\"\xff\xfe345678\"",
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var buf bytes.Buffer
		want := json.Compact(&buf, text) == nil && bytes.Equal(buf.Bytes(), text) && len(text) > 0
		if got := isCompact(text); got != want && !(want && tooDeepFor(text)) {
			t.Fatalf("%q: %v, want %v", text, got, want)
		}
	})
}

// tooDeepFor reports whether valid JSON is nested deeper than MaxDepth.
func tooDeepFor(text []byte) bool {
	depth, deepest, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			depth++
			deepest = max(deepest, depth)
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	return deepest > MaxDepth
}
