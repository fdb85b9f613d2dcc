package cell

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Acquire implements [storage.Locker]. A waiter reads the record, which disturbs no writer, and writes only to renew
// its place or to take a lock that ended by itself.
func (s *Store) Acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool) (storage.Grant, error) {
	w := waiter{store: s, key: key, claim: claim, queued: queued}
	g, granted, err := storage.Grant{}, false, error(nil)
	if !queued { // mostly it is granted at once, so there is no need to listen
		w.renew = time.Now().Add(storage.Heartbeat)
		g, granted, err = w.ask(ctx)
		w.queued = err == nil
	}
	if err == nil && !granted {
		w.wake = s.listen(claim.Token)
		defer s.unlisten(claim.Token)
		g, err = w.wait(ctx) // it looks first, since the claim may have been granted before it listened
	}
	if err == nil {
		return g, nil
	}
	if errors.Is(err, storage.ErrClosed) {
		return storage.Grant{}, fmt.Errorf("lock %q: %w", key, err)
	}
	if w.queued || errors.Is(err, ErrOutcomeUnknown) {
		// An error here does no harm: the place in the queue ends by itself.
		leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), storage.Heartbeat)
		defer cancel()
		_ = s.abandon(leave, key, claim.Token)
	}
	// The backend never answered, so nothing shows that a lock was held.
	if w.queued && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = storage.ErrLockTimeout
	}
	return storage.Grant{}, fmt.Errorf("lock %q: %w", key, err)
}

// waiter is an Acquire under way.
type waiter struct {
	store  *Store
	key    cart.Key
	claim  storage.Claim
	wake   <-chan struct{}
	queued bool          // the claim is in the queue
	ends   time.Duration // after this time a lock or a place in the record ends by itself
	renew  time.Time     // when its place is to be renewed; zero until a look has found it
	place  int           // how many stand before it in the queue
}

// How long the first in the queue pauses between two looks at the record if it cannot be notified. Each pause is longer
// than the last, until it is woken or the queue moves; then the shortest pause comes again. Those behind it pause
// longer, by their place: their turn is further off, and many waiters must not look more often than a few.
const (
	shortestPause = 2 * time.Millisecond
	longestPause  = 20 * time.Millisecond
)

func (w *waiter) wait(ctx context.Context) (storage.Grant, error) {
	shortest, longest := w.store.pauses()
	pause := shortest
	for {
		place := w.place
		heard := w.store.hears() // asked before it looks, so that it hears of all that happens after that
		g, granted, stale, err := w.look(ctx)
		if err == nil && !granted && (stale || !time.Now().Before(w.renew)) {
			w.renew = time.Now().Add(storage.Heartbeat)
			g, granted, err = w.ask(ctx)
		}
		if err != nil || granted {
			return g, err
		}
		if w.place < place {
			pause = shortest
		}
		woken, err := w.sleep(ctx, pause*time.Duration(1+w.place), heard)
		if err != nil {
			return storage.Grant{}, err
		}
		if pause = min(pause*3/2, longest); woken {
			pause = shortest
		}
	}
}

// sleep waits for the next look. heard means that the waiter is told when the record changes.
func (w *waiter) sleep(ctx context.Context, pause time.Duration, heard bool) (woken bool, err error) {
	// A lock that ends by itself, or a waiter that dies, wakes nobody.
	d := max(min(time.Until(w.renew), w.ends), 0)
	if !heard {
		d = min(d, pause/2+rand.N(pause))
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.wake:
		woken = true
	case <-timer.C:
	case <-ctx.Done():
	case <-w.store.closed:
		return false, storage.ErrClosed
	}
	return woken, ctx.Err()
}

// look reads whether the claim was granted, and the cart with it. stale means that a write is needed: a lock has ended
// by itself, the claim is no longer in the queue, or it was granted and must be claimed again.
func (w *waiter) look(ctx context.Context) (g storage.Grant, granted, stale bool, err error) {
	if err := w.store.enter(ctx); err != nil {
		return g, false, false, err
	}
	r, now, err := w.store.driver.Load(ctx, w.key, false)
	if err != nil {
		return g, false, false, err
	}
	held := storage.State{}
	for _, h := range r.State.Held {
		if now.Before(h.Expires) {
			held.Held = append(held.Held, h)
		}
	}
	if held.Holds(w.claim.Token, w.claim.Parts) {
		if w.claim.Confirms() {
			return g, false, true, nil
		}
		g = grant(&held, w.claim.Token)
		if r.Documents == nil { // they were left out, or there are none to be read
			g.Cart, err = w.store.load(ctx, w.key)
		} else {
			g.Cart, err = r.living(now)
		}
		return g, err == nil, false, err
	}
	r.State.Settle(now)
	w.ends = untilChange(&r.State, now)
	for w.place = range r.State.Queue {
		if q := &r.State.Queue[w.place]; q.Token == w.claim.Token {
			if w.renew.IsZero() { // a heartbeat after the commit that queued it
				w.renew = time.Now().Add(q.Alive.Sub(now) - (storage.WaiterTTL - storage.Heartbeat))
			}
			return g, false, false, nil
		}
	}
	return g, false, true, nil
}

// pauses are the shortest and the longest pause between two looks of the first in the queue.
func (s *Store) pauses() (shortest, longest time.Duration) {
	if p, ok := s.powers.(Pacer); ok {
		return p.Pauses()
	}
	return shortestPause, longestPause
}

// untilChange returns how long it takes until the first hold or place in the queue ends, unless it is renewed.
func untilChange(s *storage.State, now time.Time) time.Duration {
	d := storage.Heartbeat
	for i := range s.Held {
		d = min(d, s.Held[i].Expires.Sub(now))
	}
	for i := range s.Queue {
		d = min(d, s.Queue[i].Alive.Sub(now))
	}
	return d
}

// grant returns what token was granted, without the cart.
func grant(s *storage.State, token string) storage.Grant {
	lease, _ := s.Lease(token) // none for a turn
	return storage.Grant{Fence: lease.Fence, Expires: lease.Expires}
}

// ask takes the lock or a place in the queue, or renews the one that it has.
func (w *waiter) ask(ctx context.Context) (storage.Grant, bool, error) {
	// The variables that the change writes to are read only after the update has succeeded. If the outcome is unknown,
	// the change may still be running.
	got := new(struct {
		grant   storage.Grant
		granted bool
		ends    time.Duration
	})
	err := w.store.update(ctx, []cart.Key{w.key}, func(now time.Time, records []*Record) ([]string, error) {
		r := records[0]
		claimed := r.State.Acquire(w.claim, now)
		if !claimed.Granted && !claimed.Queued {
			return nil, storage.ErrTooLate
		}
		r.Save = true
		got.grant, got.granted, got.ends = storage.Grant{}, claimed.Granted, untilChange(&r.State, now)
		if !claimed.Granted {
			return nil, nil
		}
		if err := r.giveFences(now); err != nil {
			return nil, err
		}
		got.grant = grant(&r.State, w.claim.Token)
		c := r.State.Cart
		got.grant.Cart = &c
		return nil, r.fill(&c)
	})
	if err != nil {
		return storage.Grant{}, false, err
	}
	w.ends = got.ends
	return got.grant, got.granted, nil
}

// Abandon implements [storage.Locker].
func (s *Store) Abandon(ctx context.Context, key cart.Key, token string) error {
	if err := s.abandon(ctx, key, token); err != nil {
		return fmt.Errorf("abandon lock of %q: %w", key, err)
	}
	return nil
}

func (s *Store) abandon(ctx context.Context, key cart.Key, token string) error {
	return s.change(ctx, key, func(state *storage.State, now time.Time) ([]string, error) {
		return state.Abandon(token, now), nil
	})
}

// Lease implements [storage.Locker].
func (s *Store) Lease(ctx context.Context, key cart.Key, token string) (storage.Lease, error) {
	lease, err := s.lease(ctx, key, token)
	if err != nil {
		return storage.Lease{}, fmt.Errorf("look at lock of %q: %w", key, err)
	}
	return lease, nil
}

func (s *Store) lease(ctx context.Context, key cart.Key, token string) (lease storage.Lease, err error) {
	if err := s.enter(ctx); err != nil {
		return lease, err
	}
	r, now, err := s.driver.Load(ctx, key, false)
	if err != nil {
		return lease, err
	}
	r.State.Settle(now)
	lease, err = r.State.Lease(token)
	if err != nil || lease.Fence > 0 {
		return lease, err
	}
	// The lease was granted just now, since a lock ended by itself. It is stored, so that no other lease gets its
	// fence.
	var stored storage.Lease
	err = s.change(ctx, key, func(state *storage.State, _ time.Time) (_ []string, err error) {
		stored, err = state.Lease(token)
		return nil, err
	})
	if err != nil {
		return storage.Lease{}, err
	}
	return stored, nil
}

// Renew implements [storage.Locker].
func (s *Store) Renew(ctx context.Context, key cart.Key, token string, duration time.Duration) (storage.Lease, error) {
	var renewed storage.Lease
	err := s.change(ctx, key, func(state *storage.State, now time.Time) (_ []string, err error) {
		renewed, err = state.Renew(token, duration, now)
		return nil, err
	})
	if err != nil {
		return storage.Lease{}, fmt.Errorf("renew lock of %q: %w", key, err)
	}
	return renewed, nil
}

// Release implements [storage.Locker].
func (s *Store) Release(ctx context.Context, key cart.Key, token string) error {
	err := s.change(ctx, key, func(state *storage.State, now time.Time) ([]string, error) {
		return state.Release(token, now)
	})
	if err != nil {
		return fmt.Errorf("release lock of %q: %w", key, err)
	}
	return nil
}

// change changes the locks of a cart. All leases have their fences by then. If f fails, nothing is stored.
func (s *Store) change(ctx context.Context, key cart.Key, f func(state *storage.State, now time.Time) (granted []string, err error)) error {
	return s.update(ctx, []cart.Key{key}, func(now time.Time, records []*Record) ([]string, error) {
		r := records[0]
		if err := r.giveFences(now); err != nil {
			return nil, err
		}
		found := !r.State.Empty()
		granted, err := f(&r.State, now)
		r.Save = found || !r.State.Empty()
		return granted, err
	})
}
