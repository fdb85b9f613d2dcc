package moving

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// A lock is in the store where the cart counts. A lock in the old store is good until it ends, and keeps the cart
// there, since writing a marker takes a turn of the whole cart.

// Acquire implements [storage.Locker].
func (s *Store) Acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool) (storage.Grant, error) {
	for attempt := 0; ; attempt++ {
		var at backend
		var err error
		if queued {
			at, queued = s.queued.take(claim.Token)
		}
		if !queued {
			at, err = s.place(ctx, key)
		}
		if err == nil && at == s.new && claim.Leased && !queued && attempt == 0 { // else it may be this one that ended there
			if _, err = s.old.Lease(ctx, key, claim.Token); errors.Is(err, storage.ErrLockUnknown) {
				err = nil
			} else if errors.Is(err, storage.ErrLockLost) {
				err = storage.ErrTooLate
			}
		}
		if err != nil {
			return storage.Grant{}, fmt.Errorf("lock %q: %w", key, timedOut(ctx, err))
		}
		g, err := at.Acquire(ctx, key, claim, queued)
		if err != nil || !isMarked(g.Cart) {
			return g, err
		}
		// The cart moved while the claim waited.
		giveBack(ctx, at, key, claim.Token)
		queued = false
		if err := s.lookAgain(ctx, key, attempt); err != nil {
			return storage.Grant{}, fmt.Errorf("lock %q: %w", key, timedOut(ctx, err))
		}
	}
}

// timedOut is the error of a wait that has used up its time.
func timedOut(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return storage.ErrLockTimeout
	}
	return err
}

// Abandon implements [storage.Locker]. The token's locks may be in either store.
func (s *Store) Abandon(ctx context.Context, key cart.Key, token string) error {
	at, known := s.queued.take(token)
	err := s.new.Abandon(ctx, key, token)
	if !known && s.moved.has(key) || known && at == s.new {
		return err
	}
	return errors.Join(err, s.old.Abandon(ctx, key, token))
}

// Lease implements [storage.Locker].
func (s *Store) Lease(ctx context.Context, key cart.Key, token string) (lease storage.Lease, err error) {
	err = s.onLease(key, func(at backend) (err error) {
		lease, err = at.Lease(ctx, key, token)
		return err
	})
	return lease, err
}

// Renew implements [storage.Locker].
func (s *Store) Renew(ctx context.Context, key cart.Key, token string, duration time.Duration) (lease storage.Lease, err error) {
	err = s.onLease(key, func(at backend) (err error) {
		lease, err = at.Renew(ctx, key, token, duration)
		return err
	})
	return lease, err
}

// Release implements [storage.Locker].
func (s *Store) Release(ctx context.Context, key cart.Key, token string) error {
	return s.onLease(key, func(at backend) error { return at.Release(ctx, key, token) })
}

// onLease asks the store where the lease probably is, and if that does not know it, the other one.
func (s *Store) onLease(key cart.Key, ask func(at backend) error) error {
	first, second := s.old, s.new
	if s.moved.has(key) {
		first, second = s.new, s.old
	}
	err := ask(first)
	if errors.Is(err, storage.ErrLockUnknown) {
		err = ask(second)
	}
	return err
}
