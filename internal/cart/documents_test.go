package cart

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// kept is what becomes of a document: nothing but white space and the escapes of the keys of the objects that Sidecart
// makes anew may differ, and {} where [] stood in place of an empty map.
type kept struct {
	level int // below the document: 1 for an item, 2 for its members
	maps  []string
}

// FuzzDocuments: what comes in as JSON goes out as it came.
func FuzzDocuments(f *testing.F) {
	for _, s := range append(slices.Clone(fuzzSeeds),
		`{"7":{"id":7,"quantity":"2","price":[1,{"b":1.0,"a":[]}],"attributes":[],"conditions":[]},"x":[]}`,
		`{"a":{"quantity":1e1,"name":{"z":1,"a":2},"conditions":[{"x":[]}],"attributes":[[]]}}`,
		`{"vat":{"name":"vat","order":"first","attributes":[],"conditions":[],"value":-0.0E+1}}`,
	) {
		f.Add([]byte(s))
	}
	l := Unlimited()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if items, err := ParseItems("items", raw, l); err == nil {
			same(t, raw, items.Bytes(), kept{0, []string{"attributes", "conditions"}})
			d := NewDraft(&Cart{}, l, "c1")
			change(t, d, Put{Items: &items})
			same(t, raw, commit(t, d).Items.Object.Bytes(), kept{0, []string{"attributes", "conditions"}})
		}
		if conditions, err := ParseConditions("conditions", raw, l); err == nil {
			same(t, raw, conditions.Bytes(), kept{0, []string{"attributes"}})
		}
		if patch, err := ParseItemPatch("item", raw, l); err == nil {
			same(t, raw, patch.Bytes(), kept{1, []string{"attributes", "conditions"}})
		}
		if values, err := ParseMetadataPatch("metadata", raw, l); err == nil {
			d := NewDraft(&Cart{}, l, "c1")
			change(t, d, PatchMetadata{values})
			c := commit(t, d)
			if len(c.MetadataObject())+c.Items.Object.size()+c.Conditions.Object.size() != c.Size() {
				t.Errorf("size %d of %s", c.Size(), c.MetadataObject())
			}
			there := withoutNulls(t, raw)
			same(t, there, c.MetadataObject(), kept{1, nil})
		}
	})
}

// withoutNulls is an object without the members that are null.
func withoutNulls(t *testing.T, raw []byte) []byte {
	t.Helper()
	o, err := ParseObject("test", raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range o.Members() {
		if isNull(m.Value) {
			o = o.Without(m.Key)
		}
	}
	return o.Bytes()
}

// same compares two documents token by token: keys by what they say, all other text as it stands.
func same(t *testing.T, in, out []byte, k kept) {
	t.Helper()
	a, b := tokens(t, in, k), tokens(t, out, kept{})
	if !slices.Equal(a, b) {
		t.Fatalf("%s\nbecomes %s:\n got %q\nwant %q", in, out, b, a)
	}
	if again := new(bytes.Buffer); json.Compact(again, out) != nil || !bytes.Equal(again.Bytes(), out) {
		t.Fatalf("%s is not compact", out)
	}
}

// tokens are the texts of a document, found by encoding/json; empty lists are regular as k says.
func tokens(t *testing.T, text []byte, k kept) (list []string) {
	t.Helper()
	var walk func(raw json.RawMessage, level int, regular bool)
	walk = func(raw json.RawMessage, level int, regular bool) {
		raw = bytes.TrimSpace(raw)
		switch {
		case raw[0] == '{' || regular && strings.Join(strings.Fields(string(raw)), "") == "[]":
			list = append(list, "{")
			d := json.NewDecoder(bytes.NewReader(raw))
			_, _ = d.Token()
			for d.More() {
				at := d.InputOffset()
				_, _ = d.Token()
				key := bytes.TrimLeft(raw[at:d.InputOffset()], ", \t\r\n")
				name := string(unescape(key[1 : len(key)-1]))
				var value json.RawMessage
				if err := d.Decode(&value); err != nil {
					t.Fatalf("%s: %v", raw, err)
				}
				list = append(list, "key "+name)
				walk(value, level+1, k.maps != nil && (level == 0 || level == 1 && slices.Contains(k.maps, name)))
			}
			list = append(list, "}")
		case raw[0] == '[':
			var elements []json.RawMessage
			if err := json.Unmarshal(raw, &elements); err != nil {
				t.Fatalf("%s: %v", raw, err)
			}
			list = append(list, "[")
			for _, e := range elements {
				walk(e, level+2, false)
			}
			list = append(list, "]")
		default:
			list = append(list, string(raw))
		}
	}
	walk(text, k.level, k.maps != nil || k.level == 1)
	return list
}
