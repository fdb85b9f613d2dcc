package cart

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestItemVerbs(t *testing.T) {
	item := func(text string) Item { return mustItem(t, text) }
	patch := func(text string) Object { return mustObject(t, text) }
	const base = `{"a":{"id":"a","quantity":2,"x":1.50},"b":{"name":"no quantity"}}`
	for _, tc := range []struct {
		name string
		verb Verb
		want string // "" for no change
	}{
		{"add new", AddItem{item(`{"id":"c","z":[]}`)}, `{"a":{"id":"a","quantity":2,"x":1.50},"b":{"name":"no quantity"},"c":{"id":"c","z":[],"quantity":1}}`},
		{"add new without id or quantity", AddItem{Item{ID: "c\"", Object: patch(`{"x":1}`)}}, `{"a":{"id":"a","quantity":2,"x":1.50},"b":{"name":"no quantity"},"c\"":{"id":"c\"","x":1,"quantity":1}}`},
		{"add more", AddItem{item(`{"id":"a","quantity":3}`)}, `{"a":{"id":"a","quantity":5,"x":1.50},"b":{"name":"no quantity"}}`},
		{"add replaces members", AddItem{item(`{"y":{},"x":null,"id":"a"}`)}, `{"a":{"id":"a","quantity":3,"x":null,"y":{}},"b":{"name":"no quantity"}}`},
		{"add to none counts one", AddItem{item(`{"id":"b","quantity":4}`)}, `{"a":{"id":"a","quantity":2,"x":1.50},"b":{"name":"no quantity","id":"b","quantity":5}}`},
		{"add up to the limit", AddItem{item(`{"id":"a","quantity":9998}`)}, `{"a":{"id":"a","quantity":10000,"x":1.50},"b":{"name":"no quantity"}}`},
		{"add new keeps the text of a quantity", AddItem{item(`{"id":5,"quantity":"2"}`)}, `{"a":{"id":"a","quantity":2,"x":1.50},"b":{"name":"no quantity"},"5":{"id":5,"quantity":"2"}}`},
		{"add more, written otherwise", AddItem{item(`{"id":"a","quantity":1e1}`)}, `{"a":{"id":"a","quantity":12,"x":1.50},"b":{"name":"no quantity"}}`},
		{"update keeps the text of a quantity", UpdateItem{ID: "a", Item: patch(`{"quantity":"7"}`)}, `{"a":{"id":"a","quantity":"7","x":1.50},"b":{"name":"no quantity"}}`},
		{"deltas on a text", Batch{[]Verb{UpdateItem{ID: "a", Item: patch(`{"quantity":"2.0"}`)}, UpdateItem{ID: "a", Delta: ptr(int64(1))}}}, `{"a":{"id":"a","quantity":3,"x":1.50},"b":{"name":"no quantity"}}`},
		{"update", UpdateItem{ID: "a", Item: patch(`{"quantity":7,"x":2,"n":{"deep":1}}`)}, `{"a":{"id":"a","quantity":7,"x":2,"n":{"deep":1}},"b":{"name":"no quantity"}}`},
		{"update with the id", UpdateItem{ID: "a", Item: patch(`{"id":"a","quantity":1}`)}, `{"a":{"id":"a","quantity":1,"x":1.50},"b":{"name":"no quantity"}}`},
		{"update to the same", UpdateItem{ID: "a", Item: patch(`{"x":1.50,"quantity":2}`)}, ``},
		{"update of nothing", UpdateItem{ID: "b"}, ``},
		{"delta 0", UpdateItem{ID: "b", Delta: ptr(int64(0))}, ``},
		{"delta", UpdateItem{ID: "a", Item: patch(`{"x":0}`), Delta: ptr(int64(-1))}, `{"a":{"id":"a","quantity":1,"x":0},"b":{"name":"no quantity"}}`},
		{"delta to none counts one", UpdateItem{ID: "b", Delta: ptr(int64(1))}, `{"a":{"id":"a","quantity":2,"x":1.50},"b":{"name":"no quantity","quantity":2}}`},
		{"delta to 0", UpdateItem{ID: "a", Delta: ptr(int64(-2))}, `{"b":{"name":"no quantity"}}`},
		{"delta far below", UpdateItem{ID: "b", Delta: ptr(int64(math.MinInt64))}, `{"a":{"id":"a","quantity":2,"x":1.50}}`},
		{"remove", RemoveItem{"a"}, `{"b":{"name":"no quantity"}}`},
		{"remove what is not there", RemoveItem{"c"}, ``},
		{"take some", TakeItems{[]ItemQuantity{{"a", 1}, {"gone", 7}}}, `{"a":{"id":"a","quantity":1,"x":1.50},"b":{"name":"no quantity"}}`},
		{"take all", TakeItems{[]ItemQuantity{{"a", 2}, {"b", 1}}}, `{}`},
		{"take more than is there", TakeItems{[]ItemQuantity{{"a", math.MaxInt64}}}, `{"b":{"name":"no quantity"}}`},
		{"take what is not there", TakeItems{[]ItemQuantity{{"gone", 1}}}, ``},
		{"take nothing", TakeItems{}, ``},
		{"put the same", Put{Items: ptr(patch(base))}, ``},
		{"put in another order", Put{Items: ptr(patch(`{"b":{"name":"no quantity"},"a":{"id":"a","quantity":2,"x":1.50}}`))}, `{"b":{"name":"no quantity"},"a":{"id":"a","quantity":2,"x":1.50}}`},
	} {
		start := cartWith(t, 7, base, `{}`)
		d := NewDraft(start, DefaultLimits(), "")
		if altered := change(t, d, tc.verb); altered != (tc.want != "") {
			t.Errorf("%s: altered %v", tc.name, altered)
		}
		want := tc.want
		if want == "" {
			want = base
		}
		if got := string(d.Cart().Items.Object.Bytes()); got != want {
			t.Errorf("%s\n got %s\nwant %s", tc.name, got, want)
		}
		if got := string(start.Items.Object.Bytes()); got != base {
			t.Errorf("%s: the base is now %s", tc.name, got)
		}
	}
}

func TestVerbErrors(t *testing.T) {
	patch := func(text string) Object { return mustObject(t, text) }
	q := func(n int64) Item { return Item{ID: "a", Object: patch(fmt.Sprintf(`{"quantity":%d}`, n))} }
	long := []byte(`"` + strings.Repeat("x", 200) + `"`)
	small := Limits{MaxItems: 2, MaxDocumentBytes: 100, MaxCartBytes: 300, MaxMetadataKeys: 10, MaxQuantity: 10}
	for _, tc := range []struct {
		verb     Verb
		sentinel error
		want     string
	}{
		{AddItem{q(9)}, ErrInvalid, `item.quantity: 9 more than the 2 that are there: at most 10 are allowed`},
		{AddItem{q(math.MaxInt64)}, ErrInvalid, `item.quantity: must be a whole number from 1 to 10, not 9223372036854775807`},
		{AddItem{q(0)}, ErrInvalid, `item.quantity: must be a whole number from 1 to 10, not 0`},
		{AddItem{Item{}}, ErrInvalid, `item.id: must not be empty`},
		{AddItem{Item{ID: "c"}}, ErrTooLarge, `items: has 3 items, at most 2 are allowed`},
		{AddItem{Item{ID: "a", Object: Object{}.With("x", long)}}, ErrTooLarge, `items: is 234 bytes as compact JSON, at most 100 are allowed`},
		{UpdateItem{ID: "c"}, ErrNotFound, `item "c" is not there`},
		{UpdateItem{ID: "c", Delta: ptr(int64(1))}, ErrNotFound, `item "c" is not there`},
		{UpdateItem{ID: "a", Item: patch(`{"id":"b"}`)}, ErrInvalid, `item.id: must be "a", like its key, not "b"`},
		{UpdateItem{ID: "a", Item: patch(`{"quantity":0}`)}, ErrInvalid, `item.quantity: must be a whole number from 1 to 10, not 0: to remove the item, delete it or use quantityDelta`},
		{UpdateItem{ID: "a", Item: patch(`{"quantity":"0.0"}`)}, ErrInvalid, `item.quantity: must be a whole number from 1 to 10, not 0: to remove the item, delete it or use quantityDelta`},
		{UpdateItem{ID: "a", Item: patch(`{"quantity":11}`)}, ErrInvalid, `item.quantity: must be a whole number from 1 to 10, not 11`},
		{UpdateItem{ID: "a", Item: patch(`{"quantity":1}`), Delta: ptr(int64(1))}, ErrInvalid, `quantityDelta: must not be given together with item.quantity: give one of them`},
		{UpdateItem{ID: "a", Delta: ptr(int64(9))}, ErrInvalid, `quantityDelta: 9 more than the 2 that are there: at most 10 are allowed`},
		{UpdateItem{ID: "a", Delta: ptr(int64(math.MaxInt64))}, ErrInvalid, `quantityDelta: 9223372036854775807 more than the 2 that are there: at most 10 are allowed`},
		{UpdateItem{ID: "a", Item: Object{}.With("x", long)}, ErrTooLarge, `items: is 234 bytes as compact JSON, at most 100 are allowed`},
		{Put{Conditions: ptr(Object{}.With("x", long))}, ErrTooLarge, `conditions: is 208 bytes as compact JSON, at most 100 are allowed`},
		{PutCondition{"x", Object{}.With("x", long)}, ErrTooLarge, `conditions: is 214 bytes as compact JSON, at most 100 are allowed`},
		{PutCondition{}, ErrInvalid, `name: must not be empty`},
		{PatchMetadata{[]Member{{"k", long}}}, ErrTooLarge, `metadata["k"]: is 202 bytes as compact JSON, at most 100 are allowed`},
		{PatchMetadata{[]Member{{"", long}}}, ErrInvalid, `metadata[""]: must not be empty`},
		{Batch{[]Verb{RemoveItem{"b"}, Batch{[]Verb{AddItem{q(9)}}}}}, ErrInvalid, `operations[1].operations[0].item.quantity: 9 more than the 2 that are there: at most 10 are allowed`},
		{Batch{[]Verb{RemoveItem{"a"}, UpdateItem{ID: "a"}}}, ErrNotFound, `item "a" is not there`},
		{Receive{From: &Cart{}, Strategy: "best"}, ErrInvalid, `strategy: "best" is no merge strategy: write "add_quantities", "keep_highest_quantity", "keep_target" or "replace"`},
	} {
		d := NewDraft(cartWith(t, 7, `{"a":{"quantity":2},"b":{}}`, `{}`), small, "")
		wantError(t, applied(d, tc.verb), tc.sentinel, tc.want)
		if d.Seal() {
			t.Errorf("%s: left something behind", tc.want)
		}
	}
}

// After an operator lowered a limit, a cart over it can still be brought down.
func TestOverfullCartShrinks(t *testing.T) {
	small := Limits{MaxItems: 1, MaxDocumentBytes: 10, MaxCartBytes: 20, MaxMetadataKeys: 1, MaxQuantity: 5}
	base := cartWith(t, 7, `{"a":{"quantity":20},"b":{"quantity":3},"c":{}}`, `{"x":{"value":"10%"},"y":{}}`)
	d := NewDraft(base, small, "")
	change(t, d, UpdateItem{ID: "a", Delta: ptr(int64(-5))}, RemoveItem{"b"}, RemoveCondition{"y"})
	if got := string(d.Cart().Items.Object.Bytes()); got != `{"a":{"quantity":15},"c":{}}` {
		t.Error(got)
	}
	err := applied(d, AddItem{Item{ID: "b"}})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("it grows: %v", err)
	}
}

func TestOtherVerbs(t *testing.T) {
	d := NewDraft(cartWith(t, 7, `{"a":{}}`, `{"vat":{"value":"6%"},"fee":{}}`, "k", `1`), DefaultLimits(), "")
	vat := mustObject(t, `{"value":"7%","x":1.0}`)
	change(t, d, PutCondition{"vat", vat})
	if change(t, d, PutCondition{"vat", vat}) || change(t, d, RemoveCondition{"none"}) {
		t.Error("the same again altered")
	}
	change(t, d, RemoveCondition{"fee"}, PatchMetadata{[]Member{{"k", []byte(`null`)}, {"l", []byte(`[1]`)}, {"l", []byte(`[2]`)}}})
	want := "id=c1 v=10 floor=0\nitems@7 {\"a\":{}}\nconditions@9 {\"vat\":{\"value\":\"7%\",\"x\":1.0}}\nl@10 [2]\nk@10 removed\nreceived="
	if got := fingerprint(d.Cart()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	change(t, d, Put{Conditions: ptr(Object{})}, ClearMetadata{})
	if c := d.Cart(); c.Version != 12 || c.Items.Version != 7 || c.Conditions.Object.Len() != 0 || len(c.Metadata) != 0 {
		t.Error(fingerprint(c))
	}
}

// A number under a metadata key is counted exactly, however it is written, and its text stays where nothing is added.
func TestIncrementMetadata(t *testing.T) {
	for _, tc := range []struct {
		has  string // "" for a key that is not there
		by   int64
		want string // "" for no change
		err  string
	}{
		{has: ``, by: 1, want: `1`},
		{has: ``, by: -7, want: `-7`},
		{has: ``, by: 0, want: `0`},
		{has: `41`, by: 1, want: `42`},
		{has: `41`, by: -42, want: `-1`},
		{has: `-0`, by: 1, want: `1`},
		{has: `2.0`, by: 0},
		{has: `2.0`, by: 3, want: `5`},
		{has: `-1.50e2`, by: 1, want: `-149`},
		{has: `0.0e99`, by: 1, want: `1`},
		{has: `9007199254740993`, by: 1, want: `9007199254740994`},
		{has: `9223372036854775806`, by: 1, want: `9223372036854775807`},
		{has: `-9223372036854775808`, by: math.MaxInt64, want: `-1`},
		{has: `9223372036854775807`, by: math.MinInt64, want: `-1`},
		{has: `9223372036854775807`, by: 1, err: `by: 1 more than the 9223372036854775807 that is there does not fit into a whole number of 64 bits`},
		{has: `-9223372036854775808`, by: -1, err: `by: -1 more than the -9223372036854775808 that is there does not fit into a whole number of 64 bits`},
		{has: `9223372036854775808`, by: -1, err: `metadata["k"]: must be a whole number of 64 bits to be incremented, not 9223372036854775808`},
		{has: `1e999999999999`, by: 0, err: `metadata["k"]: must be a whole number of 64 bits to be incremented, not 1e999999999999`},
		{has: `1.5`, by: 1, err: `metadata["k"]: must be a whole number of 64 bits to be incremented, not 1.5`},
		{has: `1e-1`, by: 1, err: `metadata["k"]: must be a whole number of 64 bits to be incremented, not 1e-1`},
		{has: `"1"`, by: 1, err: `metadata["k"]: must be a whole number of 64 bits to be incremented, not "1"`},
		{has: `true`, by: 1, err: `metadata["k"]: must be a whole number of 64 bits to be incremented, not true`},
		{has: `[1]`, by: 1, err: `metadata["k"]: must be a whole number of 64 bits to be incremented, not a list`},
	} {
		var metadata []string
		if tc.has != "" {
			metadata = []string{"k", tc.has}
		}
		d := NewDraft(cartWith(t, 7, `{}`, `{}`, metadata...), DefaultLimits(), "")
		altered, err := d.Change(IncrementMetadata{"k", tc.by})
		if tc.err != "" {
			wantError(t, err, ErrInvalid, tc.err)
			continue
		}
		want := tc.want
		if want == "" {
			want = tc.has
		}
		if got, _ := d.Cart().MetadataValue("k"); err != nil || altered != (tc.want != "") || string(got) != want {
			t.Errorf("%s and %d: %s, altered %t, %v; want %s", tc.has, tc.by, got, altered, err, want)
		}
	}
	full := NewDraft(cartWith(t, 7, `{}`, `{}`, "l", `1`), Limits{MaxMetadataKeys: 1, MaxDocumentBytes: 10, MaxCartBytes: 100}, "")
	_, err := full.Change(IncrementMetadata{"k", 1})
	wantError(t, err, ErrTooLarge, `metadata: has 2 keys, at most 1 are allowed`)
	_, err = full.Change(IncrementMetadata{"", 1})
	wantError(t, err, ErrInvalid, `metadata[""]: must not be empty`)
}

func TestQuantities(t *testing.T) {
	c := cartWith(t, 7, `{"b":{"quantity":"2.0"},"a":{},"c":{"x":1,"quantity":1e1}}`, `{}`)
	if got, want := c.Quantities(), []ItemQuantity{{"b", 2}, {"a", 1}, {"c", 10}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := new(Cart).Quantities(); len(got) != 0 {
		t.Errorf("%v of nothing", got)
	}
}

func TestParts(t *testing.T) {
	c := cartWith(t, 7, `{}`, `{}`, "k", `1`, "l", `2`)
	o := Object{}
	for _, tc := range []struct {
		verb Verb
		want []Part
	}{
		{Put{}, nil},
		{Put{Items: &o}, []Part{PartItems}},
		{Put{&o, &o}, []Part{PartItems, PartConditions}},
		{AddItem{}, []Part{PartItems}},
		{UpdateItem{}, []Part{PartItems}},
		{RemoveItem{}, []Part{PartItems}},
		{TakeItems{}, []Part{PartItems}},
		{PutCondition{}, []Part{PartConditions}},
		{RemoveCondition{}, []Part{PartConditions}},
		{PatchMetadata{[]Member{{Key: "z"}, {Key: "k"}, {Key: "z"}}}, []Part{PartMetadata("k"), PartMetadata("z")}},
		{IncrementMetadata{Key: "z"}, []Part{PartMetadata("z")}},
		{ClearMetadata{}, []Part{PartMetadata("k"), PartMetadata("l")}},
		{Batch{[]Verb{IncrementMetadata{Key: "z"}, ClearMetadata{}}}, []Part{PartMetadata("k"), PartMetadata("l"), PartMetadata("z")}},
		{Clear{}, []Part{PartAll}},
		{Receive{}, []Part{PartAll}},
		{Batch{}, nil},
		{Batch{[]Verb{AddItem{}, PatchMetadata{[]Member{{Key: "z"}}}, RemoveItem{}}}, []Part{PartItems, PartMetadata("z")}},
		{Batch{[]Verb{AddItem{}, Clear{}}}, []Part{PartAll}},
	} {
		if got := tc.verb.Parts(c); !slices.Equal(got, tc.want) {
			t.Errorf("%#v: %q, want %q", tc.verb, got, tc.want)
		}
	}
}
