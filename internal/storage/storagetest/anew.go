package storagetest

import (
	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// testAnew: a commit that meets another state than it expects ends in a conflict, or is computed anew from that state
// and made. In both cases the first result is not stored, and locks are honoured.
func testAnew(s *subject) {
	was := s.put(key, items(`{"a":1}`))
	var met []*cart.Cart // what it was computed anew from, by the last commit
	stale := func(then func(c *cart.Cart) storage.Commit) storage.Commit {
		met = nil
		c := change(key, was, items(`{"stale":1}`))
		c.Anew = func(k *cart.Cart) storage.Commit {
			met = append(met, k)
			return then(k)
		}
		return c
	}
	add := func(k *cart.Cart) storage.Commit { return change(key, k, conditions(`{"c":1}`)) }

	out := s.commit(storage.Committed, stale(add))
	if out.Anew || met != nil {
		s.Errorf("a commit that meets what it expects is computed anew: %+v", out)
	}
	now := s.load(key)
	s.is("made", now, content{Version: 2, Items: `{"stale":1}`, ItemsVersion: 2})

	out = s.try(stale(add))[0]
	switch {
	case !out.Anew:
		if out.Status != storage.Conflict || met != nil {
			s.Fatalf("a stale commit: %s, computed anew from %v", name(out.Status), met)
		}
		s.same("conflict", out.Cart, now)
		return // it never is
	case out.Status != storage.Committed || out.Base != now.Version || out.ID != now.ID || len(met) == 0:
		s.Fatalf("computed anew: %+v, from %v", out, met)
	}
	s.same("computed anew from", met[len(met)-1], now)
	now = s.load(key)
	s.is("made anew", now, content{Version: 3, Items: `{"stale":1}`, ItemsVersion: 2, Conditions: `{"c":1}`, ConditionsVersion: 3})

	// It may find that there is nothing to do any more, or that the cart is to go.
	out = s.try(stale(func(k *cart.Cart) storage.Commit { return check(key, k) }))[0]
	if !out.Anew || out.Status != storage.Committed || out.Base != now.Version || !out.ExpiresAt.Equal(now.ExpiresAt) {
		s.Errorf("computed anew to nothing: %+v", out)
	}
	s.same("nothing was done", s.load(key), now)

	// The locks are those that it needs now.
	l, ok := s.locker()
	if !ok {
		return
	}
	s.acquire(l, key, "holder", cart.PartConditions)
	ask := claim("asks", cart.PartConditions)
	asks := stale(func(k *cart.Cart) storage.Commit {
		c := add(k)
		c.Locks.Claim = &ask
		return c
	})
	asks.Locks.Claim = &ask
	out = s.try(asks)[0]
	if !out.Anew || out.Status != storage.Locked || !out.Claimed.Queued {
		s.Errorf("computed anew to what is locked: %+v", out)
	}
	s.abandon(l, key, ask.Token)
	s.same("locked", s.load(key), now)
	demands := stale(func(k *cart.Cart) storage.Commit { return change(key, k, items(`{"stolen":1}`)) })
	if out := s.try(under("nobody", demands))[0]; out.Status != storage.LockUnknown || met != nil {
		s.Errorf("a stale commit under no lease: %s, computed anew from %v", name(out.Status), met)
	}
	s.abandon(l, key, "holder")
	s.same("without a lease", s.load(key), now)

	// A pending transfer is for the caller to finish.
	open := check(key, now, cart.PartAll)
	open.Change.Writes = []storage.Write{{Part: cart.PartTransfer, Value: []byte("to u2")}}
	s.commit(storage.Committed, open)
	if s.commit(storage.Conflict, stale(add)); met != nil {
		s.Errorf("the source of a transfer was computed anew from %v", met)
	}
}
