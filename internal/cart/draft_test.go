package cart

import (
	"fmt"
	"slices"
	"testing"
)

func TestDraftCreates(t *testing.T) {
	none := &Cart{}
	empty := Object{}
	for name, verb := range map[string]Verb{
		"remove item": RemoveItem{"a"}, "remove condition": RemoveCondition{"a"}, "clear": Clear{}, "clear metadata": ClearMetadata{},
		"put of nothing": Put{&empty, &empty}, "remove a key": PatchMetadata{[]Member{{Key: "a"}}}, "an empty batch": Batch{},
	} {
		d := NewDraft(none, DefaultLimits(), "new")
		if change(t, d, verb) || d.Cart().Exists() || d.Cart().Version != 0 || len(d.Written()) != 0 {
			t.Errorf("%s: %s", name, fingerprint(d.Cart()))
		}
	}
	d := NewDraft(none, DefaultLimits(), "new")
	if !change(t, d, PutCondition{"vat", mustObject(t, `{"value":"6%"}`)}) {
		t.Fatal("nothing was altered")
	}
	if c := d.Cart(); c.ID != "new" || c.Version != 1 || c.Conditions.Version != 1 || c.Items.Version != 0 {
		t.Error(fingerprint(c))
	}
	if none.Exists() {
		t.Error("the base was written to")
	}
}

func TestDraftVersions(t *testing.T) {
	base := cartWith(t, 7, `{"a":{"quantity":1}}`, `{}`, "k", `1`)
	d := NewDraft(base, DefaultLimits(), "unused")
	steps := []struct {
		verb                             Verb
		version, items, conditions, k, l uint64
	}{
		{AddItem{mustItem(t, `{"id":"a"}`)}, 8, 8, 7, 7, 0},
		{PatchMetadata{[]Member{{"k", []byte(`2`)}, {"l", []byte(`1`)}}}, 9, 8, 7, 9, 9},
		{PatchMetadata{[]Member{{"k", []byte(`2`)}, {"x", nil}}}, 9, 8, 7, 9, 9},
		{PatchMetadata{[]Member{{"k", nil}}}, 10, 8, 7, 10, 9},
		{PatchMetadata{[]Member{{"k", []byte(`2`)}}}, 11, 8, 7, 11, 9},
		{RemoveCondition{"nothing"}, 11, 8, 7, 11, 9},
		{Clear{}, 12, 12, 7, 12, 12},
		{Clear{}, 12, 12, 7, 12, 12},
		{ClearMetadata{}, 12, 12, 7, 12, 12},
	}
	before := d.Cart()
	for i, s := range steps {
		altered := change(t, d, s.verb)
		c := d.Cart()
		if altered != (c.Version != before.Version) {
			t.Errorf("step %d: Seal says %v", i, altered)
		}
		before = c
		got := fmt.Sprint(c.Version, c.PartVersion(PartItems), c.PartVersion(PartConditions), c.PartVersion(PartMetadata("k")), c.PartVersion(PartMetadata("l")))
		if want := fmt.Sprint(s.version, s.items, s.conditions, s.k, s.l); got != want {
			t.Errorf("step %d: versions %s, want %s", i, got, want)
		}
	}
	var got []string
	for _, w := range d.Written() {
		got = append(got, fmt.Sprintf("%s@%d %s", w.Part, w.Version, w.Value))
	}
	// k was removed, set again and removed again; each leaves its mark on the tombstones.
	want := []string{"items@12 {}", "metadata.k@10 ", "metadata.k@11 2", "metadata.k@12 ", "metadata.l@12 "}
	if !slices.Equal(got, want) {
		t.Errorf("Written\n got %q\nwant %q", got, want)
	}
	if base.Version != 7 || base.Items.Object.Len() != 1 || string(base.Metadata[0].Value) != `1` {
		t.Errorf("the base was written to: %s", fingerprint(base))
	}
}

func TestSealSeesThroughDetours(t *testing.T) {
	base := cartWith(t, 7, `{"a":{"quantity":1}}`, `{"vat":{}}`, "k", `1`, "l", `2`)
	before := fingerprint(base)
	d := NewDraft(base, DefaultLimits(), "")
	if change(t, d, Batch{[]Verb{
		AddItem{mustItem(t, `{"id":"b"}`)}, RemoveItem{"b"},
		RemoveCondition{"vat"}, PutCondition{"vat", Object{}},
		PatchMetadata{[]Member{{"k", nil}, {"m", []byte(`1`)}, {"k", []byte(`1`)}, {"m", nil}}},
	}}) {
		t.Errorf("a detour altered: %s", fingerprint(d.Cart()))
	}
	change(t, d, PatchMetadata{[]Member{{"k", nil}, {"k", []byte(`3`)}}})
	if c := d.Cart(); c.Metadata[0].Key != "k" || string(c.Metadata[0].Value) != `3` || len(c.Removed) != 0 {
		t.Errorf("k lost its place or left a tombstone: %s", fingerprint(c))
	}
	if got := fingerprint(base); got != before {
		t.Errorf("the base was written to:\n%s\nwas\n%s", got, before)
	}
}

func TestRollback(t *testing.T) {
	base := cartWith(t, 7, `{"a":{"quantity":1}}`, `{}`, "k", `1`)
	d := NewDraft(base, DefaultLimits(), "")
	change(t, d, PatchMetadata{[]Member{{"k", []byte(`2`)}}})
	want := fingerprint(d.Cart())
	if err := (Batch{[]Verb{Clear{}, UpdateItem{ID: "a", Delta: ptr(int64(1))}}}).Apply(d); err == nil {
		t.Fatal("no error")
	}
	d.Rollback()
	if got := fingerprint(d.Cart()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if d.Seal() {
		t.Error("something was left of what was given up")
	}
	change(t, d, AddItem{mustItem(t, `{"id":"a"}`)})
	if c := d.Cart(); c.Version != 9 || c.PartVersion(PartMetadata("k")) != 8 || c.Items.Version != 9 {
		t.Error(fingerprint(c))
	}
}

func TestTombstones(t *testing.T) {
	c := &Cart{ID: "c1", Version: 1}
	set := func(key string, value []byte) {
		t.Helper()
		d := NewDraft(c, DefaultLimits(), "")
		change(t, d, PatchMetadata{[]Member{{key, value}}})
		c = d.Cart()
	}
	for i := range 65 {
		key := fmt.Sprintf("k%02d", i)
		set(key, []byte(`1`)) // version 2+2i
		set(key, nil)         // version 3+2i
	}
	if len(c.Removed) != 33 || c.Floor != 3+2*31 {
		t.Errorf("%d tombstones, floor %d", len(c.Removed), c.Floor)
	}
	if v := c.PartVersion(PartMetadata("k32")); v != 3+2*32 {
		t.Errorf("k32 is at %d", v)
	}
	for _, key := range []string{"k00", "k31", "never"} {
		if v := c.PartVersion(PartMetadata(key)); v != c.Floor {
			t.Errorf("%s is at %d, want the floor %d", key, v, c.Floor)
		}
	}
	set("k64", []byte(`2`))
	if _, ok := c.Removed["k64"]; ok || c.PartVersion(PartMetadata("k64")) != c.Version {
		t.Errorf("k64 is set and has a tombstone: %s", fingerprint(c))
	}
}

func TestStorePart(t *testing.T) {
	var c Cart
	store := func(p Part, value string, version uint64) {
		t.Helper()
		raw := []byte(value)
		if value == "" {
			raw = nil
		}
		if err := c.StorePart(p, raw, version); err != nil {
			t.Fatal(err)
		}
		clear(raw)
	}
	store(PartItems, `{"a":{}}`, 3)
	store(PartConditions, `{}`, 4)
	store(PartMetadata("b"), `{"x":1}`, 5)
	store(PartMetadata("a"), `2`, 6)
	store(PartMetadata("gone"), ``, 7)
	store(PartTransfer, `raw`, 0)
	store(PartReceived, `id`, 0)
	copied := c
	before := fingerprint(&copied)
	if before != "id= v=0 floor=0\nitems@3 {\"a\":{}}\nconditions@4 {}\nb@5 {\"x\":1}\na@6 2\ngone@7 removed\nreceived=id" || c.Metadata[0].Key != "b" || string(c.Transfer) != "raw" {
		t.Error(before)
	}
	store(PartMetadata("b"), `3`, 8)
	store(PartMetadata("c"), `4`, 8)
	store(PartMetadata("gone"), `5`, 8)
	store(PartMetadata("a"), ``, 9)
	store(PartTransfer, ``, 0)
	if got := fingerprint(&copied); got != before {
		t.Errorf("a shallow copy was written to:\n%s\nwas\n%s", got, before)
	}
	if _, ok := c.Removed["gone"]; ok || c.Removed["a"] != 9 || len(c.Metadata) != 3 || c.Metadata[0].Key != "b" || c.Transfer != nil {
		t.Error(fingerprint(&c))
	}
	twin := c
	store(PartMetadata("d"), `6`, 10)
	if err := twin.StorePart(PartMetadata("e"), []byte(`7`), 10); err != nil || c.Metadata[3].Key != "d" || twin.Metadata[3].Key != "e" {
		t.Errorf("two copies append to one array: %v\n%s\n%s", err, fingerprint(&c), fingerprint(&twin))
	}
	now := fingerprint(&c)
	for part, value := range map[Part]string{PartItems: `[]`, PartConditions: ``, PartMetadata("b"): `{"x":`, PartMetadata("c"): `null`, PartAll: `{}`, PartMetadataAll: `{}`, "other": `{}`} {
		if err := c.StorePart(part, []byte(value), 10); err == nil {
			t.Errorf("%s: %q is accepted", part, value)
		}
	}
	if got := fingerprint(&c); got != now {
		t.Errorf("damaged values changed the cart to\n%s", got)
	}
}

func TestShifted(t *testing.T) {
	base := cartWith(t, 7, `{"a":{"quantity":1}}`, `{}`, "k", `1`, "l", `1`)
	d := NewDraft(base, DefaultLimits(), "")
	change(t, d, AddItem{mustItem(t, `{"id":"a"}`)}, PatchMetadata{[]Member{{"k", nil}, {"l", []byte(`2`)}}})
	before := fingerprint(d.Cart())
	s := d.Cart().Shifted(7, 10)
	if s.Version != 19 || s.Items.Version != 18 || s.Conditions.Version != 7 || s.Removed["k"] != 19 || s.Metadata[0].Version != 19 {
		t.Error(fingerprint(s))
	}
	if got := fingerprint(d.Cart()); got != before {
		t.Errorf("the original was written to:\n%s", got)
	}
	if got := fingerprint(d.Cart().Shifted(7, 0)); got != before {
		t.Errorf("a shift by nothing:\n%s", got)
	}
}

func TestMetadataLimit(t *testing.T) {
	var values []Member
	for i := range 1000 {
		values = append(values, Member{fmt.Sprint(i), []byte(`1`)})
	}
	d := NewDraft(&Cart{}, DefaultLimits(), "new")
	change(t, d, PatchMetadata{values})
	one := PatchMetadata{[]Member{{"more", []byte(`1`)}}}
	wantTooLarge(t, applied(d, one), 1000, 1001, `metadata: has 1001 keys, at most 1000 are allowed`)
	change(t, d, PatchMetadata{[]Member{{"0", nil}, {"more", []byte(`1`)}, {"1", []byte(`2`)}}})
	unlimited := NewDraft(d.Cart(), Unlimited(), "")
	change(t, unlimited, PatchMetadata{[]Member{{"0", []byte(`1`)}}})
}
