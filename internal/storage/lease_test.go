package storage_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

func leaseClaim(token string, parts ...cart.Part) storage.Claim {
	c := claim(token, parts...)
	c.Leased, c.Holder = true, "client"
	return c
}

// fences gives 1, 2, 3 and so on.
func fences() func() uint64 {
	var last uint64
	return func() uint64 {
		last++
		return last
	}
}

func TestLease(t *testing.T) {
	var s storage.State
	next := fences()
	s.Acquire(leaseClaim("a", items, notes), start)
	s.Acquire(claim("turn", conditions), start)
	s.GiveFences(next)
	want := storage.Lease{Parts: []cart.Part{items, notes}, Holder: "client", Fence: 1, Expires: start.Add(10 * time.Second), Duration: 10 * time.Second}
	got, err := s.Lease("a")
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("Lease: %v (-want +got):\n%s", err, d)
	}
	got.Parts[0] = conditions // is the caller's
	got, err = s.Renew("a", time.Minute, start.Add(time.Second))
	want.Expires, want.Duration = start.Add(61*time.Second), time.Minute
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("Renew: %v (-want +got):\n%s", err, d)
	}
	for _, token := range []string{"turn", "nobody", ""} {
		_, look := s.Lease(token)
		_, renew := s.Renew(token, time.Minute, start)
		_, release := s.Release(token, start)
		for _, err := range []error{look, renew, release} {
			if !errors.Is(err, storage.ErrLockUnknown) {
				t.Errorf("of %q: %v, want ErrLockUnknown", token, err)
			}
		}
	}
	s.Acquire(leaseClaim("b", items), start)
	granted, err := s.Release("a", start)
	if err != nil || !slices.Equal(granted, []string{"b"}) {
		t.Errorf("Release granted %q, %v, want b", granted, err)
	}
	s.GiveFences(next)
	if got, err := s.Lease("b"); got.Fence != 2 || err != nil {
		t.Errorf("the next has %+v, %v, want fence 2", got, err)
	}
	if _, err := s.Lease("a"); !errors.Is(err, storage.ErrLockUnknown) {
		t.Errorf("released: %v, want ErrLockUnknown", err)
	}
}

// TestLeaseIsOne: whatever a token claims beside its lease becomes one with it, and the fence stays.
func TestLeaseIsOne(t *testing.T) {
	for _, test := range []struct {
		name   string
		claims []storage.Claim
		want   []cart.Part
	}{
		{"the same", []storage.Claim{leaseClaim("a", items, notes), leaseClaim("a", items, notes)}, []cart.Part{items, notes}},
		{"some of it", []storage.Claim{leaseClaim("a", items, notes), leaseClaim("a", notes)}, []cart.Part{items, notes}},
		{"a turn within it", []storage.Claim{leaseClaim("a", items, notes), claim("a", notes)}, []cart.Part{items, notes}},
		{"a turn beside it", []storage.Claim{leaseClaim("a", items), claim("a", notes)}, []cart.Part{items, notes}},
		{"after turns", []storage.Claim{claim("a", items), claim("a", notes), leaseClaim("a", notes)}, []cart.Part{items, notes}},
		{"more", []storage.Claim{leaseClaim("a", items), leaseClaim("a", notes, conditions)}, []cart.Part{items, notes, conditions}},
		{"everything", []storage.Claim{leaseClaim("a", items), leaseClaim("a", all)}, []cart.Part{all}},
		{"a part of everything", []storage.Claim{leaseClaim("a", all), leaseClaim("a", items)}, []cart.Part{all}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s storage.State
			next := fences()
			now := start
			for _, c := range test.claims {
				now = now.Add(time.Second)
				if !s.Acquire(c, now).Granted {
					t.Fatalf("%v was not granted", c.Parts)
				}
				s.GiveFences(next)
			}
			want := storage.Lease{Parts: test.want, Fence: 1, Expires: now.Add(10 * time.Second), Duration: 10 * time.Second}
			got, err := s.Lease("a")
			got.Holder = ""
			if d := cmp.Diff(want, got); d != "" || err != nil || len(s.Held) != 1 {
				t.Errorf("%d holds, %v (-want +got):\n%s", len(s.Held), err, d)
			}
		})
	}
}

func TestLeaseExpires(t *testing.T) {
	var s storage.State
	s.Acquire(leaseClaim("a", items), start)
	s.Acquire(claim("turn", conditions), start)
	end := start.Add(10 * time.Second)
	s.Settle(end.Add(-1))
	if _, err := s.Lease("a"); err != nil {
		t.Errorf("a nanosecond before its end: %v", err)
	}
	s.Settle(end)
	want := func(what string, now time.Time, lease error, status storage.Status) {
		t.Helper()
		s.Settle(now)
		if _, err := s.Lease("a"); !errors.Is(err, lease) {
			t.Errorf("%s: %v, want %v", what, err, lease)
		}
		if _, err := s.Renew("a", time.Hour, now); !errors.Is(err, lease) {
			t.Errorf("%s: Renew: %v, want %v", what, err, lease)
		}
		c := storage.Commit{Locks: storage.Locks{Parts: []cart.Part{items}, Token: "a", MustHold: true, Claim: new(claim("b", items))}}
		if out := one(&s, c); out.Status != status || out.Claimed != (storage.Claimed{}) {
			t.Errorf("%s: commit %+v, want status %d", what, out, status)
		}
	}
	want("expired", end, storage.ErrLockLost, storage.LockLost)
	s.Acquire(claim("b", items), end)
	want("taken", end, storage.ErrLockLost, storage.LockLost)
	s.Abandon("a", end)
	want("abandoned", end, storage.ErrLockLost, storage.LockLost)
	want("remembered", end.Add(storage.LeaseMemory-1), storage.ErrLockLost, storage.LockLost)
	want("forgotten", end.Add(storage.LeaseMemory), storage.ErrLockUnknown, storage.LockUnknown)
	if len(s.Lost) != 0 {
		t.Errorf("%d leases are remembered", len(s.Lost))
	}
}

// TestLeaseFromQueue: it is short, and nothing is remembered of it, until its waiter has claimed it again.
func TestLeaseFromQueue(t *testing.T) {
	short, whole := start.Add(storage.WaiterTTL), start.Add(10*time.Second)
	later := start.Add(storage.WaiterTTL - 1)
	brief := leaseClaim("b", items)
	brief.Duration = storage.WaiterTTL / 2
	for _, test := range []struct {
		name  string
		has   []storage.Claim // of b
		claim storage.Claim   // that waits
		again func(*storage.State)
		ends  time.Time
		after error // of Lease at the end
	}{
		{"unconfirmed", nil, leaseClaim("b", items), nil, short, storage.ErrLockUnknown},
		{"claimed again", nil, leaseClaim("b", items), func(s *storage.State) { s.Acquire(leaseClaim("b", items), later) }, later.Add(10 * time.Second), storage.ErrLockLost},
		{"renewed", nil, leaseClaim("b", items), func(s *storage.State) { _, _ = s.Renew("b", time.Minute, later) }, later.Add(time.Minute), storage.ErrLockLost},
		{"shorter than that", nil, brief, nil, start.Add(brief.Duration), storage.ErrLockUnknown},
		{"shorter than that, claimed again", nil, brief, func(s *storage.State) { s.Acquire(brief, start) }, start.Add(brief.Duration), storage.ErrLockLost},
		{"more for a lease", []storage.Claim{leaseClaim("b", notes)}, leaseClaim("b", items), nil, whole, storage.ErrLockLost},
		{"more for a lease, by a turn", []storage.Claim{leaseClaim("b", notes)}, claim("b", items), nil, whole, storage.ErrLockLost},
		{"a lease after a turn", []storage.Claim{claim("b", notes)}, leaseClaim("b", items), nil, whole, storage.ErrLockUnknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s storage.State
			next := fences()
			for _, c := range test.has {
				s.Acquire(c, start)
			}
			s.Acquire(claim("a", items), start)
			s.Acquire(test.claim, start)
			s.GiveFences(next)
			if granted := s.Abandon("a", start); !slices.Equal(granted, []string{"b"}) {
				t.Fatalf("granted %q", granted)
			}
			s.GiveFences(next)
			if test.again != nil {
				test.again(&s)
				s.GiveFences(next)
			}
			if got, err := s.Lease("b"); err != nil || got.Fence != 1 || !got.Expires.Equal(test.ends) {
				t.Errorf("%+v, %v, want fence 1, end %v", got, err, test.ends)
			}
			s.Settle(test.ends.Add(-1))
			if _, err := s.Lease("b"); err != nil {
				t.Errorf("before its end: %v", err)
			}
			s.Settle(test.ends)
			if _, err := s.Lease("b"); !errors.Is(err, test.after) {
				t.Errorf("at its end: %v, want %v", err, test.after)
			}
		})
	}
}

// TestLateClaimOfALostLease: it is neither granted nor queued, whether somebody has the lock by then or not.
func TestLateClaimOfALostLease(t *testing.T) {
	var s storage.State
	late := leaseClaim("a", items)
	s.Acquire(late, start)
	end := start.Add(late.Duration)
	s.Settle(end)
	if got := s.Acquire(late, end); got != (storage.Claimed{}) {
		t.Errorf("free: %+v", got)
	}
	s.Acquire(claim("b", items), end)
	if got := s.Acquire(late, end); got != (storage.Claimed{}) || len(s.Queue) != 0 {
		t.Errorf("taken: %+v, %d in the queue", got, len(s.Queue))
	}
	s.Settle(end.Add(storage.LeaseMemory)) // b has ended too
	if got := s.Acquire(late, end.Add(storage.LeaseMemory)); !got.Granted {
		t.Errorf("forgotten: %+v", got)
	}
}

// TestLostAreBounded: the oldest end is forgotten first, whatever the order of the grants.
func TestLostAreBounded(t *testing.T) {
	var s storage.State
	const n = storage.MaxLost + 2
	for i := range n {
		c := leaseClaim(fmt.Sprint(i), cart.PartMetadata(fmt.Sprint(i)))
		c.Duration = time.Duration(n-i) * time.Millisecond
		s.Acquire(c, start)
	}
	s.Settle(start.Add(time.Second / 2))
	s.Settle(start.Add(time.Minute))
	if len(s.Lost) != storage.MaxLost {
		t.Fatalf("%d are remembered, want %d", len(s.Lost), storage.MaxLost)
	}
	for i := range n {
		want := storage.ErrLockLost
		if i >= storage.MaxLost { // these ended first
			want = storage.ErrLockUnknown
		}
		if _, err := s.Lease(fmt.Sprint(i)); !errors.Is(err, want) {
			t.Errorf("lease %d: %v, want %v", i, err, want)
		}
	}
}
