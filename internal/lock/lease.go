package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Bounds of a lease's duration. The least is longer than a round trip, so that a granted lease can be used.
const (
	MinLeaseDuration = 10 * time.Millisecond
	MaxLeaseDuration = time.Hour
)

// tryTime bounds an acquisition with Wait 0. It still waits for the backend and for changes that are under way in this
// sidecar.
const tryTime = storage.Heartbeat

// errHeld says that a change under a lease met a lock over parts that the lease does not cover.
var errHeld = errors.New("parts outside of the lease are locked")

// LeaseRequest asks for a lease.
type LeaseRequest struct {
	// Parts are what to lock, all at once or not at all. PartAll, alone, is the whole cart.
	Parts []cart.Part
	// Wait is the longest wait. 0 waits for nobody, and a negative value means the configured wait time.
	Wait time.Duration
	// Duration is how long the lease lives unless it is renewed. 0 means the configured duration, or, with Token, the
	// lease's own.
	Duration time.Duration
	// Holder is shown to people; "" means this sidecar.
	Holder string
	// Token, if not "", names a lease that holds Parts already. All of it is renewed, and it keeps its fence.
	Token string
}

// Lease is a lease that was granted.
type Lease struct {
	// Token is the proof of holding the lease. It is a secret: anybody who has it can use the lock.
	Token string
	storage.Lease
	// Cart is the state under the lease; nil if it was not asked for.
	Cart *cart.Cart
}

// AcquireLease waits for a lease and returns it with the cart as it is under the lease. Within a sidecar, leases and
// changes of the same parts are served in order of arrival. Each sidecar asks the backend for the first of its own, and
// the backend serves the sidecars in the order in which they asked.
func (c *Coordinator) AcquireLease(ctx context.Context, key cart.Key, r LeaseRequest) (Lease, error) {
	if c.locker == nil {
		return Lease{}, errNoLeases
	}
	if err := c.enter(); err != nil {
		return Lease{}, err
	}
	defer c.inFlight.Done()
	if r.Token != "" {
		return c.reenter(ctx, key, r)
	}
	return c.acquireLease(ctx, key, r)
}

// acquireLease takes a new lease.
func (c *Coordinator) acquireLease(ctx context.Context, key cart.Key, r LeaseRequest) (Lease, error) {
	o := c.opts.Load()
	r.Duration = cmp.Or(r.Duration, o.LeaseDuration)
	start := time.Now()
	op := &op{claim: &storage.Claim{
		Token: storage.NewToken(), Holder: cmp.Or(r.Holder, o.Holder), Parts: r.Parts, Duration: r.Duration, Leased: true,
	}}
	switch {
	case r.Wait == 0:
		op.once, op.expires = true, start.Add(tryTime)
	case r.Wait > 0:
		op.expires = start.Add(r.Wait)
	}
	seen := c.cache.stamp(key)
	res, err := c.submit(ctx, key, op)
	if err != nil {
		if errors.Is(err, storage.ErrLockTimeout) {
			c.stats.leaseTimeouts.Add(1)
		}
		return Lease{}, err
	}
	token := op.claim.Token
	if ctx.Err() != nil { // the caller has gone, so nobody would learn the token
		c.abandon(key, token)
		return Lease{}, ctx.Err()
	}
	l := Lease{Token: token, Cart: res.Cart, Lease: storage.Lease{
		Parts: op.claim.Parts, Holder: op.claim.Holder, Fence: op.grant.Fence, Expires: op.grant.Expires,
		Duration: r.Duration,
	}}
	if l.Cart.Transfer != nil {
		if l.Cart, err = c.read(ctx, key); err != nil {
			c.abandon(key, token)
			return Lease{}, err
		}
	} else {
		c.cache.offer(key, l.Cart, seen)
	}
	c.stats.leasesGranted.Add(1)
	c.leases.add(key, l, r.Duration)
	return l, nil
}

var errNoLeases = fmt.Errorf("leases are %w", storage.ErrUnsupported)

// tryOnce checks that the parts are free, for an op that must not wait. If somebody takes them after the check, the op
// waits at most tryTime.
func (c *Coordinator) tryOnce(ctx context.Context, key cart.Key, g *waiter) error {
	if !g.once {
		return nil
	}
	outs, err := c.store.Commit(ctx, storage.Commit{Key: key, Locks: storage.Locks{Parts: g.claim.Parts}})
	if err == nil && outs[0].Status == storage.Locked {
		err = storage.ErrLockTimeout
	}
	return err
}

// reenter renews a lease that already holds the requested parts. It first asks the backend what the lease holds, unless
// the lease was acquired here: the parts of a lease never change.
func (c *Coordinator) reenter(ctx context.Context, key cart.Key, r LeaseRequest) (Lease, error) {
	if !cart.Covers(c.leases.parts(key, r.Token), r.Parts) {
		l, err := c.lease(ctx, key, r.Token)
		if err != nil {
			return Lease{}, err
		}
		if !cart.Covers(l.Parts, r.Parts) {
			return Lease{}, cart.Invalidf("parts", "the lease holds only %s: release it and take all at once", names(l.Parts))
		}
	}
	l, err := c.renewLease(ctx, key, r.Token, r.Duration)
	if err != nil {
		return Lease{}, err
	}
	l.Cart, err = c.read(ctx, key) // after the renewal, so nobody else can have changed these parts since
	return l, err
}

func names(parts []cart.Part) string {
	quoted := make([]string, len(parts))
	for i, p := range parts {
		quoted[i] = fmt.Sprintf("%q", string(p))
	}
	return strings.Join(quoted, ", ")
}

// Lease returns the state of a lease.
func (c *Coordinator) Lease(ctx context.Context, key cart.Key, token string) (Lease, error) {
	if err := c.enter(); err != nil {
		return Lease{}, err
	}
	defer c.inFlight.Done()
	return c.lease(ctx, key, token)
}

func (c *Coordinator) lease(ctx context.Context, key cart.Key, token string) (Lease, error) {
	return c.onLease(key, token, func() (storage.Lease, error) { return c.locker.Lease(ctx, key, token) })
}

// RenewLease makes a lease end d from now. d becomes the duration of the lease; 0 means the duration that it has.
func (c *Coordinator) RenewLease(ctx context.Context, key cart.Key, token string, d time.Duration) (Lease, error) {
	if err := c.enter(); err != nil {
		return Lease{}, err
	}
	defer c.inFlight.Done()
	return c.renewLease(ctx, key, token, d)
}

func (c *Coordinator) renewLease(ctx context.Context, key cart.Key, token string, d time.Duration) (Lease, error) {
	l, err := c.onLease(key, token, func() (storage.Lease, error) {
		l, err := c.locker.Renew(ctx, key, token, d)
		if err == nil && l.Duration == 0 { // an older release made it and did not store its duration
			l, err = c.locker.Renew(ctx, key, token, c.opts.Load().LeaseDuration)
		}
		return l, err
	})
	if err == nil {
		c.leases.renew(key, l)
	}
	return l, err
}

// ReleaseLease gives a lease back and wakes the next.
func (c *Coordinator) ReleaseLease(ctx context.Context, key cart.Key, token string) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.inFlight.Done()
	_, err := c.onLease(key, token, func() (storage.Lease, error) { return storage.Lease{}, c.locker.Release(ctx, key, token) })
	if err == nil {
		c.leases.end(key, token)
	}
	return err
}

// onLease asks the backend about one lease by calling ask.
func (c *Coordinator) onLease(key cart.Key, token string, ask func() (storage.Lease, error)) (Lease, error) {
	if err := c.canLease(Change{Lease: token}); err != nil {
		return Lease{}, err
	}
	l, err := ask()
	if err != nil {
		return Lease{}, c.noteLease(key, Change{Lease: token}, err)
	}
	if slices.Contains(l.Parts, cart.PartAll) {
		l.Parts = []cart.Part{cart.PartAll}
	}
	return Lease{Token: token, Lease: l}, nil
}

// canLease refuses what cannot be a lease, before the backend is asked.
func (c *Coordinator) canLease(ch Change) error {
	switch {
	case ch.Lease == "":
		return nil
	case c.locker == nil:
		return errNoLeases
	case !isToken(ch.Lease):
		return storage.ErrLockUnknown
	}
	return nil
}

// isToken reports whether NewToken could have made the token.
func isToken(token string) bool {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return len(token) == 22 && strings.Trim(token, alphabet) == ""
}

// noteLease updates the list of leases and the counters after a call under a lease, and returns err.
func (c *Coordinator) noteLease(key cart.Key, ch Change, err error) error {
	switch {
	case ch.Lease == "":
	case errors.Is(err, storage.ErrLockLost):
		c.stats.leasesLost.Add(1)
		c.leases.end(key, ch.Lease)
	case err == nil && ch.Release, errors.Is(err, storage.ErrLockUnknown):
		c.leases.end(key, ch.Lease)
	}
	return err
}

// ifLeased ends a change that alters nothing and needs no commit. It checks that the lease is still held, and gives it
// back if that was asked for.
func (c *Coordinator) ifLeased(ctx context.Context, key cart.Key, ch Change) (err error) {
	switch {
	case ch.Lease == "":
	case ch.Release:
		err = c.locker.Release(ctx, key, ch.Lease)
	default:
		_, err = c.locker.Lease(ctx, key, ch.Lease)
	}
	return err
}
