package cart

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// A whole cart is held against its limit at the end of each change.
func TestCartBytes(t *testing.T) {
	l := DefaultLimits()
	l.MaxCartBytes = 60
	base := cartWith(t, 7, `{"a":{"x":1}}`, `{"v":{}}`, "k", `12`, "l\n", `"x"`)
	// {"a":{"x":1}} + {"v":{}} + {"k":12,"l\u000a":"x"}
	if base.Size() != 13+8+22 || string(base.MetadataObject()) != `{"k":12,"l\u000a":"x"}` {
		t.Fatalf("size %d, metadata %s", base.Size(), base.MetadataObject())
	}
	fill := func(n int) PatchMetadata { return PatchMetadata{[]Member{{"m", []byte(strings.Repeat("1", n))}}} }
	d := NewDraft(base, l, "")
	wantTooLarge(t, applied(d, fill(13)), 60, 61, "cart: would be 61 bytes with all of its documents, at most 60 are allowed")
	if got := fingerprint(d.Cart()); got != fingerprint(base) {
		t.Errorf("it left\n%s", got)
	}
	change(t, d, fill(12)) // just as much as is allowed
	if d.Cart().Size() != 60 {
		t.Errorf("size %d", d.Cart().Size())
	}
	big := mustObject(t, `{"big":{"x":"0123456789"}}`)
	wantTooLarge(t, applied(d, Put{Items: &big}), 60, 73, "cart: would be 73 bytes with all of its documents, at most 60 are allowed")
	wantTooLarge(t, applied(d, PutCondition{"w", Object{}}), 60, 67, "cart: would be 67 bytes with all of its documents, at most 60 are allowed")
	// What is too large in the midst of a batch only is not too large.
	change(t, d, Batch{[]Verb{Put{Items: &big}, ClearMetadata{}}})
	wantTooLarge(t, applied(d, Batch{[]Verb{ClearMetadata{}, fill(100)}}), 60, 140, "cart: would be 140 bytes with all of its documents, at most 60 are allowed")

	// A cart that is over the limit already may stay as large and shrink, and not grow.
	l.MaxCartBytes = 20
	d = NewDraft(d.Cart(), l, "")
	other := mustObject(t, `{"BIG":{"x":"0123456789"}}`)
	change(t, d, Put{Items: &other}, UpdateItem{ID: "BIG", Item: mustObject(t, `{"x":"01234567"}`)})
	wantTooLarge(t, applied(d, UpdateItem{ID: "BIG", Item: mustObject(t, `{"x":"012345678"}`)}), 20, 35, "cart: would be 35 bytes with all of its documents, at most 20 are allowed")
	change(t, d, RemoveCondition{"v"}, Clear{})
	if d.Cart().Size() != 6 {
		t.Errorf("an empty cart has size %d", d.Cart().Size())
	}
}

// bytesAllocated is how many bytes f allocates.
func bytesAllocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A patch with too many keys is refused before its members are looked at, and costs little more than its text.
func TestManyKeysAreCountedFirst(t *testing.T) {
	var b strings.Builder
	b.WriteByte('{')
	for i := range 80_000 {
		fmt.Fprintf(&b, `"k%d":{"":1,"":2},`, i) // what is in them is bad, and nobody looks
	}
	text := []byte(strings.TrimSuffix(b.String(), ",") + "}")
	for name, parse := range map[string]func() error{
		"metadata: has 80000 keys, at most 1000 are allowed": func() error {
			_, err := ParseMetadataPatch("metadata", text, DefaultLimits())
			return err
		},
		"items: has 80000 items, at most 1000 are allowed": func() error {
			l := DefaultLimits()
			l.MaxDocumentBytes = len(text)
			_, err := ParseItems("items", text, l)
			return err
		},
	} {
		var err error
		cost := bytesAllocated(func() { err = parse() })
		wantTooLarge(t, err, 1000, 80_000, name)
		if most := uint64(2*len(text) + 64<<10); cost > most {
			t.Errorf("%s: %d bytes for a text of %d", name, cost, len(text))
		}
	}
}

// A batch takes a large item apart and puts it together once, however often it changes it.
func TestBatchOnLargeItems(t *testing.T) {
	base := &Cart{ID: "c1", Version: 7}
	text := strings.Repeat("x", 500_000)
	if err := base.StorePart(PartItems, []byte(`{"a":{"x":"`+text+`","quantity":1},"b":{"y":"`+text+`","quantity":1}}`), 7); err != nil {
		t.Fatal(err)
	}
	var verbs []Verb
	for i := range 500 {
		verbs = append(verbs, UpdateItem{ID: "a", Delta: ptr(int64(1))}, AddItem{mustItem(t, fmt.Sprintf(`{"id":"b","n":%d}`, i))})
	}
	d := NewDraft(base, DefaultLimits(), "")
	if cost := bytesAllocated(func() { change(t, d, Batch{verbs}) }); cost > 8<<20 {
		t.Errorf("%d bytes for items of a million", cost)
	}
	want := `{"a":{"x":"` + text + `","quantity":501},"b":{"y":"` + text + `","quantity":501,"id":"b","n":499}}`
	if got := d.Cart().Items.Object; string(got.Bytes()) != want || got.size() != len(want) {
		t.Errorf("size %d, want %d", got.size(), len(want))
	}
}

// The limit on a document holds within a batch, with items that are taken apart.
func TestBatchWithinTheDocument(t *testing.T) {
	l := DefaultLimits()
	l.MaxDocumentBytes = 60
	patch := func(n int) UpdateItem {
		return UpdateItem{ID: "a", Item: Object{}.With("x", quantityText(int64(math.Pow10(n))))}
	}
	for _, tc := range []struct {
		verbs []Verb
		want  string // "" where it is too large
	}{
		{[]Verb{patch(1), patch(2), RemoveItem{"b"}, AddItem{Item{ID: "b"}}}, `{"a":{"quantity":1,"x":100},"b":{"id":"b","quantity":1}}`},
		{[]Verb{patch(8), patch(0), AddItem{Item{ID: "b"}}}, `{"a":{"quantity":1,"x":1},"b":{"quantity":2}}`},
		{[]Verb{patch(8), AddItem{Item{ID: "c"}}}, ""},
		{[]Verb{patch(1), patch(18), patch(18), AddItem{Item{ID: "b"}}}, ""},
		{[]Verb{RemoveItem{"a"}, AddItem{Item{ID: "a"}}, UpdateItem{ID: "a", Delta: ptr(int64(1))}, UpdateItem{ID: "b", Delta: ptr(int64(-1))}}, `{"a":{"id":"a","quantity":2}}`},
		{[]Verb{patch(1), Put{Items: ptr(Object{}.With("z", []byte(`{}`)))}, AddItem{Item{ID: "z"}}}, `{"z":{"quantity":2}}`},
		{[]Verb{patch(1), Clear{}, AddItem{Item{ID: "a"}}}, `{"a":{"id":"a","quantity":1}}`},
	} {
		base := cartWith(t, 7, `{"a":{"quantity":1},"b":{"quantity":1}}`, `{}`)
		d := NewDraft(base, l, "")
		_, err := d.Change(Batch{tc.verbs})
		if got := string(d.Cart().Items.Object.Bytes()); tc.want != "" && (err != nil || got != tc.want) {
			t.Errorf("%v: %v\n got %s\nwant %s", tc.verbs, err, got, tc.want)
		} else if tc.want == "" && (!errors.Is(err, ErrTooLarge) || got != string(base.Items.Object.Bytes())) {
			t.Errorf("%v: %v, items %s", tc.verbs, err, got)
		}
	}
}

func manyKeys(n int) (values []Member) {
	for i := range n {
		values = append(values, Member{fmt.Sprintf("key-%d", i), []byte(`"value"`)})
	}
	return values
}

// The work of a change of many metadata keys grows with them, and not with their square: a list of all keys for each
// would be 48 MB.
func TestManyKeysCostLittle(t *testing.T) {
	const n, most = 1000, 4 << 20
	values := manyKeys(n)
	for i := range values {
		values[i].Value = append([]byte(nil), values[i].Value...)
	}
	base := &Cart{}
	for _, step := range []struct {
		name string
		verb Verb
	}{
		{"set", PatchMetadata{values}},
		{"set again, half of it to the same", PatchMetadata{append(manyKeys(n/2), Member{"key-999", []byte(`1`)})}},
		{"one by one", batchOf(values, `2`)},
		{"clear", ClearMetadata{}},
	} {
		d := NewDraft(base, DefaultLimits(), "c1")
		if cost := bytesAllocated(func() { change(t, d, step.verb) }); cost > most {
			t.Errorf("%s: the draft allocates %d bytes", step.name, cost)
		}
		stored := *base
		written := d.Written()
		if cost := bytesAllocated(func() {
			if err := stored.StoreParts(written); err != nil {
				t.Error(err)
			}
		}); cost > most {
			t.Errorf("%s: the backend allocates %d bytes", step.name, cost)
		}
		base = commit(t, d)
	}
}

func batchOf(values []Member, value string) Batch {
	var verbs []Verb
	for _, m := range values {
		verbs = append(verbs, PatchMetadata{[]Member{{m.Key, []byte(value)}}})
	}
	return Batch{verbs}
}

// Changes that are committed together leave the backend with the order of keys and the tombstones that they have in the
// draft, whatever comes, goes and comes again.
func TestChangesTogetherKeepOrderAndTombstones(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := &Cart{}
		for range 6 {
			d := NewDraft(c, DefaultLimits(), "c1")
			for range 1 + r.IntN(12) {
				var values []Member
				for range 1 + r.IntN(60) {
					m := Member{Key: fmt.Sprint("k", r.IntN(150))}
					if r.IntN(2) == 0 {
						m.Value = quantityText(int64(r.IntN(3)))
					}
					values = append(values, m)
				}
				change(t, d, PatchMetadata{values})
			}
			if c = commit(t, d); t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// Keys of metadata stand in the order in which they came.
func TestMetadataOrder(t *testing.T) {
	set := func(keys ...string) (p PatchMetadata) {
		for _, key := range keys {
			key, removed := strings.CutPrefix(key, "-")
			m := Member{Key: key, Value: []byte(`1`)}
			if removed {
				m.Value = nil
			}
			p.Values = append(p.Values, m)
		}
		return p
	}
	again := PatchMetadata{[]Member{{"a", []byte(`2`)}}}
	for _, tc := range []struct {
		name    string
		changes []Verb // committed together
		want    string
	}{
		{"as they came", []Verb{set("z", "a", "m")}, "z a m"},
		{"in a batch", []Verb{Batch{[]Verb{set("z"), AddItem{Item{ID: "x"}}, set("a"), set("m")}}}, "z a m"},
		{"in several changes", []Verb{set("z"), set("a"), set("m", "b")}, "z a m b"},
		{"set again keeps its place", []Verb{set("z", "a", "m"), again}, "z a m"},
		{"removed and set again comes last", []Verb{set("z", "a", "m"), set("-a"), again}, "z m a"},
		{"set again before it was stored", []Verb{set("a"), set("z"), again}, "a z"},
	} {
		for _, before := range []*Cart{{}, cartWith(t, 3, `{}`, `{}`, "first", `1`, "a", `3`)} {
			d := NewDraft(before, DefaultLimits(), "c1")
			change(t, d, tc.changes...)
			want := tc.want
			if before.Exists() { // a is there already
				want = "first a " + strings.Join(strings.Fields(strings.ReplaceAll(" "+want+" ", " a ", " ")), " ")
				if strings.HasPrefix(tc.name, "removed") {
					want = "first z m a"
				}
			}
			var got []string
			for _, e := range commit(t, d).Metadata {
				got = append(got, e.Key)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: %q, want %q", tc.name, got, want)
			}
		}
	}
}
