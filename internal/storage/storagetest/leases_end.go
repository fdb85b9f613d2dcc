package storagetest

import (
	"context"
	"errors"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

func testClientLeaseReleased(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	token, next := storage.NewToken(), claim(storage.NewToken(), cart.PartItems)
	s.lease(l, key, token, long, cart.PartAll)
	s.enqueue(key, next)
	w := s.wait(s.ctx, l, key, next, true)
	if err := l.Release(s.ctx, key, storage.NewToken()); !errors.Is(err, storage.ErrLockUnknown) {
		s.Errorf("a stranger's Release: %v", err)
	}
	if !w.waiting() {
		s.Fatalf("granted while held: %v", w.err)
	}
	if err := l.Release(s.ctx, key, token); err != nil {
		s.Fatalf("Release: %v", err)
	}
	s.granted("the next", w)
	s.wantNone("released", l, key, token, storage.ErrLockUnknown)
	s.abandon(l, key, next.Token)
	s.wantProbe("all given back", storage.Committed, key, cart.PartAll)
}

func testClientLeaseReleasedByCommit(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.put(key, items(`{"a":1}`))
	for _, c := range []storage.Commit{
		change(key, s.load(key), items(`{"b":1}`)),
		check(key, s.load(key), cart.PartItems), // alters nothing, releases all the same
		check(key, s.load(key)),
	} {
		token := storage.NewToken()
		g := s.lease(l, key, token, long, cart.PartItems, cart.PartConditions)
		c = under(token, c)
		c.Expect.Version, c.Locks.Release = g.Cart.Version+1, true
		s.commit(storage.Conflict, c)
		s.wantHeld("after a conflict", l, key, token, g, cart.PartItems, cart.PartConditions)
		c.Expect.Version = g.Cart.Version
		s.commit(storage.Committed, c)
		s.wantNone("released", l, key, token, storage.ErrLockUnknown)
		s.wantProbe("released", storage.Committed, key, cart.PartAll)
	}
	// Without a release it stays, also when the cart goes.
	token := storage.NewToken()
	g := s.lease(l, key, token, long, cart.PartAll)
	forget := under(token, check(key, g.Cart, cart.PartAll))
	forget.Change.Forget = true
	s.commit(storage.Committed, forget)
	s.wantHeld("after a forget", l, key, token, g, cart.PartAll)
	forget = under(token, check(key, s.load(key), cart.PartAll))
	forget.Change.Forget, forget.Locks.Release = true, true
	s.commit(storage.Committed, forget)
	s.wantNone("released by a forget", l, key, token, storage.ErrLockUnknown)
}

func testClientLeaseExpired(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.put(key, items(`{"a":1}`))
	other := cart.Key{Identifier: key.Identifier, Instance: "other"}
	token := storage.NewToken()
	g := s.lease(l, key, token, brief, cart.PartItems)
	// The test does not look at the cart until the lock itself has left no trace.
	s.passed(g.Expires.Add(1500 * time.Millisecond))
	s.wantNone("expired", l, key, token, storage.ErrLockLost)
	s.wantNone("expired, on another cart", l, other, token, storage.ErrLockUnknown)
	s.put(key, items(`{"b":1}`))
	s.wantNone("the cart was written", l, key, token, storage.ErrLockLost)
	taker := storage.NewToken()
	taken := s.lease(l, key, taker, long, cart.PartAll)
	s.wantNone("taken", l, key, token, storage.ErrLockLost)
	s.wantHeld("the taker's", l, key, taker, taken, cart.PartAll)
	// A claim that was under way for longer than its lease lived: it gets neither the lock nor a place in the queue.
	tooLate := func(state string) {
		s.Helper()
		if g, err := l.Acquire(s.ctx, key, leaseClaim(token, long, cart.PartItems), false); !errors.Is(err, storage.ErrTooLate) {
			s.Fatalf("Acquire, %s: %+v, %v, want ErrTooLate", state, g, err)
		}
	}
	tooLate("taken")
	forget := under(taker, check(key, s.load(key), cart.PartAll))
	forget.Change.Forget, forget.Locks.Release = true, true
	s.commit(storage.Committed, forget)
	s.wantNone("forgotten", l, key, token, storage.ErrLockLost)
	second := s.second()
	if l2, ok := second.locker(); ok {
		second.wantNone("in another store", l2, key, token, storage.ErrLockLost)
	}
	// Abandon is for turns and returns no error. It does not turn an expired lease into a released one.
	s.abandon(l, key, token)
	s.wantNone("abandoned", l, key, token, storage.ErrLockLost)
	tooLate("free")
	s.wantNone("claimed too late", l, key, token, storage.ErrLockLost)
	s.wantProbe("claimed too late", storage.Committed, key, cart.PartItems)
}

// testClientLeaseGivenUp: a wait that ended without a lease leaves no lease.
func testClientLeaseGivenUp(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	holder, late := storage.NewToken(), storage.NewToken()
	held := s.lease(l, key, holder, long, cart.PartItems)
	ctx, cancel := context.WithTimeout(s.ctx, brief)
	defer cancel()
	if _, err := l.Acquire(ctx, key, leaseClaim(late, long, cart.PartAll), false); !errors.Is(err, storage.ErrLockTimeout) {
		s.Fatalf("Acquire beyond its deadline: %v, want ErrLockTimeout", err)
	}
	s.wantNone("timed out", l, key, late, storage.ErrLockUnknown)
	s.wantHeld("the holder's", l, key, holder, held, cart.PartItems)
	s.passed(time.Now().Add(storage.WaiterTTL))
	if err := l.Release(s.ctx, key, holder); err != nil {
		s.Fatalf("Release: %v", err)
	}
	s.lease(l, key, storage.NewToken(), long, cart.PartItems)
	s.wantNone("timed out, and the lock was free since", l, key, late, storage.ErrLockUnknown)
}
