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
		if c.Version != 8 || string(c.Received) != "h1" || !slices.Contains(d.Written(), PartReceived) {
			t.Errorf("%s: %s, written %q", tc.strategy, fingerprint(c), d.Written())
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
	target := cartWith(t, 7, `{"a":{"quantity":6},"b":{}}`, `{}`)
	source := cartWith(t, 3, `{"a":{"quantity":5},"c":{}}`, `{}`)
	r := Receive{From: source, Strategy: StrategyAddQuantities}
	l := DefaultLimits()
	l.MaxQuantity = 10
	wantError(t, r.Apply(NewDraft(target, l, "")), ErrInvalid, `items["a"].quantity: 6 here and 5 there are more than the 10 that are allowed`)
	l = DefaultLimits()
	l.MaxItems = 2
	wantError(t, r.Apply(NewDraft(target, l, "")), ErrTooLarge, `items: has 3 items, at most 2 are allowed`)
	l = DefaultLimits()
	l.MaxDocumentBytes = 30
	wantError(t, r.Apply(NewDraft(target, l, "")), ErrTooLarge, `items: is 35 bytes as compact JSON, at most 30 are allowed`)

	huge := cartWith(t, 3, fmt.Sprintf(`{"a":{"quantity":%d}}`, int64(math.MaxInt64)), `{}`)
	d := NewDraft(target, Unlimited(), "")
	change(t, d, Receive{From: huge, Strategy: StrategyAddQuantities})
	if got, want := string(d.Cart().Items.Object.Bytes()), `{"a":{"quantity":9223372036854775807},"b":{}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
