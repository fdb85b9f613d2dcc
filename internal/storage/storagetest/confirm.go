package storagetest

import (
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// handOver lets the claims queue behind a lease, and gives the lease back. The first of them is then granted, and has
// shown no sign of life since it came.
func (s *subject) handOver(l storage.Locker, claims ...storage.Claim) (before storage.Grant) {
	s.Helper()
	holder := storage.NewToken()
	before = s.lease(l, key, holder, long, claims[0].Parts...)
	for _, c := range claims {
		s.enqueue(key, c)
	}
	if err := l.Release(s.ctx, key, holder); err != nil {
		s.Fatalf("Release: %v", err)
	}
	return before
}

// eachKind runs f for a lease and for a turn of the same length.
func (s *subject) eachKind(f func(claim func() storage.Claim)) {
	f(func() storage.Claim { return leaseClaim(storage.NewToken(), long, cart.PartItems) })
	f(func() storage.Claim { return claim(storage.NewToken(), cart.PartItems) })
}

// testQueueGrantsShort: a lock from the queue is short until its waiter claims again, which gives it the whole of its
// lease, and the cart as of then.
func testQueueGrantsShort(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.eachKind(func(claim func() storage.Claim) {
		var next storage.Claim
		var begun time.Time
		var w *waiter
		s.inTime(func() time.Time {
			if w != nil {
				s.abandon(l, key, next.Token)
			}
			next = claim()
			end := time.Now().Add(storage.WaiterTTL) // or later
			before := s.handOver(l, next)
			released := time.Now().Add(time.Millisecond)
			granted, err := l.Lease(s.ctx, key, next.Token)
			if next.Leased && time.Now().Before(end) &&
				(err != nil || granted.Fence <= before.Fence || granted.Expires.After(released.Add(storage.WaiterTTL))) {
				s.Errorf("granted by the queue: %+v, %v, want a greater fence than %d, and an end within %v of %v",
					granted, err, before.Fence, storage.WaiterTTL, released)
			}
			was := s.put(key, conditions(`{"since":1}`))
			begun = time.Now().Truncate(time.Millisecond)
			w = s.wait(s.ctx, l, key, next, true)
			s.same("the cart comes with the confirmation", s.granted("the next", w), was)
			if next.Leased && time.Now().Before(end) && w.grant.Fence != granted.Fence {
				s.Errorf("confirmed with fence %d, was granted %d", w.grant.Fence, granted.Fence)
			}
			return end
		})
		if next.Leased {
			if w.grant.Expires.Before(begun.Add(long)) {
				s.Errorf("confirmed at %v, a lease of %v ends at %v", begun, long, w.grant.Expires)
			}
			s.wantHeld("confirmed", l, key, next.Token, w.grant, cart.PartItems)
		}
		s.passed(time.Now().Add(storage.WaiterTTL))
		s.second().wantProbe("long after the grant", storage.Locked, key, cart.PartItems)
		s.commit(storage.Committed, under(next.Token, check(key, s.load(key), cart.PartItems)))
		s.abandon(l, key, next.Token)
	})
}

// testQueueGrantsToDeadWaiter: a waiter that died before its turn came holds up those behind it for the life of a
// silent waiter, and not for the duration of its claim.
func testQueueGrantsToDeadWaiter(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	l2, _ := s.second().locker()
	s.eachKind(func(claim func() storage.Claim) {
		dead, living := claim(), claim()
		s.handOver(l, dead, living)
		released := time.Now()
		s.granted("the living", s.wait(s.ctx, l2, key, living, true))
		if took := time.Since(released); took > storage.WaiterTTL+patience/10 {
			s.Errorf("granted after %v, with a lease of %v before it", took, dead.Duration)
		}
		s.wantNone("the dead", l, key, dead.Token, storage.ErrLockUnknown)
		s.abandon(l, key, living.Token)
	})
}

// testQueueGrantConfirmedLate: a waiter that claims again when its lock has ended goes to the end of the queue.
func testQueueGrantConfirmedLate(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.eachKind(func(claim func() storage.Claim) {
		late, next := leaseClaim(storage.NewToken(), long, cart.PartItems), claim()
		s.handOver(l, late)
		s.passed(time.Now().Add(storage.WaiterTTL))
		s.wantNone("granted, and not confirmed", l, key, late.Token, storage.ErrLockUnknown)
		g, err := l.Acquire(s.ctx, key, late, true)
		if err != nil {
			s.Fatalf("nobody took the lock since: %v", err)
		}
		s.wantLease("nobody took the lock since", g)
		s.abandon(l, key, late.Token)

		s.handOver(l, late, next)
		between := s.granted("the next", s.wait(s.ctx, l, key, next, true))
		w := s.wait(s.ctx, l, key, late, true)
		s.passed(time.Now().Add(storage.WaiterTTL))
		if !w.waiting() {
			s.Fatalf("granted while held: %+v, %v", w.grant, w.err)
		}
		give := under(next.Token, change(key, between, items(`{"between":1}`)))
		give.Locks.Release = true
		s.commit(storage.Committed, give)
		if got := s.granted("the late", w); got.Version != between.Version+1 {
			s.Errorf("the late was granted version %d, want %d", got.Version, between.Version+1)
		}
		s.wantLease("the late", w.grant)
		if w.grant.Fence <= g.Fence {
			s.Errorf("fence %d after %d", w.grant.Fence, g.Fence)
		}
		s.wantHeld("the late", l, key, late.Token, w.grant, cart.PartItems)
		s.abandon(l, key, late.Token)
	})
}
