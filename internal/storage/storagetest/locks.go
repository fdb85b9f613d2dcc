package storagetest

import (
	"errors"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// locker returns the store as a Locker. Tests of locks end early if the store is not one: testNoLocker tests such a
// store.
func (s *subject) locker() (storage.Locker, bool) {
	l, ok := s.store.(storage.Locker)
	return l, ok && s.caps.NoLocks == ""
}

func claim(token string, parts ...cart.Part) storage.Claim {
	return storage.Claim{Token: token, Holder: "suite", Parts: parts, Duration: long}
}

// acquire takes a lock that must be free or become so.
func (s *subject) acquire(l storage.Locker, key cart.Key, token string, parts ...cart.Part) *cart.Cart {
	s.Helper()
	g, err := l.Acquire(s.ctx, key, claim(token, parts...), false)
	if err != nil {
		s.Fatalf("Acquire(%q, %v): %v", key, parts, err)
	}
	if g.Cart == nil || g.Fence != 0 || !g.Expires.IsZero() {
		s.Fatalf("Acquire(%q, %v) = %+v", key, parts, g)
	}
	return g.Cart
}

func (s *subject) abandon(l storage.Locker, key cart.Key, token string) {
	s.Helper()
	if err := l.Abandon(s.ctx, key, token); err != nil {
		s.Fatalf("Abandon(%q): %v", key, err)
	}
}

// under is c made under token's lock, which it demands.
func under(token string, c storage.Commit) storage.Commit {
	c.Locks.Token, c.Locks.MustHold = token, true
	return c
}

// probe returns how a check of parts without a token ends.
func (s *subject) probe(key cart.Key, parts ...cart.Part) storage.Status {
	s.Helper()
	return s.try(check(key, s.load(key), parts...))[0].Status
}

func (s *subject) wantProbe(what string, want storage.Status, key cart.Key, parts ...cart.Part) {
	s.Helper()
	if got := s.probe(key, parts...); got != want {
		s.Errorf("%s: a stranger's commit of %v is %s, want %s", what, parts, name(got), name(want))
	}
}

func testNoLocker(s *subject) {
	l, ok := s.store.(storage.Locker)
	if s.caps.NoLocks == "" {
		if !ok {
			s.Errorf("%T is no Locker, and Caps does not say why", s.store)
		}
		return
	}
	if ok { // a wrapper, around a store that is none
		if _, err := l.Acquire(s.ctx, key, claim(storage.NewToken(), cart.PartAll), false); !errors.Is(err, storage.ErrUnsupported) {
			s.Errorf("Acquire: %v, want ErrUnsupported, since %s", err, s.caps.NoLocks)
		}
		if err := l.Abandon(s.ctx, key, storage.NewToken()); !errors.Is(err, storage.ErrUnsupported) {
			s.Errorf("Abandon: %v, want ErrUnsupported, since %s", err, s.caps.NoLocks)
		}
		for doing, err := range s.leaseErrors(l, key, storage.NewToken()) {
			if !errors.Is(err, storage.ErrUnsupported) {
				s.Errorf("%s: %v, want ErrUnsupported, since %s", doing, err, s.caps.NoLocks)
			}
		}
	}
	was := s.put(key, items(`{"a":1}`))
	c := change(key, &cart.Cart{}, items(`{"b":1}`))
	ask := claim(storage.NewToken(), cart.PartAll)
	c.Locks.Claim = &ask
	if out := s.commit(storage.Conflict, c); out.Claimed != (storage.Claimed{}) {
		s.Errorf("a store that is no Locker claimed %+v", out.Claimed)
	}
	s.same("afterwards", s.load(key), was)
}

func testLockBlocks(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.put(key, items(`{"a":1}`), metadata("m", `1`))
	m, n := cart.PartMetadata("m"), cart.PartMetadata("n")
	all := []cart.Part{cart.PartItems, cart.PartConditions, m, n, cart.PartAll}
	for _, test := range []struct {
		lock, free []cart.Part
	}{
		{[]cart.Part{cart.PartItems}, []cart.Part{cart.PartConditions, m, n}},
		{[]cart.Part{cart.PartConditions}, []cart.Part{cart.PartItems, m, n}},
		{[]cart.Part{m}, []cart.Part{cart.PartItems, cart.PartConditions, n}},
		{[]cart.Part{cart.PartItems, n}, []cart.Part{cart.PartConditions, m}},
		{[]cart.Part{cart.PartAll}, nil},
	} {
		token := storage.NewToken()
		s.acquire(l, key, token, test.lock...)
		blocked := func(p cart.Part) bool {
			for _, f := range test.free {
				if f == p {
					return false
				}
			}
			return true
		}
		for _, p := range all {
			want := storage.Committed
			if blocked(p) {
				want = storage.Locked
			}
			s.second().wantProbe("lock of "+string(test.lock[0]), want, key, p)
			c := check(key, s.load(key), p)
			c.Locks.Token = storage.NewToken()
			s.commit(want, c)
			c.Locks.Token = token
			s.commit(storage.Committed, c)
		}
		// A commit of several parts is blocked by any of them, and changes none.
		was := s.load(key)
		s.commit(storage.Locked, change(key, was, items(`{"x":1}`), conditions(`{"x":1}`), metadata("m", `"x"`), metadata("n", `"x"`)))
		s.same("after a locked commit", s.load(key), was)
		if len(test.free) > 0 {
			c := check(key, was, test.free...)
			s.commit(storage.Committed, c)
		}
		s.wantProbe("another cart", storage.Committed, cart.Key{Identifier: key.Identifier, Instance: "other"}, cart.PartAll)
		s.abandon(l, key, token)
		s.wantProbe("given back", storage.Committed, key, all...)
	}
}

func testLockedBeforeConflict(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	was := s.put(key, items(`{"a":1}`))
	s.acquire(l, key, storage.NewToken(), cart.PartItems)
	c := change(key, &cart.Cart{}, items(`{"b":1}`))
	s.commit(storage.Locked, c)
	s.same("afterwards", s.load(key), was)
}

func testLockOfMissingCart(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	token := storage.NewToken()
	s.missing("Acquire", s.acquire(l, key, token, cart.PartItems))
	s.missing("Load", s.load(key))
	s.instances(nil, key.Identifier)
	s.commit(storage.Locked, change(key, &cart.Cart{}, items(`{"a":1}`)))
	s.missing("after a locked creation", s.load(key))
	// Created under the lock, which stays.
	s.commit(storage.Committed, under(token, change(key, &cart.Cart{}, items(`{"a":1}`))))
	s.is("created", s.load(key), content{Version: 1, Items: `{"a":1}`, ItemsVersion: 1})
	s.wantProbe("after the creation", storage.Locked, key, cart.PartItems)
	s.instances([]string{key.Instance}, key.Identifier)
}

func testLockOutlivesForget(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.put(key, items(`{"a":1}`), metadata("m", `1`))
	s.put(key, removed("m")) // leaves a tombstone, which must go
	token := storage.NewToken()
	s.acquire(l, key, token, cart.PartItems)
	forget := check(key, s.load(key), cart.PartAll)
	forget.Change.Forget = true
	s.commit(storage.Locked, forget)
	s.commit(storage.Committed, under(token, forget))
	s.missing("forgotten", s.load(key))
	s.instances(nil, key.Identifier)
	s.commit(storage.Locked, change(key, &cart.Cart{}, items(`{"b":1}`)))
	s.commit(storage.Committed, change(key, &cart.Cart{}, conditions(`{"b":1}`)))
	s.commit(storage.Committed, under(token, change(key, s.load(key), items(`{"c":1}`))))
}

func testLockDemanded(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	was := s.put(key, items(`{"a":1}`))
	lost := func(token string) {
		s.Helper()
		c := under(token, change(key, was, items(`{"stale":1}`)))
		ask := claim(token, cart.PartItems)
		c.Locks.Claim, c.Locks.Release = &ask, true
		if out := s.commit(storage.LockUnknown, c); out.Claimed != (storage.Claimed{}) {
			s.Errorf("a lock that ended was claimed anew: %+v", out.Claimed)
		}
		s.same("after a lock that ended", s.load(key), was)
	}
	lost(storage.NewToken()) // never held

	token := storage.NewToken()
	s.acquire(l, key, token, cart.PartItems)
	s.abandon(l, key, token)
	lost(token)

	c := claim(token, cart.PartItems)
	c.Duration = brief
	begun := time.Now()
	if _, err := l.Acquire(s.ctx, key, c, false); err != nil {
		s.Fatalf("Acquire: %v", err)
	}
	s.eventually("end of the turn", func() bool {
		status := s.try(under(token, check(key, was, cart.PartItems)))[0].Status
		if status != storage.LockUnknown && status != storage.Committed {
			s.Fatalf("commit under a turn: %s", name(status))
		}
		return status == storage.LockUnknown
	})
	if held := time.Since(begun); held < brief-time.Millisecond {
		s.Errorf("a turn of %v ended after %v", brief, held)
	}
	lost(token)
	// Nobody took the lock since, so it is free. If the commit does not demand it, the token does no harm.
	free := change(key, was, items(`{"b":1}`))
	free.Locks.Token = token
	s.commit(storage.Committed, free)

	was = s.load(key)
	s.acquire(l, key, storage.NewToken(), cart.PartItems)
	lost(token)
	free = change(key, was, items(`{"c":1}`))
	free.Locks.Token = token
	s.commit(storage.Locked, free)
}

func testTurnRenewed(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	was := s.put(key, items(`{"a":1}`))
	token := storage.NewToken()
	short := claim(token, cart.PartItems, cart.PartConditions)
	short.Duration = brief
	var end time.Time
	s.inTime(func() time.Time {
		s.abandon(l, key, token)
		end = time.Now().Add(brief)
		if _, err := l.Acquire(s.ctx, key, short, false); err != nil {
			s.Fatalf("Acquire: %v", err)
		}
		end = time.Now().Add(brief)
		// The same token asks again, while a stranger waits for it.
		wait := check(key, was, cart.PartItems)
		stranger := claim(storage.NewToken(), cart.PartItems)
		stranger.Duration = brief // should this round be held up, the stranger gets it
		wait.Locks.Claim = &stranger
		s.try(wait)
		s.same("renewed", s.acquire(l, key, token, cart.PartItems, cart.PartConditions), was)
		s.abandon(l, key, stranger.Token)
		return end.Add(-brief / 2)
	})
	s.passed(end)
	s.commit(storage.Committed, under(token, check(key, was, cart.PartItems)))
	s.wantProbe("after the first turn", storage.Locked, key, cart.PartItems)
	s.wantProbe("after the first turn", storage.Locked, key, cart.PartConditions)

	// A claim in a commit renews as well.
	token = storage.NewToken()
	other := cart.Key{Identifier: "u2", Instance: "default"}
	s.inTime(func() time.Time {
		s.abandon(l, other, token)
		if _, err := l.Acquire(s.ctx, other, storage.Claim{Token: token, Parts: []cart.Part{cart.PartItems}, Duration: brief}, false); err != nil {
			s.Fatalf("Acquire: %v", err)
		}
		end = time.Now().Add(brief)
		c := change(other, was, items(`{}`))
		ask := claim(token, cart.PartItems)
		c.Locks.Token, c.Locks.Claim = token, &ask
		if out := s.commit(storage.Conflict, c); !out.Claimed.Granted {
			s.Fatalf("claim of what the token holds: %+v", out.Claimed)
		}
		return end.Add(-brief / 2)
	})
	s.passed(end)
	s.wantProbe("after the first turn", storage.Locked, other, cart.PartItems)
}

func testTurnOfOtherPartsStays(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	token := storage.NewToken()
	s.acquire(l, key, token, cart.PartItems, cart.PartConditions)
	s.acquire(l, key, token, cart.PartItems)
	s.wantProbe("a part that was not renewed", storage.Locked, key, cart.PartConditions)
	s.acquire(l, key, token, cart.PartMetadata("m"))
	for _, p := range []cart.Part{cart.PartItems, cart.PartConditions, cart.PartMetadata("m")} {
		s.wantProbe("a part among several claims", storage.Locked, key, p)
	}
	s.abandon(l, key, token)
	s.wantProbe("all given back", storage.Committed, key, cart.PartAll)
}

func testRelease(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	for _, mustHold := range []bool{true, false} {
		was := s.put(key, items(`{"a":1}`))
		token := storage.NewToken()
		s.acquire(l, key, token, cart.PartItems, cart.PartConditions)
		c := change(key, was, items(`{"b":1}`))
		c.Locks.Token, c.Locks.MustHold, c.Locks.Release = token, mustHold, true
		s.commit(storage.Committed, c)
		s.wantProbe("released by a change", storage.Committed, key, cart.PartAll)
		s.commit(storage.LockUnknown, under(token, check(key, s.load(key), cart.PartItems)))

		s.acquire(l, key, token, cart.PartAll)
		c = check(key, s.load(key), cart.PartItems)
		c.Locks.Token, c.Locks.MustHold, c.Locks.Release = token, mustHold, true
		s.commit(storage.Committed, c)
		s.wantProbe("released by a check", storage.Committed, key, cart.PartAll)

		s.acquire(l, key, token, cart.PartAll)
		c.Change.Forget, c.Expect.Version = true, 0
		s.commit(storage.Committed, c)
		s.wantProbe("released by Forget", storage.Committed, key, cart.PartAll)
	}
	// Giving back a lock that is not held does no harm.
	c := change(key, s.load(key), items(`{"b":1}`))
	c.Locks.Token, c.Locks.Release = storage.NewToken(), true
	s.commit(storage.Committed, c)
}

func testReleaseNeedsSuccess(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.put(key, items(`{"a":1}`))
	token := storage.NewToken()
	s.acquire(l, key, token, cart.PartItems)
	c := under(token, change(key, &cart.Cart{}, items(`{"b":1}`)))
	c.Locks.Release = true
	s.commit(storage.Conflict, c)
	s.wantProbe("after a conflict", storage.Locked, key, cart.PartItems)
	s.commit(storage.Committed, under(token, check(key, s.load(key), cart.PartItems)))
}
