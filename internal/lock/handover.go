package lock

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// HandOver moves a cart into another: strategy says whether as a swap or a merge. A swap moves the cart itself, so the
// two names never show the same id, and no limit refuses it. ch.Verb is nil, and ch.If is about the source. Result.Cart
// is the target. Changed is false if there was nothing to move; then neither cart was touched. Moving a cart onto
// itself does nothing, with Changed false.
//
// ch.Lease is a lease on the source. The hand-over waits for another holder's lock on the target, or on a part of the
// source that the lease does not cover.
func (c *Coordinator) HandOver(ctx context.Context, from, to cart.Key, strategy cart.Strategy, ch Change) (Result, error) {
	if err := c.canLease(ch); err != nil {
		return Result{}, err
	}
	if err := c.enter(); err != nil {
		return Result{}, err
	}
	defer c.inFlight.Done()
	res, err := c.handOverQueued(ctx, from, to, strategy, ch)
	return res, c.noteLease(from, ch, err)
}

func (c *Coordinator) handOverQueued(ctx context.Context, from, to cart.Key, strategy cart.Strategy, ch Change) (Result, error) {
	if again, ok, err := c.lookUp(ctx, to, ch.Request); ok || err != nil { // a repeat waits for nobody
		return again, err
	}
	if from == to {
		k, err := c.read(ctx, from)
		if err == nil {
			err = ch.If.Check(k, cart.PartAll)
		}
		if err == nil {
			err = c.ifLeased(ctx, from, ch)
		}
		if err == nil {
			k, err = c.remember(ctx, from, k, ch.Request, false)
		}
		if err != nil {
			return Result{}, err
		}
		return Result{Cart: k}, nil
	}
	// It takes both queues, always in the same order, so that two hand-overs never wait for each other.
	first, second := from, to
	if to.Identifier < from.Identifier || to.Identifier == from.Identifier && to.Instance < from.Instance {
		first, second = to, from
	}
	var (
		res Result
		err error
	)
	ctx, cancel := context.WithTimeout(ctx, c.opts.Load().WaitTimeout+turnTTL)
	defer cancel()
	lease := map[cart.Key]string{from: ch.Lease}
	outer := c.exclusively(ctx, first, lease[first], func(context.Context) {
		if e := c.exclusively(ctx, second, lease[second], func(context.Context) {
			res, err = c.handOver(ctx, from, to, first, strategy, ch)
		}); e != nil {
			err = e
		}
	})
	if outer != nil {
		return Result{}, outer
	}
	return res, err
}

// exclusively runs f while nothing else of the key's queue is under way. f works under lease, "" for none.
func (c *Coordinator) exclusively(ctx context.Context, key cart.Key, lease string, f func(context.Context)) error {
	o := &op{Change: Change{Lease: lease}}
	o.exclusive = func(ctx context.Context) {
		f(ctx)
		o.answer(Result{}, nil)
	}
	_, err := c.submit(ctx, key, o)
	return err
}

// handOver has both queues.
func (c *Coordinator) handOver(ctx context.Context, from, to, first cart.Key, strategy cart.Strategy, ch Change) (Result, error) {
	t := c.newTransfer()
	if ch.Lease != "" {
		t.under, t.leased = ch, from
	}
	defer t.abandon()
	second := from
	if first == from {
		second = to
	}
	deadline := time.Now().Add(t.o.WaitTimeout)
	// A hand-over in several steps needs both turns from the start. One in a single step needs them only if somebody
	// holds a lock, or changed a cart first twice.
	turns := !c.store.Atomic(from, to)
	t.guesses = !turns
	for attempt := 0; ; attempt++ {
		if !time.Now().Before(deadline) {
			c.stats.timeouts.Add(1)
			return Result{}, storage.ErrLockTimeout
		}
		if turns {
			if err := t.takeTurns(ctx, deadline, first, second); err != nil {
				return Result{}, err
			}
		}
		res, status, err := t.try(ctx, from, to, strategy, ch)
		switch {
		case err != nil:
			c.cache.drop(from)
			c.cache.drop(to)
			return Result{}, err
		case status == storage.Committed:
			c.stats.changes.Add(1)
			return res, nil
		case status == storage.LockLost && ch.Lease != "":
			return Result{}, storage.ErrLockLost
		case status == storage.LockUnknown && ch.Lease != "":
			return Result{}, storage.ErrLockUnknown
		}
		if ch.Lease != "" && status == storage.Locked && turns { // parts of the source that the lease does not cover; no turn is taken for them
			if err := pause(ctx, attempt); err != nil {
				return Result{}, err
			}
		}
		turns = turns || status != storage.Conflict || attempt > 0
	}
}
