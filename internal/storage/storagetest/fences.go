package storagetest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// testClientLeasesRemembered: when there are more leases than are remembered, the oldest are forgotten.
func testClientLeasesRemembered(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	const more = 3
	var tokens []string
	var last storage.Grant
	for range storage.MaxLost + more {
		token := storage.NewToken()
		tokens = append(tokens, token)
		g := s.lease(l, key, token, time.Millisecond, cart.PartItems) // waits for the end of the one before
		if g.Fence <= last.Fence {
			s.Fatalf("fence %d after %d", g.Fence, last.Fence)
		}
		last = g
	}
	s.ended(last)
	for i, token := range tokens {
		if i > 2*more && i%rememberedStep != 0 {
			continue
		}
		want := storage.ErrLockLost
		if i < more {
			want = storage.ErrLockUnknown
		}
		if _, err := l.Lease(s.ctx, key, token); !errors.Is(err, want) {
			s.Fatalf("lease %d of %d: %v, want %v", i+1, len(tokens), err, want)
		}
	}
	s.wantNone("the oldest", l, key, tokens[0], storage.ErrLockUnknown)
	s.wantNone("the oldest remembered", l, key, tokens[more], storage.ErrLockLost)
}

// testStaleHolders: no commit and no renewal succeeds under a lease that has ended, whether or not somebody took the
// lock since.
func testStaleHolders(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	const holders = 20
	s.together(holders, func(i int) error {
		key, taken := cart.Key{Identifier: key.Identifier, Instance: fmt.Sprint("c", i)}, i%2 == 0
		outs, err := l.Commit(s.ctx, change(key, &cart.Cart{}, items(`{}`)))
		if err != nil {
			return err
		}
		version, id := uint64(1), outs[0].ID
		for n := range staleTries {
			token := storage.NewToken()
			g, err := l.Acquire(s.ctx, key, leaseClaim(token, time.Millisecond, cart.PartItems), false)
			if err != nil {
				return err
			}
			var next storage.Claim
			if taken { // by a turn or by a lease, by turns
				next = claim(storage.NewToken(), cart.PartItems)
				next.Leased = n%2 == 0
				if _, err := l.Acquire(s.ctx, key, next, false); err != nil {
					return err
				}
			}
			for time.Now().Before(g.Expires) { // to the instant: all clocks are those of one machine
				time.Sleep(time.Until(g.Expires))
			}
			c := under(token, storage.Commit{
				Key: key, Expect: storage.Expect{ID: id},
				Change: storage.Change{Steps: 1, TTL: long, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(`{"stale":1}`), Step: 1}}},
				Locks:  storage.Locks{Parts: []cart.Part{cart.PartItems}},
			})
			if outs, err = l.Commit(s.ctx, c); err != nil || outs[0].Status != storage.LockLost {
				return fmt.Errorf("commit %d of a stale holder (lock taken: %v): %+v, %w", n, taken, outs, err)
			}
			if _, err := l.Renew(s.ctx, key, token, long); !errors.Is(err, storage.ErrLockLost) {
				return fmt.Errorf("renewal %d of a stale holder (lock taken: %v): %w", n, taken, err)
			}
			if taken {
				c.Locks.Token, c.Locks.Release = next.Token, true // the successor's is the only change
				if outs, err = l.Commit(s.ctx, c); err != nil || outs[0].Status != storage.Committed || outs[0].Base != version {
					return fmt.Errorf("commit %d of the successor: %+v, %w", n, outs, err)
				}
				version++
			}
		}
		now, err := l.Load(s.ctx, key)
		if err == nil && now.Version != version {
			err = fmt.Errorf("version %d, want %d", now.Version, version)
		}
		return err
	})
}

// testFences: fences rise over many leases of a name, however they ended and whatever happened to the cart.
func testFences(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	l2, _ := s.second().locker()
	var last uint64
	parts := [][]cart.Part{{cart.PartItems}, {cart.PartAll}, {cart.PartMetadata("m"), cart.PartConditions}}
	for n := range fenceLeases {
		l := []storage.Locker{l, l2}[n%2]
		token, life := storage.NewToken(), long
		if n%10 == 0 {
			life = time.Millisecond
		}
		g := s.on(l).lease(l, key, token, life, parts[n%3]...)
		if g.Fence <= last {
			s.Fatalf("lease %d has fence %d after %d", n, g.Fence, last)
		}
		last = g.Fence
		var err error
		switch {
		case n%10 == 0: // expires
			s.ended(g)
		case n%10 == 1: // the cart comes, goes, or expires
			c := under(token, change(key, g.Cart, items(`{}`)))
			c.Locks.Release, c.Change.Forget, c.Change.TTL = true, n%20 == 1, time.Millisecond
			s.commit(storage.Committed, c)
		default:
			err = l.Release(s.ctx, key, token)
		}
		if err != nil {
			s.Fatal(err)
		}
	}
}

// testFencesOfCrowd: fences rise in the order in which the holders have the lock.
func testFencesOfCrowd(s *subject) {
	a, ok := s.locker()
	if !ok {
		return
	}
	b, _ := s.second().locker()
	const crowd, rounds = 6, 10
	var last atomic.Uint64
	s.put(key, items(`{}`))
	s.together(crowd, func(i int) error {
		l := []storage.Locker{a, b}[i%2]
		for n := range rounds {
			token := storage.NewToken()
			g, err := l.Acquire(s.ctx, key, leaseClaim(token, long, cart.PartItems), false)
			if err != nil {
				return err
			}
			if before := last.Swap(g.Fence); g.Fence <= before {
				return fmt.Errorf("fence %d after %d", g.Fence, before)
			}
			if n%2 == 0 {
				if err := l.Release(s.ctx, key, token); err != nil {
					return err
				}
				continue
			}
			c := under(token, change(key, g.Cart, items(`{}`)))
			c.Locks.Release = true
			if outs, err := l.Commit(s.ctx, c); err != nil || outs[0].Status != storage.Committed {
				return fmt.Errorf("commit: %+v, %w", outs, err)
			}
		}
		return nil
	})
}

func testFencesAfterFlush(s *subject) {
	l, ok := s.locker()
	if !ok || s.caps.NoFlush != "" {
		return
	}
	var last uint64
	for range 20 {
		held, lost, next := storage.NewToken(), storage.NewToken(), storage.NewToken()
		s.ended(s.lease(l, key, lost, time.Millisecond, cart.PartAll))
		g := s.lease(l, key, held, long, cart.PartAll)
		if g.Fence <= last {
			s.Fatalf("fence %d after %d and a flush", g.Fence, last)
		}
		if err := l.Flush(s.ctx); err != nil {
			s.Fatalf("Flush: %v", err)
		}
		s.wantNone("flushed", l, key, held, storage.ErrLockUnknown)
		s.wantNone("flushed, and expired before", l, key, lost, storage.ErrLockUnknown)
		after := s.lease(l, key, next, long, cart.PartAll)
		if after.Fence <= g.Fence {
			s.Fatalf("fence %d after %d and a flush", after.Fence, g.Fence)
		}
		last = after.Fence
		if err := l.Release(s.ctx, key, next); err != nil {
			s.Fatalf("Release: %v", err)
		}
	}
}
