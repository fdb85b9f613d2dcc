package storage

import (
	"maps"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// State is everything that a backend keeps under one cart's name: the cart, who holds locks on it, who waits for one,
// and which leases have expired lately. The zero value is that of a name that was never used.
//
// [Apply], [State.Acquire], [State.Abandon], [State.Lease], [State.Renew] and [State.Release] are the reference of what
// the contract means. Each backend has a source of fences of its own: it calls [State.GiveFences] on each state that it
// is about to store. A backend that reads a whole State, calls one of them and writes it back in one atomic step is
// right by construction. One that uses other means (Redis, by scripts) must be indistinguishable from it.
type State struct {
	Cart  cart.Cart
	Held  []Hold
	Queue []Waiter
	// Lost are the leases that have expired, oldest first.
	Lost []Lost
	// Fence is the last fence that [State.NextFence] gave. It is 0 if there is none, and if the backend counts fences
	// itself.
	Fence uint64
}

// Hold is a lock that is held. A turn may be several holds with different ends; a lease is one.
type Hold struct {
	Token   string      `json:"token"`
	Holder  string      `json:"holder,omitempty"`
	Parts   []cart.Part `json:"parts"`
	Expires time.Time   `json:"expires"`
	// Unconfirmed says that it was granted from the queue, and that its waiter has not claimed it again yet, as it must
	// ([Claim.Confirms]). No client has been given its token yet.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
	// Leased says that it is a client's lease, and Fence is its fence, once it has been given one.
	Leased bool   `json:"leased,omitempty"`
	Fence  uint64 `json:"fence,omitempty"`
	// DurationMillis is for how long a renewal without a duration renews a lease. It is 0 in a lease that an older
	// release of Sidecart wrote, which did not store it.
	DurationMillis int64 `json:"durationMillis,omitempty"`
}

// Waiter is a claim in the queue.
type Waiter struct {
	Claim
	// Alive is until when the waiter counts without another sign of life.
	Alive time.Time
}

// Heartbeat is how often a waiter renews its place in the queue. WaiterTTL is how long a place lasts that is not
// renewed. It is also the longest time for which a lock is granted from the queue before its waiter has claimed it
// again. So a dead waiter delays those behind it by no more than that, whatever duration it asked for.
const (
	Heartbeat = 250 * time.Millisecond
	WaiterTTL = 3 * Heartbeat
)

// Settle drops what has ended by now: an expired cart, expired locks, dead waiters, and leases that are no longer
// remembered. It then grants free locks in the order of the queue and returns the tokens of those it granted.
func (s *State) Settle(now time.Time) (granted []string) {
	if s.Cart.Exists() && !s.Exists(now) {
		s.Cart = cart.Cart{}
	}
	s.expire(now)
	s.forgetFence(now)
	s.Queue = slices.DeleteFunc(s.Queue, func(w Waiter) bool { return !now.Before(w.Alive) })
	return s.promote(now)
}

// promote grants locks, first come first served. A waiter passes those before it only if it shares no part with any of
// them.
func (s *State) promote(now time.Time) (granted []string) {
	var ahead []cart.Part
	s.Queue = slices.DeleteFunc(s.Queue, func(w Waiter) bool {
		if s.heldBy(w.Parts, w.Token) || cart.Overlap(ahead, w.Parts) {
			ahead = append(ahead, w.Parts...)
			return false
		}
		s.hold(w.Claim, now, true)
		granted = append(granted, w.Token)
		return true
	})
	return granted
}

// Apply makes the commits on their states, all or none: states[i] is that of commits[i].Key, settled. A state must be
// stored if its outcome is Committed or has something Claimed, and must not be stored otherwise.
//
// granted are the tokens of the waiters that a release let in.
func Apply(states []*State, commits []Commit, now time.Time) (outs []Outcome, granted []string) {
	outs = make([]Outcome, len(commits))
	failed := false
	for i, s := range states {
		outs[i] = s.check(&commits[i])
		failed = failed || outs[i].Status != Committed
	}
	for i, s := range states {
		c := &commits[i]
		switch {
		case failed && outs[i].Status == Committed:
			outs[i] = Outcome{Status: NotTried}
		case failed:
			if claim := c.Locks.Claim; claim != nil && outs[i].Status != LockLost && outs[i].Status != LockUnknown {
				outs[i].Claimed = s.Acquire(*claim, now)
				outs[i].Cart.ExpiresAt = s.Cart.ExpiresAt // it outlives a lease that was granted
			}
		default:
			outs[i] = s.write(&c.Change, now)
			if l := &c.Locks; l.Release && l.Token != "" {
				next := s.Abandon(l.Token, now)
				if l.Again != nil && len(next) > 0 {
					outs[i].Claimed = s.Acquire(*l.Again, now)
				}
				granted = append(granted, next...)
			}
			outs[i].ExpiresAt = s.Cart.ExpiresAt // set last, since the release may have granted a lease, which the cart outlives
		}
	}
	return outs, granted
}

// Outdates reports whether the commit is to be computed anew: it would end in a conflict, and its caller can compute it
// again from the present cart.
func (s *State) Outdates(c *Commit) bool {
	return c.Anew != nil && s.Cart.Transfer == nil && s.check(c).Status == Conflict
}

// check tells how a commit would end, and changes nothing.
func (s *State) check(c *Commit) Outcome {
	l := &c.Locks
	if l.MustHold && !slices.ContainsFunc(s.Held, func(h Hold) bool { return h.Token == l.Token }) {
		if s.lost(l.Token) {
			return Outcome{Status: LockLost}
		}
		return Outcome{Status: LockUnknown}
	}
	if s.heldBy(l.Parts, l.Token) {
		return Outcome{Status: Locked, Cart: s.snapshot()}
	}
	if !c.Expect.holds(&s.Cart) || s.Cart.Transfer != nil && !c.Change.writes(cart.PartTransfer) {
		return Outcome{Status: Conflict, Cart: s.snapshot()}
	}
	return Outcome{Status: Committed}
}

func (c *Change) writes(p cart.Part) bool {
	return slices.ContainsFunc(c.Writes, func(w Write) bool { return w.Part == p })
}

func (e *Expect) holds(c *cart.Cart) bool {
	if e.ID != c.ID || e.Version != 0 && e.Version != c.Version {
		return false
	}
	parts := slices.Collect(maps.Keys(e.Parts))
	for i, v := range c.PartVersions(parts) {
		if e.Parts[parts[i]] != v {
			return false
		}
	}
	return true
}

func (s *State) write(c *Change, now time.Time) Outcome {
	now = now.UTC().Truncate(time.Millisecond)
	out := Outcome{Status: Committed, ID: s.Cart.ID, Base: s.Cart.Version}
	if c.Forget {
		s.Cart = cart.Cart{}
		return out
	}
	k := &s.Cart
	if c.Place != nil {
		*k = *c.Place
		if !c.Keep {
			k.UpdatedAt = now
		}
	}
	if c.Steps > 0 {
		if !k.Exists() {
			k.ID, k.CreatedAt = c.NewID, now
		}
		k.Version += c.Steps
		k.UpdatedAt = now
	}
	written := make([]cart.Written, len(c.Writes))
	for i, w := range c.Writes {
		written[i] = cart.Written{Part: w.Part, Value: w.Value, Version: out.Base + w.Step}
		if w.Part == cart.PartLedger {
			written[i].Version = w.Step
		}
	}
	_ = k.StoreParts(written) // values come from a Draft
	if k.Exists() && c.Any() {
		if !c.Keep {
			k.ExpiresAt = time.Time{}
			if c.TTL > 0 {
				k.ExpiresAt = now.Add(c.TTL)
			}
		}
		s.outlive()
	}
	out.ID, out.CreatedAt, out.UpdatedAt = k.ID, k.CreatedAt, k.UpdatedAt
	return out
}

// Acquire grants the claim or puts it in the queue. If the token already holds the parts, their lock lives for the
// whole duration again. Other parts of a turn keep their own end; a lease has one end for all of its parts. A token
// that already waits keeps its place.
//
// A claim for a lease that is lost is neither granted nor queued. Such a claim was under way for longer than the lease
// lived. If it were granted, the holder of the token would find it valid again after others have had the lock.
func (s *State) Acquire(c Claim, now time.Time) Claimed {
	if s.Holds(c.Token, c.Parts) {
		if !c.Leased && s.leased(c.Token) == nil {
			s.letGo(c.Token, c.Parts)
		}
		s.hold(c, now, false)
		return Claimed{Granted: true}
	}
	if c.Leased && s.lost(c.Token) {
		return Claimed{}
	}
	alive := now.Add(WaiterTTL)
	for i := range s.Queue {
		if s.Queue[i].Token == c.Token {
			s.Queue[i].Alive = alive
			return Claimed{Queued: true}
		}
	}
	for _, w := range s.Queue {
		if cart.Overlap(w.Parts, c.Parts) {
			s.Queue = append(s.Queue, Waiter{c, alive})
			return Claimed{Queued: true}
		}
	}
	if s.heldBy(c.Parts, c.Token) {
		s.Queue = append(s.Queue, Waiter{c, alive})
		return Claimed{Queued: true}
	}
	s.hold(c, now, false)
	return Claimed{Granted: true}
}

// Abandon gives back the locks of token and its place in the queue, and returns the tokens of the waiters that this
// lets in.
func (s *State) Abandon(token string, now time.Time) (granted []string) {
	s.Held = slices.DeleteFunc(s.Held, func(h Hold) bool { return h.Token == token })
	s.Queue = slices.DeleteFunc(s.Queue, func(w Waiter) bool { return w.Token == token })
	return s.promote(now)
}

// Holds reports whether token holds all of parts.
func (s *State) Holds(token string, parts []cart.Part) bool {
	var held []cart.Part
	for _, h := range s.Held {
		if h.Token == token {
			held = append(held, h.Parts...)
		}
	}
	return len(held) > 0 && cart.Covers(held, parts)
}

// letGo takes parts out of what token holds. What it holds of the whole cart stays, unless parts are the whole cart.
func (s *State) letGo(token string, parts []cart.Part) {
	s.Held = slices.DeleteFunc(s.Held, func(h Hold) bool { return h.Token == token && cart.Covers(parts, h.Parts) })
	for i := range s.Held {
		if h := &s.Held[i]; h.Token == token {
			h.Parts = slices.DeleteFunc(slices.Clone(h.Parts), func(p cart.Part) bool { return slices.Contains(parts, p) })
		}
	}
}

// hold grants a claim. The waiter of a claim that comes from the queue may have died since its last sign of life. So
// the lock is short, until the waiter has claimed it again.
func (s *State) hold(c Claim, now time.Time, queued bool) {
	h := Hold{Token: c.Token, Holder: c.Holder, Parts: c.Parts, Expires: now.Add(c.Duration), Leased: c.Leased}
	if c.Leased {
		h.DurationMillis = millis(c.Duration)
	}
	if queued && c.Confirms() {
		h.Expires, h.Unconfirmed = now.Add(min(c.Duration, WaiterTTL)), true
	}
	if c.Leased || s.leased(c.Token) != nil {
		s.gather(&h)
	}
	s.Held = append(s.Held, h)
	s.outlive()
}

// heldBy reports whether somebody other than token holds any of parts.
func (s *State) heldBy(parts []cart.Part, token string) bool {
	return slices.ContainsFunc(s.Held, func(h Hold) bool { return h.Token != token && cart.Overlap(h.Parts, parts) })
}

func (s *State) snapshot() *cart.Cart {
	c := s.Cart
	return &c
}
