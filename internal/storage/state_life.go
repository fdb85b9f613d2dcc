package storage

import (
	"slices"
	"time"
)

// Empty reports whether nothing is left to store: a backend deletes such a record.
func (s *State) Empty() bool {
	return !s.Cart.Exists() && len(s.Held) == 0 && len(s.Queue) == 0 && len(s.Lost) == 0 && s.Fence == 0
}

// Exists reports whether there is a cart that has not expired at now.
func (s *State) Exists(now time.Time) bool {
	return s.Cart.Exists() && (s.Cart.ExpiresAt.IsZero() || now.Before(s.Cart.ExpiresAt))
}

// Ends is when nothing of the state counts any more unless somebody changes it: cart, locks, queue, and the memory of
// leases have all ended then. A backend may delete the record from that instant on, and not before. Zero means never.
func (s *State) Ends() time.Time {
	var end time.Time
	until := func(t time.Time) {
		if t.After(end) {
			end = t
		}
	}
	if s.Cart.Exists() {
		if s.Cart.ExpiresAt.IsZero() {
			return time.Time{}
		}
		until(s.Cart.ExpiresAt)
	}
	for i := range s.Held {
		switch h := &s.Held[i]; {
		case h.Leased && !h.Unconfirmed:
			until(h.Expires.Add(LeaseMemory))
		default:
			until(h.Expires)
		}
	}
	for i := range s.Queue { // a waiter may be granted its lock at the last moment of its life
		w := &s.Queue[i]
		until(w.Alive.Add(min(w.Duration, WaiterTTL)))
	}
	for i := range s.Lost {
		until(s.Lost[i].Expired.Add(LeaseMemory))
	}
	if s.Fence > 0 {
		until(fenceTime(s.Fence).Add(LeaseMemory))
	}
	return end
}

// NextFence is a fence for a backend that counts none itself. It is the time in microseconds, or one more than the last
// where the clock has not gone on since. So fences rise with the clock once the record has been deleted, and by
// themselves before that: the record outlives its last fence by [LeaseMemory], so clocks that differ by less than that
// make no fence smaller than an earlier one. Only after a flush does the clock alone decide.
func (s *State) NextFence(now time.Time) uint64 {
	s.Fence = max(s.Fence+1, uint64(now.UnixMicro()))
	return s.Fence
}

// fenceTime is when a fence of [State.NextFence] was given.
func fenceTime(fence uint64) time.Time { return time.UnixMicro(int64(fence)) }

// forgetFence drops the last fence when the clock has left it behind.
func (s *State) forgetFence(now time.Time) {
	if s.Fence > 0 && !now.Before(fenceTime(s.Fence).Add(LeaseMemory)) {
		s.Fence = 0
	}
}

// Clone returns a state that can be changed while s stays as it is.
func (s *State) Clone() State {
	c := *s
	c.Held, c.Queue, c.Lost = slices.Clone(s.Held), slices.Clone(s.Queue), slices.Clone(s.Lost)
	return c
}
