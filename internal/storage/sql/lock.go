package sql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Acquire implements [storage.Locker]. While it waits it reads the row every few
// milliseconds, which disturbs no writer, and writes only to renew its place or
// to take a lock that ended by itself.
func (s *Store) Acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool) (storage.Grant, error) {
	wake := s.listen(claim.Token)
	defer s.unlisten(claim.Token)
	g, queued, err := s.acquire(ctx, key, claim, queued, wake)
	if err == nil {
		return g, nil
	}
	if errors.Is(err, storage.ErrClosed) {
		return storage.Grant{}, fmt.Errorf("lock %q: %w", key, err)
	}
	if queued || errors.Is(err, errUnknown) {
		// What fails here dies with the place in the queue.
		leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), storage.Heartbeat)
		defer cancel()
		_ = s.Abandon(leave, key, claim.Token)
	}
	// A database that never answered is no lock that was held.
	if queued && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = storage.ErrLockTimeout
	}
	return storage.Grant{}, fmt.Errorf("lock %q: %w", key, err)
}

// acquire waits for the lock, and says whether the claim is in the queue.
func (s *Store) acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool, wake <-chan struct{}) (storage.Grant, bool, error) {
	const shortest, longest = 2 * time.Millisecond, 20 * time.Millisecond
	var renew time.Time // a place that a commit took is renewed at once, since some of its life has passed
	pause := shortest
	for {
		var (
			g       storage.Grant
			granted bool
			err     error
		)
		stale := !queued
		if queued {
			g, granted, stale, err = s.look(ctx, key, claim)
		}
		if err == nil && !granted && (stale || !time.Now().Before(renew)) {
			renew = time.Now().Add(storage.Heartbeat)
			g, granted, err = s.claim(ctx, key, claim)
			queued = queued || err == nil
		}
		if err != nil || granted {
			return g, queued, err
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-wake:
			pause = shortest
		case <-timer.C:
			pause = min(pause*3/2, longest)
		case <-ctx.Done():
		case <-s.closed:
			err = storage.ErrClosed
		}
		timer.Stop()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return storage.Grant{}, queued, err
		}
	}
}

// look reads whether the claim was granted, and the cart with it. stale means that it
// takes a write: the lock has ended by itself, the claim is not in the queue any more, or it was
// granted and must be claimed again.
func (s *Store) look(ctx context.Context, key cart.Key, claim storage.Claim) (g storage.Grant, granted, stale bool, err error) {
	r, err := s.row(ctx, key, false)
	if err != nil {
		return g, false, false, err
	}
	now := time.Now()
	held := storage.State{}
	for _, h := range r.state.Held {
		if now.Before(h.Expires) {
			held.Held = append(held.Held, h)
		}
	}
	if held.Holds(claim.Token, claim.Parts) {
		if claim.Confirms() {
			return g, false, true, nil
		}
		g = grant(&held, claim.Token)
		g.Cart, err = s.Load(ctx, key)
		return g, err == nil, false, err
	}
	r.state.Settle(now)
	stale = true
	for _, w := range r.state.Queue {
		if w.Token == claim.Token {
			stale = false
		}
	}
	return g, false, stale, nil
}

// grant is what token was granted, but for the cart.
func grant(s *storage.State, token string) storage.Grant {
	lease, _ := s.Lease(token) // none for a turn
	return storage.Grant{Fence: lease.Fence, Expires: lease.Expires}
}

// claim takes the lock, or the place in the queue, or renews either.
func (s *Store) claim(ctx context.Context, key cart.Key, claim storage.Claim) (storage.Grant, bool, error) {
	ctx, cancel := bounded(ctx, s.write)
	defer cancel()
	var (
		c      cart.Cart
		got    storage.Claimed
		others []string
		row    *record
	)
	err := s.engine.update(ctx, []cart.Key{key}, func(rows []*record) error {
		r, now := rows[0], time.Now()
		others = r.state.Settle(now)
		got = r.state.Acquire(claim, now)
		if !got.Granted && !got.Queued {
			return storage.ErrTooLate
		}
		r.save, row = true, r
		if !got.Granted {
			return nil
		}
		c = r.state.Cart
		return r.fill(&c)
	})
	if err != nil {
		return storage.Grant{}, false, err
	}
	s.wake(others)
	if !got.Granted {
		return storage.Grant{}, false, nil
	}
	g := grant(&row.state, claim.Token) // with the fence that it was given when it was stored
	g.Cart = &c
	return g, true, nil
}

// Abandon implements [storage.Locker].
func (s *Store) Abandon(ctx context.Context, key cart.Key, token string) error {
	err := s.change(ctx, key, func(state *storage.State, now time.Time) ([]string, error) {
		return state.Abandon(token, now), nil
	})
	if err != nil {
		return fmt.Errorf("abandon lock of %q: %w", key, err)
	}
	return nil
}

// Lease implements [storage.Locker].
func (s *Store) Lease(ctx context.Context, key cart.Key, token string) (storage.Lease, error) {
	r, err := s.row(ctx, key, false)
	if err != nil {
		return storage.Lease{}, fmt.Errorf("look at lock of %q: %w", key, err)
	}
	r.state.Settle(time.Now())
	lease, err := r.state.Lease(token)
	if err == nil && lease.Fence == 0 { // its turn has come just now, but nobody has stored that yet
		err = storage.ErrLockUnknown
	}
	if err != nil {
		return storage.Lease{}, fmt.Errorf("look at lock of %q: %w", key, err)
	}
	return lease, nil
}

// Renew implements [storage.Locker].
func (s *Store) Renew(ctx context.Context, key cart.Key, token string, lease time.Duration) (storage.Lease, error) {
	var renewed storage.Lease
	err := s.change(ctx, key, func(state *storage.State, now time.Time) (_ []string, err error) {
		renewed, err = state.Renew(token, lease, now)
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

// change changes the locks of a cart, and wakes those whom this lets in. An error stores nothing.
func (s *Store) change(ctx context.Context, key cart.Key, f func(state *storage.State, now time.Time) (granted []string, err error)) error {
	ctx, cancel := bounded(ctx, s.write)
	defer cancel()
	var granted []string
	err := s.engine.update(ctx, []cart.Key{key}, func(rows []*record) error {
		r, now := rows[0], time.Now()
		granted = r.state.Settle(now)
		let, err := f(&r.state, now)
		granted = append(granted, let...)
		r.save = r.found
		return err
	})
	if err != nil {
		return err
	}
	s.wake(granted)
	return nil
}

// listen makes the channel by which a release in this process wakes the token.
func (s *Store) listen(token string) <-chan struct{} {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[token] = ch
	return ch
}

func (s *Store) unlisten(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, token)
}

func (s *Store) wake(tokens []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, token := range tokens {
		if ch := s.waiting[token]; ch != nil {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
}
