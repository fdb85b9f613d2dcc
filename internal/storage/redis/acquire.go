package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// How often a waiter polls if no wake-up will come. It begins quickly, since most locks are short, and slows down. The
// jitter keeps waiters apart.
const (
	pollMin  = 5 * time.Millisecond
	pollMax  = 25 * time.Millisecond
	pollLast = 50 * time.Millisecond
	// lostLease is what claim.lua replies in place of milliseconds to a claim whose lease was lost.
	lostLease = -2
	// leaveTimeout bounds how long it may take to give back a lock or a place when the caller has gone.
	leaveTimeout = 500 * time.Millisecond
)

// Acquire waits for a wake-up. The wake-up carries the cart, or makes Acquire claim again if the claim must be
// confirmed. It also asks by itself: once per heartbeat, when a lock before it ends, and often if another program holds
// the lock.
func (s *Store) Acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool) (storage.Grant, error) {
	if !s.begin() {
		return storage.Grant{}, s.translate(ctx, goredis.ErrClosed, "lock", key)
	}
	defer s.tasks.Done()
	w := s.waiters.join(claim.Token)
	defer s.waiters.leave(claim.Token)
	g, err := s.wait(ctx, key, &claim, w, !queued || !w.listening)
	if err == nil {
		return g, nil
	}
	switch {
	case s.isClosed():
		s.abandonNow(ctx, key, claim.Token) // Close waits for this call
		return storage.Grant{}, fmt.Errorf("redis: lock %s: %w", key, storage.ErrClosed)
	case errors.Is(ctx.Err(), context.Canceled):
		err = fmt.Errorf("redis: lock %s: %w", key, ctx.Err())
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("redis: lock %s: %w", key, storage.ErrLockTimeout)
	}
	s.abandonLater(ctx, key, claim.Token)
	return storage.Grant{}, err
}

// wait is the loop of Acquire. ask says that it begins with a claim: there is none yet, or it may have been granted
// before anybody listened.
func (s *Store) wait(ctx context.Context, key cart.Key, claim *storage.Claim, w *waiter, ask bool) (storage.Grant, error) {
	slow := pollMax
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ; ; ask = true {
		if err := ctx.Err(); err != nil {
			return storage.Grant{}, err
		}
		if ask {
			g, err := s.claim(ctx, key, claim)
			if err != nil {
				return storage.Grant{}, err
			}
			if g.yes {
				return s.grant(ctx, key, g)
			}
			w.outlook = g
		}
		if !w.listening && s.waiters.listen(ctx, s.client) == nil {
			w.listening = true
			continue // a wake-up before now would not have been heard, so ask again
		}
		delay := s.heartbeat
		if w.outlook.poll || !w.listening {
			delay = min(delay, jitter(pollMin, slow))
			slow = min(slow*5/4, pollLast)
		}
		if first := time.Duration(w.outlook.first) * time.Millisecond; first >= 0 {
			delay = min(delay, first+time.Millisecond) // a key still exists at the instant at which it ends
		}
		timer.Reset(delay)
		select {
		case g := <-w.wake:
			if !claim.Leased && claim.Duration <= s.life() && !s.confirms {
				return s.grant(ctx, key, g)
			}
			// A second claim brings the lease, or a place at the end of the queue if it is too late. A wake-up may be
			// late: it says that the lock was granted, not that it is still held, and not that replicas have the cart
			// that it carries.
		case <-timer.C:
		case <-ctx.Done():
		case <-s.done:
			return storage.Grant{}, storage.ErrClosed
		}
	}
}

// grant returns what was granted, with the cart. It reads the cart if the reply did not carry it.
func (s *Store) grant(ctx context.Context, key cart.Key, g granted) (storage.Grant, error) {
	grant := storage.Grant{Fence: g.fence, Expires: g.expires}
	var err error
	if g.flat == nil {
		grant.Cart, err = s.Load(ctx, key)
		return grant, err
	}
	grant.Cart, err = decodeCart(g.flat)
	return grant, s.translate(ctx, err, "lock", key)
}

// claim sends a claim, first or again.
func (s *Store) claim(ctx context.Context, key cart.Key, c *storage.Claim) (granted, error) {
	args := s.appendClaim(scriptArgs(claimScript, 7+len(c.Parts), s.lockKeys(key, c.Parts)...), c)
	if c.Leased {
		args = append(args, "f")
	} else {
		args = append(args, "")
	}
	reply, err := s.run(ctx, claimScript, args)
	if err != nil {
		return granted{}, s.translate(ctx, err, "lock", key)
	}
	g, err := decodeClaim(reply)
	if err == nil && g.first == lostLease {
		return granted{}, fmt.Errorf("redis: lock %s: %w", key, storage.ErrTooLate)
	}
	return g, s.translate(ctx, err, "lock", key)
}

// lockKeys are the four keys of a cart, and in a Cluster those of the parts and of the fence.
func (s *Store) lockKeys(key cart.Key, parts []cart.Part) []string {
	n := s.space.names(key)
	keys := append(make([]string, 0, 5+len(parts)), n.cart, n.index, n.queue, n.lock)
	if s.space.cluster {
		for _, p := range parts {
			keys = append(keys, n.lockKey(p))
		}
		keys = append(keys, n.fence)
	}
	return keys
}

// Abandon runs one script.
func (s *Store) Abandon(ctx context.Context, key cart.Key, token string) error {
	s.waiters.leave(token)
	return s.translate(ctx, s.abandon(ctx, key, token), "unlock", key)
}

func (s *Store) abandon(ctx context.Context, key cart.Key, token string) error {
	_, err := s.run(ctx, abandonScript, append(scriptArgs(abandonScript, 1, s.lockKeys(key, nil)...), token))
	return err
}

// abandonNow gives back what token has, for a caller that has gone. After an error, the lock ends by itself.
func (s *Store) abandonNow(ctx context.Context, key cart.Key, token string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	_ = s.abandon(ctx, key, token)
}

// abandonLater is abandonNow for a caller that must not wait.
func (s *Store) abandonLater(ctx context.Context, key cart.Key, token string) {
	if !s.begin() {
		return
	}
	go func() {
		defer s.tasks.Done()
		s.abandonNow(ctx, key, token)
	}()
}
