package cart

import (
	"errors"
	"testing"
	"time"
)

// TestSettle: a settlement takes what the snapshot has, once, and nothing that came since.
func TestSettle(t *testing.T) {
	at := time.UnixMilli(1_000_000).UTC()
	c := &Cart{ID: "c1", Version: 3}
	store := func(p Part, text string) {
		t.Helper()
		if err := c.StorePart(p, []byte(text), 3); err != nil {
			t.Fatal(err)
		}
	}
	store(PartItems, `{"a":{"id":"a","quantity":2},"b":{"id":"b","quantity":1}}`)
	store(PartConditions, `{"fee":{"value":"1"},"vat":{"value":"2"}}`)
	entry := CheckoutEntry{ID: "O-1", Snapshot: "s", Nonce: "n", CreatedAt: at, ExpiresAt: at.Add(time.Hour)}
	if err := c.SetCheckouts([]CheckoutEntry{entry}); err != nil {
		t.Fatal(err)
	}
	snapshot := *c
	// Meanwhile one more of a comes, b goes, d is new, and the fee is another one.
	store(PartItems, `{"a":{"id":"a","quantity":3},"d":{"id":"d","quantity":1}}`)
	store(PartConditions, `{"fee":{"value":"9"},"vat":{"value":"2"}}`)

	settle := func(c *Cart, nonce string) (*Cart, error) {
		d := NewDraft(c, DefaultLimits(), "")
		_, err := d.Change(Settle{Nonce: nonce, Snapshot: &snapshot, At: at.Add(time.Minute)})
		return d.Cart(), err
	}
	if _, err := settle(c, "another"); !errors.Is(err, ErrNotOpen) {
		t.Errorf("by another record: %v", err)
	}
	after, err := settle(c, "n")
	if err != nil {
		t.Fatal(err)
	}
	if items, conditions := string(after.Items.Object.Bytes()), string(after.Conditions.Object.Bytes()); items != `{"a":{"id":"a","quantity":1},"d":{"id":"d","quantity":1}}` || conditions != `{"fee":{"value":"9"}}` {
		t.Errorf("left are %s and %s", items, conditions)
	}
	list, err := after.Checkouts()
	if err != nil || len(list) != 1 || list[0].Outcome != Ordered || !list[0].SettledAt.Equal(at.Add(time.Minute)) || list[0].Open(at) {
		t.Errorf("entries: %+v, %v", list, err)
	}
	if until := after.LivesUntil(); !until.IsZero() || !c.LivesUntil().Equal(at.Add(time.Hour)) {
		t.Errorf("the carts live until %v and %v", until, c.LivesUntil())
	}
	// Whoever comes second finds the right used up, also where it was open when it looked.
	if again, err := settle(after, "n"); !errors.Is(err, ErrNotOpen) || string(again.Items.Object.Bytes()) != string(after.Items.Object.Bytes()) {
		t.Errorf("again: %v, %s", err, again.Items.Object.Bytes())
	}
}
