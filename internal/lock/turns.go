package lock

import (
	"context"
	"errors"
	"slices"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// next takes out what is to be served next: a group whose lock has come, with
// all that the lock covers; else the first changes that no waiting group and no
// earlier change holds up. The shard is locked.
func (c *Coordinator) next(l *line) (batch, bool) {
	for _, g := range slices.Clone(l.parked) {
		if !g.granted {
			continue
		}
		l.parked = slices.DeleteFunc(l.parked, func(p *group) bool { return p == g })
		b := batch{ops: g.ops, token: g.claim.Token, view: g.cart}
		for _, o := range b.ops {
			o.running = true
		}
		c.take(l, &b, func(o *op) bool { return !o.solo() && cart.Covers(g.claim.Parts, o.parts) })
		if len(b.ops) > 0 {
			return b, true
		}
		c.abandon(l.key, g.claim.Token)
	}
	var b batch
	c.take(l, &b, func(*op) bool { return true })
	return b, len(b.ops) > 0
}

// take moves pending ops to b, in order, none before one it overlaps, and lets those that
// ask for a lease begin to wait for it. What is done under a lease passes everybody but those under
// the same lease: those it passes may be waiting for that lease.
func (c *Coordinator) take(l *line, b *batch, wanted func(*op) bool) {
	var (
		ahead   cart.PartSet
		working cart.PartSet // parts of b
		passed  []string     // leases of ops that stay
	)
	for _, g := range l.parked {
		ahead.Add(g.claim.Parts...)
	}
	for _, o := range b.ops {
		working.Add(o.parts...)
	}
	full := false
	leased := slices.ContainsFunc(l.pending, func(o *op) bool { return o.Lease != "" })
	l.exclusive = false
	l.pending = slices.DeleteFunc(l.pending, func(o *op) bool {
		if o.claim != nil {
			ready := !ahead.Overlaps(o.parts) && !working.Overlaps(o.parts)
			ahead.Add(o.parts...)
			if ready {
				c.launch(l, o)
			}
			return ready
		}
		alone := o.solo() && len(b.ops) > 0
		behind := ahead.Overlaps(o.parts)
		switch {
		case o.Lease != "":
			behind = slices.Contains(passed, o.Lease)
		case o.exclusive != nil:
			behind = behind || leased // it may have to wait for that lease
		}
		if full || alone || !wanted(o) || behind {
			ahead.Add(o.parts...)
			passed = append(passed, o.Lease)
			return false
		}
		working.Add(o.parts...)
		o.running, l.exclusive = true, o.exclusive != nil
		b.ops = append(b.ops, o)
		full = o.solo() || len(b.ops) >= maxBatch
		return true
	})
}

// park lets changes wait for a lock without holding up the rest of the line, or
// keeps the place for those that will come until then. queued says that the
// claim stands in the backend's queue already.
func (c *Coordinator) park(l *line, ops []*op, claim storage.Claim, queued bool) {
	ctx, cancel := context.WithCancel(context.Background())
	g := &group{claim: claim, ops: ops, cancel: cancel}
	sh := c.shard(l.key)
	sh.mu.Lock()
	for _, o := range ops {
		o.running = false
	}
	l.parked = append(l.parked, g)
	sh.mu.Unlock()
	c.inFlight.Go(func() {
		defer cancel()
		c.acquire(ctx, sh, l, g, queued)
	})
}

// launch lets an op wait for its lease. The shard is locked.
func (c *Coordinator) launch(l *line, o *op) {
	ctx, cancel := context.WithCancel(context.Background())
	g := &group{claim: *o.claim, once: o.once, ops: []*op{o}, cancel: cancel}
	l.parked = append(l.parked, g)
	sh := c.shard(l.key)
	c.inFlight.Go(func() {
		defer cancel()
		c.acquire(ctx, sh, l, g, false)
	})
}

// leaveQueues gives up the places that nobody waits at yet.
func (c *Coordinator) leaveQueues() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		for _, l := range sh.lines {
			for _, g := range l.parked {
				if len(g.ops) == 0 {
					g.cancel()
				}
			}
		}
		sh.mu.Unlock()
	}
}

// acquire waits for the group's lock and then serves the line itself, since it is
// awake, unless somebody does.
func (c *Coordinator) acquire(ctx context.Context, sh *shard, l *line, g *group, queued bool) {
	var grant storage.Grant
	err := c.tryOnce(ctx, l.key, g)
	if err == nil {
		grant, err = c.locker.Acquire(ctx, l.key, g.claim, queued)
	}
	sh.mu.Lock()
	switch {
	case !slices.Contains(l.parked, g): // all of its changes gave up
		if err == nil {
			c.abandon(l.key, g.claim.Token)
		}
	case err != nil:
		l.parked = slices.DeleteFunc(l.parked, func(p *group) bool { return p == g })
		for _, o := range g.ops {
			o.running = true
			if errors.Is(err, storage.ErrLockTimeout) {
				c.stats.timeouts.Add(1)
			}
			o.answer(Result{}, err)
		}
	case g.claim.Fence:
		l.parked = slices.DeleteFunc(l.parked, func(p *group) bool { return p == g })
		o := g.ops[0]
		o.running, o.grant = true, grant
		o.answer(Result{Cart: grant.Cart}, nil)
	default:
		c.stats.acquired.Add(1)
		g.granted, g.cart = true, grant.Cart
	}
	b, ok := c.rouse(sh, l)
	sh.mu.Unlock()
	if ok {
		c.work(sh, l, b)
	}
}

// abandon gives a lock back that nobody needs, without making anybody wait for
// it. If it fails the lock ends with its lease.
func (c *Coordinator) abandon(key cart.Key, token string) {
	c.inFlight.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), turnLease)
		defer cancel()
		_ = c.locker.Abandon(ctx, key, token)
	})
}
