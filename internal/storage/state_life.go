package storage

import (
	"slices"
	"time"
)

// Empty reports whether nothing is left to store. A backend deletes such a record.
func (s *State) Empty() bool {
	return !s.Cart.Exists() && len(s.Held) == 0 && len(s.Queue) == 0 && len(s.Lost) == 0 && s.Fence == 0
}

// Exists reports whether there is a cart that has not expired at now.
func (s *State) Exists(now time.Time) bool {
	return s.Cart.Exists() && (s.Cart.ExpiresAt.IsZero() || now.Before(s.Cart.ExpiresAt))
}

// Ends returns when cart, locks, queue and the memory of leases have all ended, unless somebody changes the state
// before. A backend may delete the record from that instant on, and not before. Zero means never.
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
	for i := range s.Queue { // a waiter may be granted its lock just before its place ends
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

// NextFence returns a fence for a backend that has no counter of its own. It is the time in microseconds, or one more
// than the last fence if the clock has not passed that. The record outlives its last fence by [LeaseMemory]. So clocks
// that differ by less than that never make a fence smaller than an earlier one. After a flush the clock alone decides.
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
