package cart

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// model is a cart as naively as can be: no text, no sharing, no order but that of the metadata.
type model struct {
	version           uint64
	items, conditions map[string]map[string]any
	metadata          map[string]any
	order             []string // of the metadata
	versions          map[Part]uint64
}

func (m *model) clone() *model {
	deep := func(in map[string]map[string]any) map[string]map[string]any {
		out := map[string]map[string]any{}
		for k, v := range in {
			out[k] = maps.Clone(v)
		}
		return out
	}
	return &model{m.version, deep(m.items), deep(m.conditions), maps.Clone(m.metadata), slices.Clone(m.order), maps.Clone(m.versions)}
}

var (
	errModelMissing = errors.New("missing")
	errModelLimit   = errors.New("limit")
	errModelValue   = errors.New("value")
)

func quantity(item map[string]any) float64 {
	if q, ok := item["quantity"].(float64); ok {
		return q
	}
	return 1
}

func (m *model) apply(verb Verb, l Limits) error {
	switch v := verb.(type) {
	case AddItem:
		given := decode(v.Item.Object)
		item, ok := m.items[v.Item.ID]
		has := quantity(item)
		if !ok {
			item, has = map[string]any{}, 0
		}
		maps.Copy(item, given)
		item["quantity"] = has + quantity(given)
		if quantity(item) > float64(l.MaxQuantity) || !ok && len(m.items) == l.MaxItems {
			return errModelLimit
		}
		m.items[v.Item.ID] = item
	case UpdateItem:
		item, ok := m.items[v.ID]
		if !ok {
			return errModelMissing
		}
		has := quantity(item)
		maps.Copy(item, decode(v.Item))
		if v.Delta != nil && *v.Delta != 0 {
			item["quantity"] = has + float64(*v.Delta)
		}
		if quantity(item) > float64(l.MaxQuantity) {
			return errModelLimit
		}
		if quantity(item) <= 0 {
			delete(m.items, v.ID)
		}
	case RemoveItem:
		delete(m.items, v.ID)
	case TakeItems:
		for _, x := range v.Items {
			item, ok := m.items[x.ID]
			if left := quantity(item) - float64(x.Quantity); ok && left > 0 {
				item["quantity"] = left
			} else {
				delete(m.items, x.ID)
			}
		}
	case PutCondition:
		m.conditions[v.Name] = decode(v.Condition)
	case RemoveCondition:
		delete(m.conditions, v.Name)
	case PatchMetadata:
		for _, x := range v.Values {
			if x.Value == nil {
				delete(m.metadata, x.Key)
				continue
			}
			m.metadata[x.Key] = decodeValue(x.Value)
			if len(m.metadata) > l.MaxMetadataKeys {
				return errModelLimit
			}
			if !slices.Contains(m.order, x.Key) { // one that goes keeps its place until the change is over
				m.order = append(m.order, x.Key)
			}
		}
	case IncrementMetadata:
		has, there := m.metadata[v.Key]
		n, whole := has.(float64)
		if there && !whole {
			return errModelValue
		}
		if there && v.By == 0 {
			return nil
		}
		return m.apply(PatchMetadata{[]Member{{v.Key, fmt.Append(nil, int64(n)+v.By)}}}, l)
	case ClearMetadata:
		clear(m.metadata)
	case Clear:
		clear(m.metadata)
		clear(m.items)
		clear(m.conditions)
	case Put:
		put := func(into *map[string]map[string]any, o *Object) {
			if o == nil {
				return
			}
			*into = map[string]map[string]any{}
			for _, x := range o.Members() {
				(*into)[x.Key] = decodeValue(x.Value).(map[string]any)
			}
		}
		put(&m.items, v.Items)
		put(&m.conditions, v.Conditions)
	case Batch:
		for _, x := range v.Verbs {
			if err := m.apply(x, l); err != nil {
				return err
			}
		}
	default:
		panic(fmt.Sprintf("the model has no %T", verb))
	}
	return nil
}

// change is apply, and the limit on the whole, which only the end of a change is held against.
func (m *model) change(verb Verb, l Limits) error {
	before := m.size()
	if err := m.apply(verb, l); err != nil {
		return err
	}
	if size := m.size(); size > l.MaxCartBytes && size > before {
		return errModelLimit
	}
	return nil
}

// size is the length of what is served: the texts of tests have no white space and no text that is written in two ways.
func (m *model) size() int {
	return len(encode(m.items)) + len(encode(m.conditions)) + len(encode(m.metadata))
}

// seal gives versions to what differs from before.
func (m *model) seal(before *model) {
	m.order = slices.DeleteFunc(m.order, func(key string) bool { _, ok := m.metadata[key]; return !ok })
	m.version = before.version + 1
	altered := false
	compare := func(p Part, a, b any) {
		if encode(a) != encode(b) {
			m.versions[p] = m.version
			altered = true
		}
	}
	compare(PartItems, before.items, m.items)
	compare(PartConditions, before.conditions, m.conditions)
	for _, key := range metadataKeys {
		compare(PartMetadata(key), before.metadata[key], m.metadata[key])
	}
	if !altered {
		m.version = before.version
	}
}

var metadataKeys = []string{"k", "l", "m", "n"}

func decode(o Object) map[string]any { return decodeValue(o.Bytes()).(map[string]any) }

func decodeValue(raw []byte) (v any) {
	if err := json.Unmarshal(raw, &v); err != nil {
		panic(fmt.Sprintf("%s: %v", raw, err))
	}
	return v
}

// encode sorts keys.
func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (m *model) compare(t *testing.T, c *Cart) {
	t.Helper()
	if c.Version != m.version || c.Exists() != (m.version > 0) {
		t.Errorf("version %d of %q, want %d", c.Version, c.ID, m.version)
	}
	if got, want := encode(decode(c.Items.Object)), encode(m.items); got != want {
		t.Errorf("items\n got %s\nwant %s", got, want)
	}
	if got, want := encode(decode(c.Conditions.Object)), encode(m.conditions); got != want {
		t.Errorf("conditions\n got %s\nwant %s", got, want)
	}
	metadata := map[string]any{}
	var order []string
	for _, e := range c.Metadata {
		metadata[e.Key] = decodeValue(e.Value)
		order = append(order, e.Key)
	}
	if !slices.Equal(order, m.order) {
		t.Errorf("metadata in the order %q, want %q", order, m.order)
	}
	for _, o := range []Object{c.Items.Object, c.Conditions.Object} {
		if o.size() != len(o.Bytes()) {
			t.Errorf("size %d of %s", o.size(), o.Bytes())
		}
	}
	if c.Size() != m.size() || len(c.MetadataObject()) != len(encode(m.metadata)) {
		t.Errorf("size %d, want %d; metadata %s", c.Size(), m.size(), c.MetadataObject())
	}
	if got, want := encode(metadata), encode(m.metadata); got != want {
		t.Errorf("metadata\n got %s\nwant %s", got, want)
	}
	for _, p := range parts() {
		if got, want := c.PartVersion(p), m.versions[p]; got != want {
			t.Errorf("%s is at version %d, want %d", p, got, want)
		}
	}
}

func parts() []Part {
	out := []Part{PartItems, PartConditions}
	for _, key := range metadataKeys {
		out = append(out, PartMetadata(key))
	}
	return out
}

// randomVerb is drawn from few names and values, so that verbs meet.
func randomVerb(t *testing.T, r *rand.Rand, depth int) Verb {
	id := string(rune('a' + r.IntN(5)))
	value := func() []byte { return quantityText(int64(r.IntN(3))) }
	switch r.IntN(13 + 2*(1-depth)) {
	case 0, 1, 2:
		text := fmt.Sprintf(`{"id":%q,"x":%d}`, id, r.IntN(3))
		if r.IntN(2) == 0 {
			text = fmt.Sprintf(`{"quantity":%d,"id":%q,"attributes":[]}`, 1+r.IntN(6), id)
		}
		return AddItem{mustItem(t, text)}
	case 3, 4:
		return UpdateItem{ID: id, Item: Object{}.With("x", value()).With("quantity", quantityText(int64(1+r.IntN(20))))}
	case 5, 6:
		return UpdateItem{ID: id, Item: Object{}.With("y", value()), Delta: ptr(int64(r.IntN(10) - 5))}
	case 7:
		if r.IntN(2) == 0 {
			return TakeItems{[]ItemQuantity{{id, int64(1 + r.IntN(9))}, {"a", 2}}}
		}
		return RemoveItem{id}
	case 8:
		if r.IntN(2) == 0 {
			return RemoveCondition{id}
		}
		return PutCondition{id, Object{}.With("value", value())}
	case 9, 10:
		var values []Member
		for range 1 + r.IntN(3) {
			m := Member{Key: metadataKeys[r.IntN(len(metadataKeys))]}
			if r.IntN(3) > 0 {
				m.Value = value()
			}
			values = append(values, m)
		}
		return PatchMetadata{values}
	case 11:
		return IncrementMetadata{metadataKeys[r.IntN(len(metadataKeys))], int64(r.IntN(5) - 2)}
	case 12:
		switch r.IntN(8) {
		case 0:
			return Clear{}
		case 1:
			return ClearMetadata{}
		case 2:
			conditions := mustObject(t, fmt.Sprintf(`{%q:{"value":%s}}`, id, value()))
			return Put{Conditions: &conditions}
		case 3:
			return PatchMetadata{[]Member{{metadataKeys[r.IntN(len(metadataKeys))], []byte(`"1"`)}}}
		}
		items := mustObject(t, fmt.Sprintf(`{%q:{"x":%s}}`, id, value()))
		return Put{Items: &items}
	}
	var verbs []Verb
	for range r.IntN(4) {
		verbs = append(verbs, randomVerb(t, r, depth+1))
	}
	return Batch{verbs}
}

// TestDraftsEqualModel runs random verbs through drafts, each of which becomes a commit as a backend makes it, and
// compares with the model after every change.
func TestDraftsEqualModel(t *testing.T) {
	limits := Limits{MaxItems: 4, MaxDocumentBytes: 1 << 20, MaxCartBytes: 190, MaxMetadataKeys: 3, MaxQuantity: 25}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := &model{items: map[string]map[string]any{}, conditions: map[string]map[string]any{}, metadata: map[string]any{}, versions: map[Part]uint64{}}
		stored := &Cart{}
		snapshots := map[*Cart]string{}
		for range 30 {
			d := NewDraft(stored, limits, "c1")
			snapshots[stored] = fingerprint(stored)
			for range 1 + r.IntN(4) {
				verb := randomVerb(t, r, 0)
				before := d.Cart()
				snapshots[before] = fingerprint(before)
				next := m.clone()
				wantErr := next.change(verb, limits)
				altered, err := d.Change(verb)
				if errors.Is(wantErr, errModelMissing) != errors.Is(err, ErrNotFound) || errors.Is(wantErr, errModelValue) && !errors.Is(err, ErrInvalid) || (wantErr == nil) != (err == nil) {
					t.Fatalf("seed %d: %#v: %v, want %v", seed, verb, err, wantErr)
				}
				if err == nil {
					next.seal(m)
					if altered != (next.version > m.version) {
						t.Fatalf("seed %d: %#v: altered %v", seed, verb, altered)
					}
					m = next
				}
				after := d.Cart()
				m.compare(t, after)
				for _, p := range append(parts(), PartAll, PartMetadataAll) {
					if after.PartVersion(p) < before.PartVersion(p) {
						t.Errorf("the version of %s fell from %d to %d", p, before.PartVersion(p), after.PartVersion(p))
					}
				}
				if t.Failed() {
					t.Fatalf("seed %d: %#v", seed, verb)
				}
			}
			stored = commit(t, d)
		}
		for c, want := range snapshots {
			if got := fingerprint(c); got != want {
				t.Fatalf("seed %d: a snapshot changed to\n%s\nit was\n%s", seed, got, want)
			}
		}
	}
}

// commit does what a backend does with a draft, and compares the two.
func commit(t *testing.T, d *Draft) *Cart {
	t.Helper()
	c, want := *d.Base(), d.Cart()
	c.ID, c.Version = want.ID, want.Version
	written := d.Written()
	for _, w := range written {
		if w.Version <= d.Base().Version || w.Version > want.Version {
			t.Fatalf("%s is written at version %d by a draft from %d to %d", w.Part, w.Version, d.Base().Version, want.Version)
		}
		if err := c.StorePart(w.Part, w.Value, w.Version); err != nil {
			t.Fatal(err)
		}
	}
	all := *d.Base()
	all.ID, all.Version = want.ID, want.Version
	if err := all.StoreParts(written); err != nil || fingerprint(&all) != fingerprint(&c) {
		t.Fatalf("%v: stored all at once, the backend has\n%s\nand not\n%s", err, fingerprint(&all), fingerprint(&c))
	}
	if got, want := fingerprint(&c), fingerprint(want); got != want {
		t.Fatalf("the backend has\n%s\nthe draft has\n%s", got, want)
	}
	return &c
}

// TestCommitDropsTheSameTombstones: removing many keys at once leaves the draft and the backend with the same
// tombstones.
func TestCommitDropsTheSameTombstones(t *testing.T) {
	c := &Cart{}
	for round := range 4 {
		var values []Member
		for i := range 50 + 30*round {
			values = append(values, Member{fmt.Sprintf("r%d-%d", round, i), []byte(`1`)})
		}
		r := rand.New(rand.NewPCG(uint64(round), 2))
		r.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
		var removals []Member
		for _, m := range values[:len(values)-2] {
			removals = append(removals, Member{Key: m.Key})
		}
		for _, verb := range []Verb{PatchMetadata{values}, PatchMetadata{removals}, ClearMetadata{}} {
			d := NewDraft(c, DefaultLimits(), "c1")
			change(t, d, verb)
			c = commit(t, d)
		}
		if len(c.Removed) > MaxTombstones {
			t.Errorf("%d tombstones", len(c.Removed))
		}
		for i, m := range values { // the last two went last
			removed := c.Version - 1
			if i >= len(removals) {
				removed = c.Version
			}
			if v := c.PartVersion(PartMetadata(m.Key)); v < removed {
				t.Errorf("%s was removed at version %d and is at %d", m.Key, removed, v)
			}
		}
	}
}
