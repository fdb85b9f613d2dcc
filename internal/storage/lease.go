package storage

import (
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// Lost is a lease that has expired. Only its token and its end are remembered.
type Lost struct {
	Token   string    `json:"token"`
	Expired time.Time `json:"expired"`
}

// Lease returns the lease that token has, or ErrLockLost or ErrLockUnknown.
func (s *State) Lease(token string) (Lease, error) {
	if h := s.leased(token); h != nil {
		return Lease{
			Parts: slices.Clone(h.Parts), Holder: h.Holder, Fence: h.Fence, Expires: h.Expires,
			Duration: time.Duration(h.DurationMillis) * time.Millisecond,
		}, nil
	}
	if s.lost(token) {
		return Lease{}, ErrLockLost
	}
	return Lease{}, ErrLockUnknown
}

// Renew lets the lease of token end after duration from now. That becomes the lease's own duration. 0 stands for the
// duration that it has already; if that is not known, nothing changes.
func (s *State) Renew(token string, duration time.Duration, now time.Time) (Lease, error) {
	if h := s.leased(token); h != nil {
		if duration > 0 {
			h.DurationMillis = millis(duration)
		} else {
			duration = time.Duration(h.DurationMillis) * time.Millisecond
		}
		if duration > 0 {
			h.Expires, h.Unconfirmed = now.Add(duration), false
			s.outlive()
		}
	}
	return s.Lease(token)
}

// millis rounds down to whole milliseconds, and is 1 at least.
func millis(d time.Duration) int64 { return max(d.Milliseconds(), 1) }

// outlive lets the cart live until the last lease on it has ended, so that a client changes the same cart that it was
// given with its lease, and until its last open checkout has expired, so that what was ordered can be taken from it. It
// is called when a lease begins or is renewed, and when the cart is given its whole TTL again. If a lease ends before
// its time, the later expiry stays.
func (s *State) outlive() {
	k := &s.Cart
	if !k.Exists() || k.ExpiresAt.IsZero() {
		return
	}
	if until := k.LivesUntil(); until.After(k.ExpiresAt) {
		k.ExpiresAt = until
	}
	for i := range s.Held {
		if h := &s.Held[i]; h.Leased && h.Expires.After(k.ExpiresAt) {
			// Times of a cart are in milliseconds. This rounds up, since the cart must not end before the lease.
			k.ExpiresAt = h.Expires.Add(time.Millisecond - 1).Truncate(time.Millisecond).UTC()
		}
	}
}

// Release gives back the lease of token, and returns the tokens of the waiters that this lets in.
func (s *State) Release(token string, now time.Time) (granted []string, err error) {
	if _, err := s.Lease(token); err != nil {
		return nil, err
	}
	return s.Abandon(token, now), nil
}

// GiveFences gives a fence to each lease that has none yet, in the order in which they were granted. next must return a
// number that is greater than all before.
func (s *State) GiveFences(next func() uint64) {
	for i := range s.Held {
		if h := &s.Held[i]; h.Leased && h.Fence == 0 {
			h.Fence = next()
		}
	}
}

// expire drops the locks that have ended. If such a lock was a lease whose token a client may have, the token is
// remembered. Tokens are in the order of the leases' ends, and the oldest are forgotten.
func (s *State) expire(now time.Time) {
	before := len(s.Lost)
	s.Held = slices.DeleteFunc(s.Held, func(h Hold) bool {
		ended := !now.Before(h.Expires)
		if ended && h.Leased && !h.Unconfirmed {
			s.Lost = append(s.Lost, Lost{h.Token, h.Expires})
		}
		return ended
	})
	if len(s.Lost) > before {
		slices.SortStableFunc(s.Lost, func(a, b Lost) int { return a.Expired.Compare(b.Expired) })
	}
	first := max(0, len(s.Lost)-MaxLost)
	for first < len(s.Lost) && !now.Before(s.Lost[first].Expired.Add(LeaseMemory)) {
		first++
	}
	s.Lost = s.Lost[first:]
}

// leased is the lease that token has; nil for none.
func (s *State) leased(token string) *Hold {
	for i := range s.Held {
		if h := &s.Held[i]; h.Token == token && h.Leased {
			return h
		}
	}
	return nil
}

func (s *State) lost(token string) bool {
	return slices.ContainsFunc(s.Lost, func(l Lost) bool { return l.Token == token })
}

// gather makes h one lease over all that its token holds. If the queue grants it more parts, the parts that it already
// holds do not end earlier.
func (s *State) gather(h *Hold) {
	h.Leased = true
	var parts []cart.Part
	ends, confirmed := h.Expires, !h.Unconfirmed
	s.Held = slices.DeleteFunc(s.Held, func(old Hold) bool {
		if old.Token != h.Token {
			return false
		}
		parts, h.Fence = append(parts, old.Parts...), max(h.Fence, old.Fence)
		if h.DurationMillis == 0 { // a turn by the lease's token leaves the lease's duration as it is
			h.DurationMillis = old.DurationMillis
		}
		if old.Expires.After(ends) {
			ends = old.Expires
		}
		confirmed = confirmed || old.Leased && !old.Unconfirmed
		return true
	})
	if h.Unconfirmed {
		h.Expires, h.Unconfirmed = ends, !confirmed
	}
	for _, p := range h.Parts {
		if !slices.Contains(parts, p) {
			parts = append(parts, p)
		}
	}
	if slices.Contains(parts, cart.PartAll) {
		parts = []cart.Part{cart.PartAll}
	}
	h.Parts = parts
	s.Lost = slices.DeleteFunc(s.Lost, func(l Lost) bool { return l.Token == h.Token })
}
