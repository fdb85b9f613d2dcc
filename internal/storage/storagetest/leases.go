package storagetest

import (
	"errors"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// leaseClaim is a claim for a client's lease.
func leaseClaim(token string, life time.Duration, parts ...cart.Part) storage.Claim {
	return storage.Claim{Token: token, Holder: "client", Parts: parts, Duration: life, Leased: true}
}

// lease takes a client's lease that must be free or become so.
func (s *subject) lease(l storage.Locker, key cart.Key, token string, life time.Duration, parts ...cart.Part) storage.Grant {
	s.Helper()
	g, err := l.Acquire(s.ctx, key, leaseClaim(token, life, parts...), false)
	if err != nil {
		s.Fatalf("Acquire(%q, %v): %v", key, parts, err)
	}
	s.wantLease("Acquire", g)
	return g
}

func (s *subject) wantLease(what string, g storage.Grant) {
	s.Helper()
	if g.Cart == nil || g.Fence == 0 || g.Fence >= 1<<53 || g.Expires.IsZero() {
		s.Fatalf("%s: %+v, want a cart, a fence below 2^53, and an end", what, g)
	}
}

// leaseErrors are what the methods say of a token that has no lease, by their names.
func (s *subject) leaseErrors(l storage.Locker, key cart.Key, token string) map[string]error {
	_, look := l.Lease(s.ctx, key, token)
	_, renew := l.Renew(s.ctx, key, token, long)
	return map[string]error{"Lease": look, "Renew": renew, "Release": l.Release(s.ctx, key, token)}
}

// wantNone fails unless token has no lease, for the reason that err and status give.
func (s *subject) wantNone(what string, l storage.Locker, key cart.Key, token string, want error) {
	s.Helper()
	for doing, err := range s.leaseErrors(l, key, token) {
		if !errors.Is(err, want) {
			s.Errorf("%s: %s: %v, want %v", what, doing, err, want)
		}
	}
	status := storage.LockUnknown
	if errors.Is(want, storage.ErrLockLost) {
		status = storage.LockLost
	}
	now := s.load(key)
	c := under(token, change(key, now, items(`{"stale":1}`)))
	ask := claim(storage.NewToken(), cart.PartItems)
	c.Locks.Release, c.Locks.Claim = true, &ask
	if out := s.commit(status, c); out.Claimed != (storage.Claimed{}) {
		s.Errorf("%s: a commit without its lease claimed %+v", what, out.Claimed)
	}
	s.same(what+": afterwards", s.load(key), now)
}

// wantHeld fails unless token has this lease.
func (s *subject) wantHeld(what string, l storage.Locker, key cart.Key, token string, g storage.Grant, parts ...cart.Part) {
	s.Helper()
	got, err := l.Lease(s.ctx, key, token)
	if err != nil {
		s.Fatalf("%s: Lease: %v", what, err)
	}
	if got.Holder != "client" || got.Fence != g.Fence || got.Expires.Sub(g.Expires).Abs() > time.Millisecond || !slices.Equal(got.Parts, parts) {
		s.Errorf("%s: Lease = %+v, want parts %v, fence %d, end %v", what, got, parts, g.Fence, g.Expires)
	}
}

// ended returns when the lease is over by the backend's clock.
func (s *subject) ended(g storage.Grant) {
	s.Helper()
	s.passed(g.Expires)
}

func testClientLease(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	was := s.put(key, items(texts[1]), metadata("m", texts[1]))
	other := cart.Key{Identifier: key.Identifier, Instance: "other"}
	for _, parts := range [][]cart.Part{
		{cart.PartItems},
		{cart.PartConditions, cart.PartMetadata("m")},
		{cart.PartMetadata("n.{}%")},
		{cart.PartAll},
	} {
		token := storage.NewToken()
		begun := time.Now().Truncate(time.Millisecond)
		g := s.lease(l, key, token, long, parts...)
		s.same("the cart comes with the lease", g.Cart, was)
		if g.Expires.Before(begun.Add(long)) || g.Expires.After(time.Now().Add(long+time.Millisecond)) {
			s.Errorf("a lease of %v ends at %v", long, g.Expires)
		}
		s.wantHeld("granted", l, key, token, g, parts...)
		second := s.second()
		if l2, ok := second.locker(); ok {
			second.wantHeld("in another store", l2, key, token, g, parts...)
		}
		second.wantProbe("a lease", storage.Locked, key, parts...)
		s.same("a read", s.load(key), was)
		s.commit(storage.Committed, under(token, check(key, was, parts...)))
		s.wantNone("another cart", l, other, token, storage.ErrLockUnknown)
		s.wantNone("another token", l, key, storage.NewToken(), storage.ErrLockUnknown)
		s.wantHeld("afterwards", l, key, token, g, parts...)
		forget := check(key, was, cart.PartAll)
		forget.Change.Forget = true
		s.commit(storage.Locked, forget)
		if err := l.Release(s.ctx, key, token); err != nil {
			s.Fatalf("Release: %v", err)
		}
	}
}

// testClientLeaseIsNoTurn: a turn is not a lease, is not remembered, and is given back by Abandon only.
func testClientLeaseIsNoTurn(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	token := storage.NewToken()
	s.acquire(l, key, token, cart.PartItems)
	for doing, err := range s.leaseErrors(l, key, token) {
		if !errors.Is(err, storage.ErrLockUnknown) {
			s.Errorf("%s of a turn: %v, want ErrLockUnknown", doing, err)
		}
	}
	s.wantProbe("the turn stands", storage.Locked, key, cart.PartItems)
	// A commit that demands a lease without a token fails too, although no lock is in its way.
	free := cart.Key{Identifier: key.Identifier, Instance: "free"}
	was := s.put(free, items(`{"a":1}`))
	s.commit(storage.LockUnknown, under("", change(free, was, items(`{"b":1}`))))
	// A lease that Abandon gives back is forgotten like one that was released.
	s.abandon(l, key, token)
	s.lease(l, key, token, long, cart.PartItems)
	s.abandon(l, key, token)
	s.wantNone("abandoned", l, key, token, storage.ErrLockUnknown)
}

func testClientLeaseRenewed(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	token := storage.NewToken()
	var first storage.Grant
	s.inTime(func() time.Time {
		s.abandon(l, key, token)
		first = s.lease(l, key, token, brief, cart.PartItems, cart.PartMetadata("m"))
		got, err := l.Renew(s.ctx, key, token, long)
		if err != nil {
			if time.Now().Before(first.Expires) {
				s.Fatalf("Renew: %v", err)
			}
			return first.Expires // too late, by a loaded machine
		}
		if got.Fence != first.Fence || got.Holder != "client" || got.Expires.Before(first.Expires.Add(long-brief)) ||
			!slices.Equal(got.Parts, []cart.Part{cart.PartItems, cart.PartMetadata("m")}) {
			s.Errorf("Renew = %+v, was granted %+v", got, first)
		}
		return first.Expires
	})
	s.ended(first)
	s.commit(storage.Committed, under(token, check(key, s.load(key), cart.PartItems)))
	for _, p := range []cart.Part{cart.PartItems, cart.PartMetadata("m")} {
		s.second().wantProbe("after the first end", storage.Locked, key, p)
	}
	// It can be made to end sooner, too.
	short, err := l.Renew(s.ctx, key, token, time.Millisecond)
	if err != nil {
		s.Fatalf("Renew: %v", err)
	}
	s.passed(short.Expires)
	s.wantNone("ended", l, key, token, storage.ErrLockLost)
}

// testClientLeaseReentrant: a token has one lease with one fence, no matter how often and for which of its parts it
// asks.
func testClientLeaseReentrant(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	token, m := storage.NewToken(), cart.PartMetadata("m")
	first := s.lease(l, key, token, long, cart.PartItems, m)
	again := s.lease(l, key, token, 2*long, m)
	if again.Fence != first.Fence || again.Expires.Before(first.Expires.Add(long)) {
		s.Errorf("acquired again: %+v, was %+v", again, first)
	}
	s.wantHeld("acquired again", l, key, token, again, cart.PartItems, m)
	// A claim for a turn with the token of a lease renews the lease.
	g, err := l.Acquire(s.ctx, key, storage.Claim{Token: token, Holder: "client", Parts: []cart.Part{cart.PartItems}, Duration: long}, false)
	if err != nil || g.Fence != first.Fence {
		s.Fatalf("Acquire: %+v, %v", g, err)
	}
	s.wantHeld("a turn within the lease", l, key, token, g, cart.PartItems, m)
	// More parts make one larger lease.
	g = s.lease(l, key, token, long, cart.PartConditions)
	if g.Fence != first.Fence {
		s.Errorf("a lease of more parts has fence %d, had %d", g.Fence, first.Fence)
	}
	s.wantHeld("more parts", l, key, token, g, cart.PartItems, m, cart.PartConditions)
	g = s.lease(l, key, token, long, cart.PartAll)
	s.wantHeld("the whole cart", l, key, token, g, cart.PartAll)
	if err := l.Release(s.ctx, key, token); err != nil {
		s.Fatalf("Release: %v", err)
	}
	s.wantProbe("released", storage.Committed, key, cart.PartAll)
	s.wantNone("released", l, key, token, storage.ErrLockUnknown)
}

// testClientLeaseCovers: parts that a lease does not cover must be free.
func testClientLeaseCovers(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.put(key, items(`{"a":1}`))
	token, other := storage.NewToken(), storage.NewToken()
	s.lease(l, key, token, long, cart.PartItems)
	s.commit(storage.Committed, under(token, change(key, s.load(key), items(`{"b":1}`), conditions(`{"b":1}`))))
	s.lease(l, key, other, long, cart.PartConditions)
	was := s.load(key)
	s.commit(storage.Locked, under(token, change(key, was, items(`{"c":1}`), conditions(`{"c":1}`))))
	s.same("half covered", s.load(key), was)
	s.commit(storage.Committed, under(token, change(key, was, items(`{"c":1}`))))
}

// testClientLeaseInCommit: a commit can claim a lease as it claims a turn.
func testClientLeaseInCommit(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	was := s.put(key, items(`{"a":1}`))
	ask := leaseClaim(storage.NewToken(), long, cart.PartItems)
	c := change(key, &cart.Cart{}, items(`{"b":1}`))
	c.Locks.Claim = &ask
	if out := s.commit(storage.Conflict, c); !out.Claimed.Granted {
		s.Fatalf("claimed %+v, want it granted", out.Claimed)
	}
	got, err := l.Lease(s.ctx, key, ask.Token)
	if err != nil || got.Fence == 0 {
		s.Fatalf("Lease: %+v, %v", got, err)
	}
	// The next is queued by a commit, lets a turn in by its own, and queues again.
	next, turn, again := leaseClaim(storage.NewToken(), long, cart.PartItems), claim(storage.NewToken(), cart.PartItems), leaseClaim(storage.NewToken(), long, cart.PartItems)
	s.enqueue(key, next)
	s.enqueue(key, turn)
	w, w2 := s.wait(s.ctx, l, key, next, true), s.wait(s.ctx, l, key, turn, true)
	give := under(ask.Token, change(key, was, items(`{"b":1}`)))
	give.Locks.Release = true
	s.commit(storage.Committed, give)
	s.granted("the next", w)
	s.wantLease("the next", w.grant)
	if w.grant.Fence <= got.Fence || w.grant.Cart.Version != was.Version+1 {
		s.Errorf("the next was granted %+v after fence %d", w.grant, got.Fence)
	}
	give = under(next.Token, change(key, w.got, items(`{"c":1}`)))
	give.Locks.Release, give.Locks.Again = true, &again
	if out := s.commit(storage.Committed, give); !out.Claimed.Queued {
		s.Fatalf("claimed %+v, want it queued", out.Claimed)
	}
	w3 := s.wait(s.ctx, l, key, again, true)
	s.granted("the turn", w2)
	if w2.grant.Fence != 0 || !w2.grant.Expires.IsZero() {
		s.Errorf("a turn was granted %+v", w2.grant)
	}
	take := change(key, w2.got, items(`{"d":1}`))
	take.Locks.Token, take.Locks.Release, take.Locks.Again = turn.Token, true, &turn
	s.commit(storage.Committed, take)
	s.granted("the lease that queued again", w3)
	s.wantLease("the lease that queued again", w3.grant)
	if w3.grant.Fence <= w.grant.Fence {
		s.Errorf("fence %d after %d", w3.grant.Fence, w.grant.Fence)
	}
}

// testClientLeaseQueue: leases and turns wait in one queue.
func testClientLeaseQueue(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	l2, _ := s.second().locker()
	holder := storage.NewToken()
	last := s.lease(l, key, holder, long, cart.PartItems)
	claims := []storage.Claim{
		leaseClaim(storage.NewToken(), long, cart.PartItems),
		claim(storage.NewToken(), cart.PartItems),
		leaseClaim(storage.NewToken(), long, cart.PartAll),
		leaseClaim(storage.NewToken(), long, cart.PartItems),
	}
	var waiters []*waiter
	for i, c := range claims {
		s.enqueue(key, c)
		waiters = append(waiters, s.wait(s.ctx, []storage.Locker{l, l2}[i%2], key, c, true))
	}
	if err := l.Release(s.ctx, key, holder); err != nil {
		s.Fatalf("Release: %v", err)
	}
	for i, w := range waiters {
		s.granted("the next", w)
		for _, behind := range waiters[i+1:] {
			if !behind.waiting() {
				s.Fatalf("granted before its turn: %v", behind.err)
			}
		}
		var err error
		if claims[i].Leased {
			s.wantLease("the next", w.grant)
			if w.grant.Fence <= last.Fence {
				s.Errorf("fence %d after %d", w.grant.Fence, last.Fence)
			}
			last = w.grant
			err = l.Release(s.ctx, key, claims[i].Token)
		} else {
			err = l.Abandon(s.ctx, key, claims[i].Token)
		}
		if err != nil {
			s.Fatal(err)
		}
	}
	s.wantProbe("all served", storage.Committed, key, cart.PartAll)
}
