package storage_test

import (
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// living is a state with a cart that expires in so long; 0 for never.
func living(life time.Duration) *storage.State {
	s := &storage.State{Cart: cart.Cart{ID: "id", Version: 3, CreatedAt: start, UpdatedAt: start}}
	if life > 0 {
		s.Cart.ExpiresAt = start.Add(life)
	}
	return s
}

// TestCartOutlivesLeases: a cart expires no sooner than the last lease on it, and nothing shortens what was promised.
func TestCartOutlivesLeases(t *testing.T) {
	const second = time.Second
	lease := leaseClaim("a", items)
	commit := func(s *storage.State, c storage.Commit) {
		c.Expect = storage.Expect{ID: s.Cart.ID}
		outs, _ := storage.Apply([]*storage.State{s}, []storage.Commit{c}, start)
		if outs[0].ExpiresAt != s.Cart.ExpiresAt {
			t.Errorf("answered %v, stored %v", outs[0].ExpiresAt, s.Cart.ExpiresAt)
		}
	}
	acquired := func(claims ...storage.Claim) func(s *storage.State) {
		return func(s *storage.State) {
			for _, c := range claims {
				s.Acquire(c, start)
			}
		}
	}
	for _, test := range []struct {
		name string
		life time.Duration
		do   func(s *storage.State)
		want time.Duration // from start, to the next millisecond; 0 for never
	}{
		{"a lease", second, acquired(lease), 10 * second},
		{"a shorter lease", 20 * second, acquired(lease), 20 * second},
		{"for ever", 0, acquired(lease), 0},
		{"a turn", second, acquired(claim("a", items)), second},
		{"a lease that waits", second, acquired(claim("b", items), lease), second},
		{"granted from the queue", second / 10, func(s *storage.State) {
			acquired(claim("b", items), lease)(s)
			s.Abandon("b", start)
		}, storage.WaiterTTL},
		{"renewed", second, func(s *storage.State) {
			acquired(lease)(s)
			_, _ = s.Renew("a", time.Minute, start)
		}, time.Minute},
		{"renewed for less", second, func(s *storage.State) {
			acquired(lease)(s)
			_, _ = s.Renew("a", second, start)
		}, 10 * second},
		{"released", second, func(s *storage.State) {
			acquired(lease)(s)
			_, _ = s.Release("a", start)
		}, 10 * second},
		{"ended", second, func(s *storage.State) {
			acquired(lease)(s)
			s.Settle(start.Add(10*second - 1))
			_, _ = s.Release("a", start)
			commit(s, storage.Commit{Change: storage.Change{Touch: true, TTL: 2 * second}})
		}, 2 * second},
		{"written by a stranger", second, func(s *storage.State) {
			acquired(lease)(s)
			commit(s, storage.Commit{Change: storage.Change{Steps: 1, TTL: 2 * second}})
		}, 10 * second},
		{"written for longer", second, func(s *storage.State) {
			acquired(lease)(s)
			commit(s, storage.Commit{Change: storage.Change{Steps: 1, TTL: 20 * second}})
		}, 20 * second},
		{"written for ever", second, func(s *storage.State) {
			acquired(lease)(s)
			commit(s, storage.Commit{Change: storage.Change{Steps: 1}})
		}, 0},
		{"the last of several", second, func(s *storage.State) {
			b := leaseClaim("b", conditions)
			b.Duration = 30 * second
			acquired(lease, b)(s)
			commit(s, storage.Commit{Change: storage.Change{Touch: true, TTL: second}})
		}, 30 * second},
		{"let in by a commit", second, func(s *storage.State) {
			acquired(claim("b", items), lease)(s)
			commit(s, storage.Commit{Change: storage.Change{Steps: 1, TTL: second / 10}, Locks: storage.Locks{Token: "b", Release: true}})
		}, storage.WaiterTTL},
		{"claimed by a commit", second, func(s *storage.State) {
			outs, _ := storage.Apply([]*storage.State{s}, []storage.Commit{{Expect: storage.Expect{ID: "other"}, Locks: storage.Locks{Claim: &lease}}}, start)
			if outs[0].Cart.ExpiresAt != s.Cart.ExpiresAt {
				t.Errorf("answered %v, stored %v", outs[0].Cart.ExpiresAt, s.Cart.ExpiresAt)
			}
		}, 10 * second},
		{"put in its place", second, func(s *storage.State) {
			acquired(lease)(s)
			commit(s, storage.Commit{Change: storage.Change{Place: &cart.Cart{ID: "new", Version: 1}, TTL: second}})
		}, 10 * second},
	} {
		s := living(test.life)
		test.do(s)
		var want time.Time
		if test.want > 0 {
			want = start.Add(test.want)
		}
		if got := s.Cart.ExpiresAt; got.IsZero() != want.IsZero() || got.Sub(want) > time.Millisecond || want.Sub(got) > time.Millisecond {
			t.Errorf("%s: expires at %v, want %v", test.name, got, want)
		}
		for _, h := range s.Held {
			if h.Leased && !s.Cart.ExpiresAt.IsZero() && s.Cart.ExpiresAt.Before(h.Expires) {
				t.Errorf("%s: expires at %v, before the lease at %v", test.name, s.Cart.ExpiresAt, h.Expires)
			}
		}
		if s.Cart.ID == "id" && s.Cart.UpdatedAt == start && s.Cart.Version != 3 {
			t.Errorf("%s: version %d", test.name, s.Cart.Version)
		}
	}
	none := storage.State{}
	acquired(lease)(&none)
	if none.Cart.Exists() || !none.Cart.ExpiresAt.IsZero() {
		t.Errorf("a lease made a cart: %+v", none.Cart)
	}
}

// TestRenewUnknownDuration: a renewal without a duration leaves alone a lease that another release wrote.
func TestRenewUnknownDuration(t *testing.T) {
	s := storage.State{Held: []storage.Hold{{Token: "a", Parts: []cart.Part{items}, Expires: start.Add(time.Second), Leased: true, Fence: 1}}}
	if l, err := s.Renew("a", 0, start); err != nil || l.Duration != 0 || !l.Expires.Equal(start.Add(time.Second)) {
		t.Errorf("by its own: %+v, %v", l, err)
	}
	if l, err := s.Renew("a", time.Minute, start); err != nil || l.Duration != time.Minute {
		t.Errorf("by a minute: %+v, %v", l, err)
	}
	if l, err := s.Renew("a", 0, start.Add(time.Second)); err != nil || !l.Expires.Equal(start.Add(61*time.Second)) {
		t.Errorf("by its own since: %+v, %v", l, err)
	}
}
