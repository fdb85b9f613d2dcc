package cart

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
)

func TestReceive(t *testing.T) {
	const (
		targetItems = `{"both":{"id":"both","quantity":2,"x":"target","t":1},"mine":{"quantity":1}}`
		sourceItems = `{"theirs":{"quantity":4},"both":{"x":"source","quantity":3,"s":1}}`
	)
	for _, tc := range []struct {
		strategy                    Strategy
		items, conditions, metadata string
	}{
		{StrategyAddQuantities, `{"both":{"id":"both","quantity":5,"x":"target","t":1,"s":1},"mine":{"quantity":1},"theirs":{"quantity":4}}`, `{"vat":{"value":1},"fee":{}}`, `k=1 t=1 s=2`},
		{StrategyKeepHighestQuantity, `{"both":{"id":"both","quantity":3,"x":"target","t":1},"mine":{"quantity":1},"theirs":{"quantity":4}}`, `{"vat":{"value":1},"fee":{}}`, `k=1 t=1 s=2`},
		{StrategyKeepTarget, `{"both":{"id":"both","quantity":2,"x":"target","t":1},"mine":{"quantity":1},"theirs":{"quantity":4}}`, `{"vat":{"value":1},"fee":{}}`, `k=1 t=1 s=2`},
		{StrategyReplace, `{"both":{"x":"source","quantity":3,"s":1},"mine":{"quantity":1},"theirs":{"quantity":4}}`, `{"vat":{"value":1},"fee":{}}`, `k=1 t=1 s=2`},
	} {
		target := cartWith(t, 7, targetItems, `{"vat":{"value":1}}`, "k", `1`, "t", `1`)
		source := cartWith(t, 3, sourceItems, `{"fee":{},"vat":{"value":2}}`, "k", `2`, "s", `2`)
		d := NewDraft(target, DefaultLimits(), "")
		change(t, d, Receive{From: source, Strategy: tc.strategy, ID: "h1"})
		c := d.Cart()
		if got := string(c.Items.Object.Bytes()); got != tc.items {
			t.Errorf("%s: items\n got %s\nwant %s", tc.strategy, got, tc.items)
		}
		if got := string(c.Conditions.Object.Bytes()); got != tc.conditions {
			t.Errorf("%s: conditions\n got %s\nwant %s", tc.strategy, got, tc.conditions)
		}
		var metadata string
		for _, e := range c.Metadata {
			metadata += fmt.Sprintf(" %s=%s", e.Key, e.Value)
		}
		if metadata[1:] != tc.metadata {
			t.Errorf("%s: metadata%s, want %s", tc.strategy, metadata, tc.metadata)
		}
		if c.Version != 8 || string(c.Received) != "h1" || !slices.ContainsFunc(d.Written(), func(w Written) bool { return w.Part == PartReceived && string(w.Value) == "h1" }) {
			t.Errorf("%s: %s, written %v", tc.strategy, fingerprint(c), d.Written())
		}
		if tc.strategy == StrategyKeepHighestQuantity {
			lower := NewDraft(c, DefaultLimits(), "")
			few := cartWith(t, 3, `{"both":{"quantity":1}}`, `{}`)
			if change(t, lower, Receive{From: few, Strategy: tc.strategy}) {
				t.Errorf("a lower quantity altered: %s", fingerprint(lower.Cart()))
			}
		}
		if change(t, d, Receive{From: source, Strategy: tc.strategy, ID: "h1"}) {
			t.Errorf("%s: arrived twice", tc.strategy)
		}
	}
}

func TestReceiveIntoNothing(t *testing.T) {
	source := cartWith(t, 3, `{"a":{"quantity":2}}`, `{}`, "k", `1`)
	d := NewDraft(&Cart{}, DefaultLimits(), "new")
	change(t, d, Receive{From: source, Strategy: StrategyReplace})
	c := d.Cart()
	if c.ID != "new" || c.Version != 1 || !c.Items.Object.Equal(source.Items.Object) || c.PartVersion(PartMetadata("k")) != 1 || c.Received != nil {
		t.Error(fingerprint(c))
	}
	if err := (Receive{From: source, Strategy: StrategySwap}).Apply(NewDraft(&Cart{}, DefaultLimits(), "")); !errors.Is(err, ErrInvalid) {
		t.Errorf("a swap is no merge: %v", err)
	}
}

func TestReceiveLimits(t *testing.T) {
	target := cartWith(t, 7, `{"a":{"quantity":6},"b":{}}`, `{}`, "k", `1`)
	source := cartWith(t, 3, `{"a":{"quantity":5},"c":{}}`, `{}`, "l", `1`)
	r := Receive{From: source, Strategy: StrategyAddQuantities}
	for _, tc := range []struct {
		set           func(*Limits)
		limit, actual int64
		want          string
	}{
		{func(l *Limits) { l.MaxItems = 2 }, 2, 3, `items: has 3 items, at most 2 are allowed`},
		{func(l *Limits) { l.MaxDocumentBytes = 30 }, 30, 35, `items: is 35 bytes as compact JSON, at most 30 are allowed`},
		{func(l *Limits) { l.MaxCartBytes = 49 }, 49, 50, `cart: would be 50 bytes with all of its documents, at most 49 are allowed`},
		{func(l *Limits) { l.MaxMetadataKeys = 1 }, 1, 2, `metadata: has 2 keys, at most 1 are allowed`},
	} {
		l := DefaultLimits()
		tc.set(&l)
		d := NewDraft(target, l, "")
		wantTooLarge(t, applied(d, r), tc.limit, tc.actual, tc.want)
		if got := fingerprint(d.Cart()); got != fingerprint(target) {
			t.Errorf("it left\n%s", got)
		}
		// What is over the limit by itself still moves.
		d = NewDraft(&Cart{}, l, "new")
		over := cartWith(t, 3, `{"a":{"quantity":5},"c":{},"d":{"x":"of many"}}`, `{}`, "l", `1`, "m", `2`)
		change(t, d, Receive{From: over, Strategy: StrategyAddQuantities})
		if d.Cart().Size() != over.Size() {
			t.Errorf("what moved is\n%s", fingerprint(d.Cart()))
		}
	}

	huge := cartWith(t, 3, fmt.Sprintf(`{"a":{"quantity":%d}}`, int64(math.MaxInt64)), `{}`)
	d := NewDraft(target, Unlimited(), "")
	change(t, d, Receive{From: huge, Strategy: StrategyAddQuantities})
	if got, want := string(d.Cart().Items.Object.Bytes()), `{"a":{"quantity":9223372036854775807},"b":{}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A merge is never refused for quantities: what comes to more than is allowed becomes the largest that is, and is told.
func TestMergeCaps(t *testing.T) {
	const targetItems = `{"a":{"quantity":6},"b":{"quantity":4},"c":{"quantity":1},"d":{"quantity":10}}`
	for _, tc := range []struct {
		strategy     Strategy
		source, want string
		capped       []string
	}{
		{StrategyAddQuantities, `{"d":{"quantity":1},"b":{"quantity":6},"a":{"quantity":5}}`, `{"a":{"quantity":10},"b":{"quantity":10},"c":{"quantity":1},"d":{"quantity":10}}`, []string{"a", "d"}},
		{StrategyAddQuantities, `{"c":{"quantity":"1e1"}}`, `{"a":{"quantity":6},"b":{"quantity":4},"c":{"quantity":10},"d":{"quantity":10}}`, []string{"c"}},
		{StrategyKeepHighestQuantity, `{"a":{"quantity":12},"b":{"quantity":9}}`, `{"a":{"quantity":10},"b":{"quantity":9},"c":{"quantity":1},"d":{"quantity":10}}`, []string{"a"}},
		{StrategyKeepTarget, `{"d":{"quantity":12}}`, targetItems, nil},
		{StrategyAddQuantities, `{"d":{"quantity":"many"}}`, targetItems, []string{"d"}},
	} {
		l := DefaultLimits().Unrefusing()
		l.MaxQuantity = 10
		d := NewDraft(cartWith(t, 7, targetItems, `{}`), l, "")
		change(t, d, Receive{From: cartWith(t, 3, tc.source, `{}`), Strategy: tc.strategy})
		if got := string(d.Cart().Items.Object.Bytes()); got != tc.want || !slices.Equal(d.Capped(), tc.capped) {
			t.Errorf("%s of %s\n got %s, capped %q\nwant %s, capped %q", tc.strategy, tc.source, got, d.Capped(), tc.want, tc.capped)
		}
		if change(t, d, RemoveItem{"a"}); d.Capped() != nil {
			t.Errorf("the next change capped %q", d.Capped())
		}
	}
}
