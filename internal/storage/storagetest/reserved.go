package storagetest

import (
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// testReserved: a cart under a name that no client can have is kept like every cart. It is on the pages of a walk, and
// a flush removes it. It is not listed as an instance, and not counted.
func testReserved(s *subject) {
	reserved := cart.Key{Identifier: "u1"}
	if !reserved.Reserved() || reserved.Validate() == nil {
		s.Fatalf("%q is a name that clients can have", reserved)
	}
	s.is("reserved", s.put(reserved, items(`{"a":1}`)), content{Version: 1, Items: `{"a":1}`, ItemsVersion: 1})
	s.missing("the cart beside it", s.load(cart.Key{Identifier: "u1", Instance: "default"}))
	s.instances(nil, "u1")
	s.put(cart.Key{Identifier: "u1", Instance: "default"}, items(`{"b":1}`))
	s.instances([]string{"default"}, "u1")
	s.is("reserved", s.second().load(reserved), content{Version: 1, Items: `{"a":1}`, ItemsVersion: 1})
	if c, ok := storage.As[storage.Counter](s.store); ok && s.caps.NoCount == "" {
		if n, more, err := c.Count(s.ctx, 10); n != 1 || more || err != nil {
			s.Errorf("Count = %d, %t, %v, want 1", n, more, err)
		}
	}
	if w, ok := storage.As[storage.Walker](s.store); ok && s.caps.NoWalk == "" {
		var seen []cart.Key
		for after := ""; ; {
			keys, next, err := w.Page(s.ctx, after, 1)
			if err != nil {
				s.Fatalf("Page: %v", err)
			}
			seen = append(seen, keys...)
			if after = next; next == "" {
				break
			}
		}
		if !slices.Contains(seen, reserved) {
			s.Errorf("the walk did not meet it: %q", seen)
		}
	}
	if s.caps.NoFlush == "" {
		if err := s.store.Flush(s.ctx); err != nil {
			s.Fatal(err)
		}
		s.missing("reserved, after Flush", s.load(reserved))
	}
}

// testCartOutlivesCheckout: whatever is written to a cart, it lives until its last open checkout has expired.
func testCartOutlivesCheckout(s *subject) {
	until := time.Now().Add(2 * longer).UTC().Truncate(time.Millisecond)
	entries := func(k *cart.Cart, outcome cart.Outcome) storage.Write {
		s.Helper()
		err := k.SetCheckouts([]cart.CheckoutEntry{
			{ID: "a", Nonce: "1", ExpiresAt: until, Outcome: outcome}, {ID: "b", Nonce: "2", ExpiresAt: until.Add(-longer), Outcome: cart.Cancelled},
		})
		if err != nil {
			s.Fatal(err)
		}
		return storage.Write{Part: cart.PartLedger, Value: k.Ledger.Value, Step: k.Ledger.Version}
	}
	lives := func(what string, out storage.Outcome) *cart.Cart {
		s.Helper()
		k := s.load(key)
		if !k.ExpiresAt.Equal(until) || !out.ExpiresAt.Equal(until) {
			s.Errorf("%s: expires at %s, and %s was answered; the checkout is open until %s", what, k.ExpiresAt, out.ExpiresAt, until)
		}
		return k
	}
	k := s.put(key, items(`{"a":1}`))
	c := check(key, k)
	c.Change.Writes = []storage.Write{entries(k, "")}
	c.Change.TTL = long
	k = lives("the entry", s.commit(storage.Committed, c))
	k = lives("a change of the items", s.commit(storage.Committed, change(key, k, items(`{"a":2}`))))
	k = lives("a change of metadata", s.commit(storage.Committed, change(key, k, metadata("m", `1`))))
	c = check(key, k)
	c.Change.Touch, c.Change.TTL = true, long
	k = lives("a touch", s.commit(storage.Committed, c))
	c = check(key, k)
	c.Change.Place, c.Change.TTL = k.Moved(), long
	k = lives("a cart that is placed", s.commit(storage.Committed, c))

	c = check(key, k)
	c.Change.Writes = []storage.Write{entries(k, cart.Ordered)}
	c.Change.TTL = long
	if out := s.commit(storage.Committed, c); !out.ExpiresAt.Before(until) {
		s.Errorf("after the settlement the cart still lives until %s", out.ExpiresAt)
	}
}
