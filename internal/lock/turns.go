package lock

import (
	"context"
	"errors"
	"slices"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// dequeue takes out what is served next. That is a waiter that has its lock, with all changes that the lock covers.
// Otherwise it is the first changes that do not have to wait for a waiter or an earlier change. The shard must be
// locked.
func (c *Coordinator) dequeue(q *queue) (batch, bool) {
	for _, w := range slices.Clone(q.waiters) {
		if !w.granted {
			continue
		}
		q.waiters = slices.DeleteFunc(q.waiters, func(p *waiter) bool { return p == w })
		b := batch{ops: w.ops, token: w.claim.Token, view: w.cart}
		for _, o := range b.ops {
			o.running = true
		}
		c.gather(q, &b, func(o *op) bool { return !o.solo() && cart.Covers(w.claim.Parts, o.parts) })
		if len(b.ops) > 0 {
			return b, true
		}
		c.abandon(q.key, w.claim.Token)
	}
	var b batch
	c.gather(q, &b, func(*op) bool { return true })
	return b, len(b.ops) > 0
}

// gather moves pending ops to b in order. No op overtakes one that it overlaps. Ops that ask for a lease begin to wait
// for it. An op under a lease overtakes all others except those under the same lease, because the others may be waiting
// for that lease.
func (c *Coordinator) gather(q *queue, b *batch, wanted func(*op) bool) {
	var (
		ahead   cart.PartSet
		working cart.PartSet // parts of b
		passed  []string     // leases of ops that stay
	)
	for _, w := range q.waiters {
		ahead.Add(w.claim.Parts...)
	}
	for _, o := range b.ops {
		working.Add(o.parts...)
	}
	full := false
	leased := slices.ContainsFunc(q.pending, func(o *op) bool { return o.Lease != "" })
	q.exclusive = false
	q.pending = slices.DeleteFunc(q.pending, func(o *op) bool {
		if o.claim != nil {
			ready := !ahead.Overlaps(o.parts) && !working.Overlaps(o.parts)
			ahead.Add(o.parts...)
			if ready {
				c.awaitLease(q, o)
			}
			return ready
		}
		alone := o.solo() && len(b.ops) > 0
		behind := ahead.Overlaps(o.parts)
		switch {
		case o.Lease != "":
			behind = slices.Contains(passed, o.Lease)
		case o.exclusive != nil:
			behind = behind || leased // a hand-over may have to wait for that lease
		}
		if full || alone || !wanted(o) || behind {
			ahead.Add(o.parts...)
			passed = append(passed, o.Lease)
			return false
		}
		working.Add(o.parts...)
		o.running, q.exclusive = true, o.exclusive != nil
		b.ops = append(b.ops, o)
		full = o.solo() || len(b.ops) >= maxBatch
		return true
	})
}

// awaitTurn lets changes wait for a lock without blocking the rest of the queue. Without changes it keeps a place in
// the backend's queue for changes that arrive until the lock is granted. queued says that the claim is in the backend's
// queue already.
func (c *Coordinator) awaitTurn(q *queue, ops []*op, claim storage.Claim, queued bool) {
	ctx, cancel := context.WithCancel(callers(context.Background(), ops))
	w := &waiter{claim: claim, ops: ops, cancel: cancel}
	sh := c.shard(q.key)
	sh.mu.Lock()
	for _, o := range ops {
		o.running = false
	}
	q.waiters = append(q.waiters, w)
	sh.mu.Unlock()
	c.inFlight.Go(func() {
		defer cancel()
		c.acquire(ctx, sh, q, w, queued)
	})
}

// awaitLease lets an op wait for its lease. The shard must be locked.
func (c *Coordinator) awaitLease(q *queue, o *op) {
	ops := []*op{o}
	ctx, cancel := context.WithCancel(callers(context.Background(), ops))
	w := &waiter{claim: *o.claim, once: o.once, ops: ops, cancel: cancel}
	q.waiters = append(q.waiters, w)
	sh := c.shard(q.key)
	c.inFlight.Go(func() {
		defer cancel()
		c.acquire(ctx, sh, q, w, false)
	})
}

// leaveQueues gives up the places in backend queues that are kept for later changes.
func (c *Coordinator) leaveQueues() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		for _, q := range sh.queues {
			for _, w := range q.waiters {
				if len(w.ops) == 0 {
					w.cancel()
				}
			}
		}
		sh.mu.Unlock()
	}
}

// acquire waits for the waiter's lock. Then it serves the queue itself, unless another goroutine does. That saves a
// switch of goroutines.
func (c *Coordinator) acquire(ctx context.Context, sh *shard, q *queue, w *waiter, queued bool) {
	var grant storage.Grant
	err := c.tryOnce(ctx, q.key, w)
	if err == nil {
		grant, err = c.locker.Acquire(ctx, q.key, w.claim, queued)
	}
	sh.mu.Lock()
	switch {
	case !slices.Contains(q.waiters, w): // all changes of the waiter gave up
		if err == nil {
			c.abandon(q.key, w.claim.Token)
		}
	case err != nil:
		q.waiters = slices.DeleteFunc(q.waiters, func(p *waiter) bool { return p == w })
		for _, o := range w.ops {
			o.running = true
			if errors.Is(err, storage.ErrLockTimeout) {
				c.stats.timeouts.Add(1)
			}
			o.answer(Result{}, err)
		}
	case w.claim.Leased:
		q.waiters = slices.DeleteFunc(q.waiters, func(p *waiter) bool { return p == w })
		o := w.ops[0]
		o.running, o.grant = true, grant
		o.answer(Result{Cart: grant.Cart}, nil)
	default:
		c.stats.acquired.Add(1)
		w.granted, w.cart = true, grant.Cart
	}
	b, ok := c.dispatchable(sh, q)
	sh.mu.Unlock()
	if ok {
		c.drain(sh, q, b)
	}
}

// abandon gives back a lock that is not needed, in the background. If that fails, the lock ends with its TTL.
func (c *Coordinator) abandon(key cart.Key, token string) {
	c.inFlight.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), turnTTL)
		defer cancel()
		_ = c.locker.Abandon(ctx, key, token)
	})
}
