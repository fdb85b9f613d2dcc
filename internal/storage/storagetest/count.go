package storagetest

import (
	"errors"
	"fmt"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// testCount: only carts of the prefix that exist count, from any store. Locks and expired carts do not.
func testCount(s *subject) {
	counter, ok := storage.As[storage.Counter](s.store)
	if s.caps.NoCount != "" {
		if ok {
			if _, _, err := counter.Count(s.ctx, 1); !errors.Is(err, storage.ErrUnsupported) {
				s.Errorf("Count: %v, want ErrUnsupported, since %s", err, s.caps.NoCount)
			}
		}
		return
	}
	if !ok {
		s.Fatalf("%T is no Counter, and Caps.NoCount does not say why", s.store)
	}
	count := func(c storage.Counter, most, want int, wantMore bool) {
		s.Helper()
		if n, more, err := c.Count(s.ctx, most); err != nil || n != want || more != wantMore {
			s.Errorf("Count of at most %d = %d, %t, %v; want %d, %t", most, n, more, err, want, wantMore)
		}
	}
	count(counter, 10, 0, false)
	for i, name := range names {
		s.put(cart.Key{Identifier: name, Instance: fmt.Sprint(i % 7)}, items(`{"a":1}`))
	}
	s.put(cart.Key{Identifier: "lock", Instance: "items"}, items(`{}`))
	all := len(names) + 1
	expired := cart.Key{Identifier: "gone", Instance: "soon"}
	short := change(expired, &cart.Cart{}, items(`{"a":1}`))
	short.Change.TTL = s.short()
	s.commit(storage.Committed, short)
	s.eventually("expired", func() bool { return !s.load(expired).Exists() })
	forgotten := cart.Key{Identifier: "gone", Instance: "forgotten"}
	forget := check(forgotten, s.put(forgotten, items(`{"a":1}`)), cart.PartAll)
	forget.Change.Forget = true
	s.commit(storage.Committed, forget)
	if l, ok := s.locker(); ok {
		s.acquire(l, cart.Key{Identifier: "locked", Instance: "only"}, storage.NewToken(), cart.PartAll)
	}
	if s.harness.Other != nil {
		s.on(s.harness.Other(s.T)).put(key, items(`{"theirs":1}`))
	}
	count(counter, all+1, all, false)
	count(counter, all, all, false)
	count(counter, all-1, all-1, true)
	count(counter, 1, 1, true)
	if counter, ok = storage.As[storage.Counter](s.second().store); !ok {
		s.Fatalf("the second store is no Counter")
	}
	count(counter, all, all, false)
}
