package storagetest

import (
	"errors"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// wantLife fails unless the cart expires at the end of the lease, to the millisecond.
func (s *subject) wantLife(what string, expires time.Time, g storage.Grant) {
	s.Helper()
	if expires.Before(g.Expires) || expires.After(g.Expires.Add(time.Millisecond)) {
		s.Errorf("%s: the cart expires at %v, the lease at %v", what, expires, g.Expires)
	}
}

// brieflyLiving makes a cart that would expire soon, and hands it to f while it is there.
func (s *subject) brieflyLiving(f func(was *cart.Cart)) {
	s.Helper()
	s.inTime(func() time.Time {
		// What f locked in a round that was held up ends by itself.
		s.eventually("the name to be free", func() bool {
			forget := check(key, s.load(key), cart.PartAll)
			forget.Change.Forget = true
			return s.try(forget)[0].Status == storage.Committed
		})
		c := change(key, s.load(key), items(`{"a":1}`), metadata("m", `1`))
		c.Change.TTL = s.short()
		end := s.commit(storage.Committed, c).ExpiresAt
		if was := s.load(key); was.Exists() {
			f(was)
		}
		return end
	})
}

// testCartOutlivesLease: a client changes under its lease the same cart that came with the lease, however short the TTL
// of a cart is. When the lease has ended, the cart expires.
func testCartOutlivesLease(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	life := 4 * s.short()
	for _, parts := range [][]cart.Part{{cart.PartItems}, {cart.PartAll}, {cart.PartMetadata("other")}} {
		var was *cart.Cart
		var g storage.Grant
		var token string
		s.brieflyLiving(func(now *cart.Cart) {
			was, token = now, storage.NewToken()
			g = s.lease(l, key, token, life, parts...)
			if g.Cart.ID != was.ID || g.Cart.Version != was.Version || g.Cart.ETag() != was.ETag() || !g.Cart.UpdatedAt.Equal(was.UpdatedAt) {
				s.Errorf("the lease altered the cart: %+v, was %+v", contentOf(g.Cart), contentOf(was))
			}
			s.wantLife("the cart of the grant", g.Cart.ExpiresAt, g)
			s.wantLife("a read", s.second().load(key).ExpiresAt, g)
			if err := l.Release(s.ctx, key, token); err != nil {
				s.Fatal(err)
			}
			s.wantLife("released early", s.load(key).ExpiresAt, g) // it was promised
			token = storage.NewToken()
			g = s.lease(l, key, token, life, parts...)
		})
		s.passed(was.ExpiresAt)
		if time.Now().After(g.Expires) {
			continue // a loaded machine
		}
		// Writes and touches, under the lease and by others, shorten nothing.
		for what, c := range map[string]storage.Commit{
			"a write under the lease": under(token, change(key, was, items(`{"a":2}`))),
			"a stranger's write":      change(key, was, conditions(`{"c":1}`)),
			"a touch":                 {Key: key, Change: storage.Change{Touch: true}},
		} {
			c.Expect, c.Change.TTL = storage.Expect{ID: was.ID}, s.short()
			if len(parts) == 1 && parts[0] == cart.PartAll {
				c = under(token, c)
			}
			out := s.try(c)[0]
			if time.Now().After(g.Expires) {
				break
			}
			if out.Status != storage.Committed || out.ID != was.ID {
				s.Fatalf("%s, after the life of the cart and within that of the lease: %s of cart %q, want %q", what, name(out.Status), out.ID, was.ID)
			}
			if out.ExpiresAt.Before(g.Expires) {
				s.Errorf("%s: the cart expires at %v, the lease at %v", what, out.ExpiresAt, g.Expires)
			}
			if now := s.load(key); now.Exists() && !now.ExpiresAt.Equal(out.ExpiresAt) {
				s.Errorf("%s: answered %v, and stored %v", what, out.ExpiresAt, now.ExpiresAt)
			}
		}
		if s.caps.NoInstances == "" && time.Now().Before(g.Expires) {
			s.instances([]string{key.Instance}, key.Identifier)
		}
		s.eventually("the end of the cart", func() bool { return !s.load(key).Exists() })
		s.instances(nil, key.Identifier)
	}
}

// testCartOutlivesRenewal: each renewal lets the cart live as long.
func testCartOutlivesRenewal(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	token := storage.NewToken()
	var was *cart.Cart
	s.brieflyLiving(func(now *cart.Cart) {
		was = now
		s.abandon(l, key, token)
		s.lease(l, key, token, s.short(), cart.PartConditions)
		renewed, err := l.Renew(s.ctx, key, token, long)
		if err != nil {
			return // a loaded machine: once more
		}
		s.wantLife("renewed", s.load(key).ExpiresAt, storage.Grant{Expires: renewed.Expires})
	})
	s.passed(was.ExpiresAt)
	c := under(token, change(key, was, conditions(`{"b":1}`)))
	c.Change.TTL = s.short()
	out := s.commit(storage.Committed, c)
	if now := s.load(key); now.ID != was.ID || !now.ExpiresAt.Equal(out.ExpiresAt) || time.Until(now.ExpiresAt) < long/2 {
		s.Errorf("written under the lease: %+v until %v, answered %v", contentOf(now), now.ExpiresAt, out.ExpiresAt)
	}
	// A cart that does not expire stays so. One that is forgotten and created anew under the lease lives as long as the
	// lease.
	c = under(token, change(key, s.load(key), conditions(`{"b":2}`)))
	c.Change.TTL = 0
	s.commit(storage.Committed, c)
	if _, err := l.Renew(s.ctx, key, token, 2*long); err != nil {
		s.Fatal(err)
	}
	if now := s.load(key); !now.ExpiresAt.IsZero() {
		s.Errorf("a cart without expiry expires at %v", now.ExpiresAt)
	}
	forget := under(token, check(key, s.load(key), cart.PartConditions))
	forget.Change.Forget = true
	s.commit(storage.Committed, forget)
	c = under(token, change(key, &cart.Cart{}, conditions(`{"b":3}`)))
	c.Change.TTL = s.short()
	if out := s.commit(storage.Committed, c); time.Until(out.ExpiresAt) < long {
		s.Errorf("made anew under the lease, it expires at %v", out.ExpiresAt)
	}
}

// testCartOutlivesQueuedLease: a lease that comes from the queue counts from its grant, and in whole when it is
// confirmed. A turn does not count.
func testCartOutlivesQueuedLease(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	holder, next := storage.NewToken(), leaseClaim(storage.NewToken(), long, cart.PartItems)
	s.brieflyLiving(func(was *cart.Cart) {
		s.acquire(l, key, holder, cart.PartItems)
		if now := s.load(key); now.Exists() && !now.ExpiresAt.Equal(was.ExpiresAt) {
			s.Errorf("a turn lets the cart live until %v, and not %v", now.ExpiresAt, was.ExpiresAt)
		}
		s.abandon(l, key, holder)
	})
	s.acquire(l, key, holder, cart.PartItems)
	s.enqueue(key, next)
	w := s.wait(s.ctx, l, key, next, true)
	give := change(key, s.load(key), items(`{"b":1}`))
	give.Locks.Token, give.Locks.Release, give.Change.TTL = holder, true, s.short()
	out := s.commit(storage.Committed, give)
	got := s.granted("the next", w)
	if out.ExpiresAt.Before(out.UpdatedAt.Add(storage.WaiterTTL)) {
		s.Errorf("released to a lease of %v, the cart expires %v after", storage.WaiterTTL, out.ExpiresAt.Sub(out.UpdatedAt))
	}
	s.wantLife("confirmed", got.ExpiresAt, w.grant)
	if got.ID != out.ID {
		s.Errorf("confirmed with cart %q, want %q", got.ID, out.ID)
	}
}

// testRenewalKeepsDuration: a renewal without a duration keeps the lease's own, and a renewal with one sets it.
func testRenewalKeepsDuration(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	token := storage.NewToken()
	s.lease(l, key, token, long, cart.PartItems, cart.PartMetadata("m"))
	renew := func(what string, by, want time.Duration) {
		s.Helper()
		begun := time.Now().Truncate(time.Millisecond)
		got, err := s.second().store.(storage.Locker).Renew(s.ctx, key, token, by)
		if err != nil {
			s.Fatalf("%s: %v", what, err)
		}
		if got.Duration != want || got.Expires.Before(begun.Add(want)) || got.Expires.After(time.Now().Add(want+time.Millisecond)) {
			s.Errorf("%s: %+v, want a duration of %v from %v", what, got, want, begun)
		}
		if held, err := l.Lease(s.ctx, key, token); err != nil || held.Duration != want || !held.Expires.Equal(got.Expires) {
			s.Errorf("%s: Lease = %+v, %v; renewed %+v", what, held, err, got)
		}
	}
	renew("by its own", 0, long)
	s.put(key, conditions(`{"a":1}`)) // what a commit stores of the locks has it still
	renew("after a commit", 0, long)
	renew("by another", 2*long, 2*long)
	renew("by that", 0, 2*long)
	// A turn by the token of the lease leaves it as it is, and a claim for the lease sets it.
	s.abandon(l, key, storage.NewToken())
	if _, err := l.Acquire(s.ctx, key, storage.Claim{Token: token, Holder: "client", Parts: []cart.Part{cart.PartItems}, Duration: time.Minute}, false); err != nil {
		s.Fatal(err)
	}
	renew("after a turn", 0, 2*long)
	s.lease(l, key, token, 3*long, cart.PartItems)
	renew("claimed again", 0, 3*long)
	if err := l.Release(s.ctx, key, token); err != nil {
		s.Fatal(err)
	}
	if _, err := l.Renew(s.ctx, key, token, 0); !errors.Is(err, storage.ErrLockUnknown) {
		s.Errorf("released: %v, want ErrLockUnknown", err)
	}
	// Out of the queue it is that of the claim, and not what the queue granted.
	next := leaseClaim(storage.NewToken(), long, cart.PartItems)
	s.handOver(l, next)
	token = next.Token
	s.granted("the next", s.wait(s.ctx, l, key, next, true))
	renew("from the queue", 0, long)
}
