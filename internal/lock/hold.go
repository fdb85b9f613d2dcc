package lock

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// MinHold is the least duration of a lease that is held by a call. The call renews the lease at every third of its
// duration, and each renewal is a write to the backend.
const MinHold = time.Second

// HoldLease takes a lease of at least [MinHold] and renews it until ctx ends, send fails or the coordinator closes.
// Then it gives the lease back at once. It calls send with the lease and the cart, and again for each renewal.
// HoldLease returns storage.ErrLockLost if the lease is lost, ErrDraining if the coordinator closes, and nil if the
// lease was released with its token through this sidecar. Otherwise it returns the error that ended it.
func (c *Coordinator) HoldLease(ctx context.Context, key cart.Key, r LeaseRequest, send func(Lease) error) error {
	if c.locker == nil {
		return errNoLeases
	}
	if err := c.enter(); err != nil { // Close waits until the lease is given back
		return err
	}
	defer c.inFlight.Done()
	r.Duration = max(MinHold, cmp.Or(r.Duration, c.opts.Load().LeaseDuration))
	r.Token = ""
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := c.acquireLease(ctx, key, r)
	if err != nil {
		return err
	}
	ends := time.Now().Add(r.Duration)
	released := c.leases.released(key, l.Token)
	if err = send(l); err == nil {
		err = c.keep(ctx, key, l, r.Duration, ends, released, send)
	}
	if err == nil || errors.Is(err, storage.ErrLockLost) || errors.Is(err, storage.ErrLockUnknown) {
		return err
	}
	back, cancelBack := context.WithTimeout(context.WithoutCancel(ctx), turnTTL)
	defer cancelBack()
	if e := c.locker.Release(back, key, l.Token); e == nil {
		c.leases.end(key, l.Token)
	}
	return err
}

// keep renews a lease at every third of its duration d, so that two renewals in a row may fail.
func (c *Coordinator) keep(ctx context.Context, key cart.Key, l Lease, d time.Duration, ends time.Time, released <-chan struct{}, send func(Lease) error) error {
	every := time.NewTicker(d / 3)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ending:
			return ErrDraining
		case <-released:
			return nil
		case <-every.C:
		}
		asked := time.Now()
		now, err := c.renewBefore(ctx, key, l.Token, d, ends)
		switch {
		case err == nil:
			ends = asked.Add(d)
			if err := send(now); err != nil {
				return err
			}
		case errors.Is(err, storage.ErrLockLost), errors.Is(err, storage.ErrLockUnknown):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(ends):
			// The backend has not answered for the whole life of the lease. The lease may have ended, so it may not
			// have protected what was done under it.
			return c.noteLease(key, Change{Lease: l.Token}, storage.ErrLockLost)
		}
	}
}

// renewBefore renews the lease, and waits for the answer until the next renewal or the lease's end at most.
func (c *Coordinator) renewBefore(ctx context.Context, key cart.Key, token string, d time.Duration, ends time.Time) (Lease, error) {
	until := time.Now().Add(max(d/3, MinLeaseDuration))
	if ends.After(time.Now()) && ends.Before(until) {
		until = ends
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return c.renewLease(ctx, key, token, d)
}
