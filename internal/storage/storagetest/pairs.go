package storagetest

import (
	"errors"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

func testPairs(s *subject) {
	a := cart.Key{Identifier: "guest", Instance: "default"}
	for b, reason := range map[cart.Key]string{
		{Identifier: "guest", Instance: "wishlist"}: s.caps.NoPairs,
		{Identifier: "user", Instance: "default"}:   s.caps.NoPairs + s.caps.NoForeignPairs,
	} {
		if got := s.store.Atomic(a, b); got != (reason == "") {
			s.Errorf("Atomic(%q, %q) = %v; the reason against it is %q", a, b, got, reason)
		}
		if reason == "" {
			s.pair(a, b)
		} else {
			s.noPair(a, b)
		}
	}
}

func (s *subject) noPair(a, b cart.Key) {
	_, err := s.store.Commit(s.ctx, change(a, s.load(a), items(`{"x":1}`)), change(b, s.load(b), items(`{"x":1}`)))
	if !errors.Is(err, storage.ErrUnsupported) {
		s.Errorf("Commit of %q and %q: %v, want ErrUnsupported", a, b, err)
	}
	s.missing("first", s.load(a))
	s.missing("second", s.load(b))
}

func (s *subject) pair(a, b cart.Key) {
	// A merge: the target grows, the source goes.
	source, target := s.put(a, items(`{"a":1}`)), s.put(b, items(`{"b":1}`))
	forget := check(a, source, cart.PartAll)
	forget.Change.Forget = true
	merge := change(b, target, items(`{"b":1,"a":1}`))

	status := func(what string, outs []storage.Outcome, first, second storage.Status) {
		s.Helper()
		if outs[0].Status != first || outs[1].Status != second {
			s.Fatalf("%s: %s and %s, want %s and %s", what, name(outs[0].Status), name(outs[1].Status), name(first), name(second))
		}
	}
	unchanged := func() {
		s.Helper()
		s.same("source", s.load(a), source)
		s.same("target", s.load(b), target)
	}
	stale := merge
	stale.Expect.Version = 7
	outs := s.try(forget, stale)
	status("stale target", outs, storage.NotTried, storage.Conflict)
	s.same("the conflict's cart", outs[1].Cart, target)
	if outs[0].Cart != nil || outs[0].ID != "" {
		s.Errorf("outcome of what was not tried: %+v", outs[0])
	}
	unchanged()
	staleForget := forget
	staleForget.Expect.ID = storage.NewID()
	status("stale source", s.try(staleForget, merge), storage.Conflict, storage.NotTried)
	unchanged()
	status("both stale", s.try(staleForget, stale), storage.Conflict, storage.Conflict)
	unchanged()
	status("the other order", s.try(stale, forget), storage.Conflict, storage.NotTried)
	unchanged()

	if l, ok := s.locker(); ok {
		token := storage.NewToken()
		s.acquire(l, b, token, cart.PartItems)
		status("locked target", s.try(forget, merge), storage.NotTried, storage.Locked)
		unchanged()
		queued := merge
		queued.Locks.Claim = &storage.Claim{Token: storage.NewToken(), Parts: merge.Locks.Parts, Duration: long}
		outs := s.try(forget, queued)
		status("locked target, claimed", outs, storage.NotTried, storage.Locked)
		if outs[0].Claimed != (storage.Claimed{}) || outs[1].Claimed != (storage.Claimed{Queued: true}) {
			s.Errorf("claimed %+v and %+v, want the second queued", outs[0].Claimed, outs[1].Claimed)
		}
		unchanged()
		s.abandon(l, b, queued.Locks.Claim.Token)
		s.abandon(l, b, token)
	}

	outs = s.try(forget, merge)
	status("merge", outs, storage.Committed, storage.Committed)
	if outs[0].Base != 1 || outs[0].ID != source.ID || outs[1].Base != 1 || outs[1].ID != target.ID {
		s.Errorf("outcomes: %+v", outs)
	}
	s.missing("source", s.load(a))
	s.is("target", s.load(b), content{ID: target.ID, Version: 2, Items: `{"b":1,"a":1}`, ItemsVersion: 2})

	// A swap, into a cart that is not there and then into one that is: the cart moves.
	source = s.load(b)
	forget = check(b, source, cart.PartAll)
	forget.Change.Forget = true
	status("swap", s.try(forget, placed(a, &cart.Cart{}, source.Moved())), storage.Committed, storage.Committed)
	s.missing("source", s.load(b))
	s.is("target", s.load(a), content{ID: source.ID, Version: 3, Items: `{"b":1,"a":1}`, ItemsVersion: 2})
	source, target = s.put(b, items(`{"c":1}`), metadata("m", `1`)), s.load(a)
	forget = check(b, source, cart.PartAll)
	forget.Change.Forget = true
	stale = placed(a, target, source.Moved())
	stale.Expect.ID = storage.NewID()
	status("stale target", s.try(forget, stale), storage.NotTried, storage.Conflict)
	s.same("source", s.load(b), source)
	status("swap", s.try(forget, placed(a, target, source.Moved())), storage.Committed, storage.Committed)
	s.missing("source", s.load(b))
	s.is("target", s.load(a), content{ID: source.ID, Version: 2, Items: `{"c":1}`, ItemsVersion: 1, Metadata: []entry{{"m", `1`, 1}}})
	forget = check(a, s.load(a), cart.PartAll)
	forget.Change.Forget = true
	s.commit(storage.Committed, forget)
}
