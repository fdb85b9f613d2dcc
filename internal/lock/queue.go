package lock

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// maxBatch bounds how many changes go into one commit, and so how long the first waits while the others are computed.
const maxBatch = 128

// shard is a share of the queues, so that carts do not contend for one mutex. Its mutex guards its queues and
// everything in them.
type shard struct {
	mu     sync.Mutex
	queues map[cart.Key]*queue
}

// queue holds the changes of one cart in this sidecar. They are committed in order of arrival, one commit after the
// other. Changes that arrive during a commit gather and go into the next one together.
type queue struct {
	key    cart.Key
	active bool // somebody serves the queue
	// exclusive says that a hand-over is being served. The hand-over may be waiting for a lease, so changes under that
	// lease must not wait for it.
	exclusive bool
	pending   []*op
	waiters   []*waiter
}

// op is one change on its way.
type op struct {
	Change
	forget bool
	// exclusive, if set, runs instead of a verb when the op is served. Nothing else of this queue is under way then.
	exclusive func(ctx context.Context)
	// claim, if set, asks for a lease instead of applying a verb. When the op is served, it begins to wait in the
	// backend, and later ops on the same parts wait behind it. once makes it fail if it would have to wait.
	claim *storage.Claim
	once  bool
	grant storage.Grant // of claim

	ctx     context.Context // of its call
	parts   []cart.Part     // what it waits for in the queue
	since   time.Time
	expires time.Time // end of its wait
	running bool      // taken from the queue: it will be answered
	done    chan struct{}

	res Result
	err error
}

// solo reports whether the op needs a commit of its own. A commit has room for one token.
func (o *op) solo() bool { return o.forget || o.exclusive != nil || o.Lease != "" }

// waiter holds the changes that wait for one turn, or the one op that waits for its lease.
type waiter struct {
	claim  storage.Claim
	once   bool // as of the op that waits for its lease
	ops    []*op
	cancel context.CancelFunc
	// granted and cart are set once the lock is there.
	granted bool
	cart    *cart.Cart
}

// batch is a set of ops served together.
type batch struct {
	ops []*op
	// token is the lock under which it is served; "" for none.
	token string
	// view is the state to compute from, if a newer one is known than the cache has.
	view *cart.Cart
	// beside says that another batch of the queue is under way.
	beside bool
	// called says that the batch is one op, served by its own call.
	called bool
}

// callers returns ctx with the contexts of the ops' callers, for a commit that carries their changes.
func callers(ctx context.Context, ops []*op) context.Context {
	all := make([]context.Context, 0, len(ops))
	for _, o := range ops {
		all = append(all, o.ctx)
	}
	return storage.WithCallers(ctx, all)
}

var shardSeed = maphash.MakeSeed()

func (c *Coordinator) shard(key cart.Key) *shard {
	return &c.shards[maphash.Comparable(shardSeed, key)%uint64(len(c.shards))]
}

// submit puts a change in the queue of its cart and waits for the answer. The call must have entered. If the queue is
// empty, the caller serves its change itself, which saves a switch of goroutines.
func (c *Coordinator) submit(ctx context.Context, key cart.Key, o *op) (Result, error) {
	if err := spent(ctx); err != nil {
		return Result{}, err
	}
	o.ctx, o.since = ctx, time.Now()
	if o.expires.IsZero() {
		o.expires = o.since.Add(c.opts.Load().WaitTimeout)
	}
	o.parts = c.queueParts(key, o)
	o.done = make(chan struct{})

	sh := c.shard(key)
	sh.mu.Lock()
	q := sh.queues[key]
	if q == nil {
		q = &queue{key: key}
		sh.queues[key] = q
	}
	switch {
	case o.once && q.blocks(o):
		sh.mu.Unlock()
		c.stats.timeouts.Add(1)
		return Result{}, storage.ErrLockTimeout
	case q.exclusive && o.Lease != "" && o.exclusive == nil:
		o.running = true
		sh.mu.Unlock()
		c.serve(ctx, q, batch{ops: []*op{o}, beside: true, called: true})
	case q.active || q.waits(o):
		q.enqueue(o)
		sh.mu.Unlock()
	case o.claim != nil:
		c.awaitLease(q, o)
		sh.mu.Unlock()
	default:
		q.active, q.exclusive, o.running = true, o.exclusive != nil, true
		sh.mu.Unlock()
		c.serve(ctx, q, batch{ops: []*op{o}, called: true})
		c.handOn(sh, q)
	}
	return c.await(ctx, sh, q, o)
}

// queueParts returns the parts that decide which waiting changes a change must not overtake.
func (c *Coordinator) queueParts(key cart.Key, o *op) []cart.Part {
	if o.claim != nil {
		return o.claim.Parts
	}
	if o.forget || o.exclusive != nil {
		return []cart.Part{cart.PartAll}
	}
	view, _ := c.cache.get(key)
	if view == nil {
		view = &cart.Cart{}
	}
	if p := o.Verb.Parts(view); len(p) > 0 {
		return p
	}
	return []cart.Part{cart.PartAll}
}

// waits reports whether the op must wait behind others, even though nobody serves the queue. A change under a lease
// never waits here: the others may be waiting for that very lease.
func (q *queue) waits(o *op) bool {
	behind := func(p *op) bool { return cart.Overlap(p.parts, o.parts) }
	return o.Lease == "" && (q.blocks(o) || slices.ContainsFunc(q.pending, behind))
}

// blocks reports whether the op must wait behind a waiter.
func (q *queue) blocks(o *op) bool {
	return slices.ContainsFunc(q.waiters, func(w *waiter) bool { return cart.Overlap(w.claim.Parts, o.parts) })
}

// enqueue puts the op last: in the waiter for the lock that it needs, or in the queue.
func (q *queue) enqueue(o *op) {
	behind := slices.ContainsFunc(q.pending, func(p *op) bool { return cart.Overlap(p.parts, o.parts) })
	for _, w := range q.waiters {
		if !behind && !o.solo() && o.claim == nil && !w.claim.Leased && cart.Covers(w.claim.Parts, o.parts) {
			w.ops = append(w.ops, o)
			return
		}
	}
	q.pending = append(q.pending, o)
}

// await waits for the answer, or removes the op from the queue when its time is up. An op that is being served is
// answered in any case.
func (c *Coordinator) await(ctx context.Context, sh *shard, q *queue, o *op) (Result, error) {
	select {
	case <-o.done: // served by the caller itself
		return o.res, o.err
	default:
	}
	timer := time.NewTimer(time.Until(o.expires))
	defer timer.Stop()
	var cause error
	select {
	case <-o.done:
		return o.res, o.err
	case <-timer.C:
		cause = storage.ErrLockTimeout
	case <-ctx.Done():
		cause = ctx.Err()
		if errors.Is(cause, context.DeadlineExceeded) {
			cause = storage.ErrLockTimeout // it spent all of its time in the queue
		}
	}
	sh.mu.Lock()
	waiting := q.remove(o)
	if waiting {
		c.dispatch(sh, q) // the op that left may have blocked others
	}
	sh.mu.Unlock()
	if waiting {
		if errors.Is(cause, storage.ErrLockTimeout) {
			c.stats.timeouts.Add(1)
		}
		return Result{}, cause
	}
	select {
	case <-o.done: // answered just now: a granted lease must not get lost
		return o.res, o.err
	default:
	}
	select {
	case <-o.done:
		return o.res, o.err
	case <-ctx.Done():
		return Result{}, ctx.Err() // its commit is under way, so the outcome is unknown
	}
}

// remove removes an op from the queue, unless it is being served.
func (q *queue) remove(o *op) bool {
	if o.running {
		return false
	}
	is := func(p *op) bool { return p == o }
	q.pending = slices.DeleteFunc(q.pending, is)
	q.waiters = slices.DeleteFunc(q.waiters, func(w *waiter) bool {
		w.ops = slices.DeleteFunc(w.ops, is)
		if len(w.ops) > 0 || w.granted {
			return false
		}
		w.cancel() // nothing waits for that lock any more
		return true
	})
	return true
}

// waiting counts the ops that are not being served, and says since when the oldest waits.
func (q *queue) waiting() (n int, since time.Time) {
	see := func(ops []*op) {
		for _, o := range ops {
			n++
			if since.IsZero() || o.since.Before(since) {
				since = o.since
			}
		}
	}
	see(q.pending)
	for _, w := range q.waiters {
		see(w.ops)
	}
	return n, since
}

// handOn ends the caller's serving: a goroutine serves the ops that have gathered, if any.
func (c *Coordinator) handOn(sh *shard, q *queue) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	q.active, q.exclusive = false, false
	c.dispatch(sh, q)
}

// dispatch starts serving the queue. The shard must be locked.
func (c *Coordinator) dispatch(sh *shard, q *queue) {
	if b, ok := c.dispatchable(sh, q); ok {
		c.inFlight.Go(func() { c.drain(sh, q, b) })
	}
}

// dispatchable hands the queue to the caller if nobody serves it and some op can be served. It removes a queue in which
// nothing waits. The shard must be locked.
func (c *Coordinator) dispatchable(sh *shard, q *queue) (b batch, ok bool) {
	if q.active {
		return b, false
	}
	if b, ok = c.dequeue(q); ok {
		q.active = true
	} else if len(q.pending) == 0 && len(q.waiters) == 0 && sh.queues[q.key] == q {
		delete(sh.queues, q.key)
	}
	return b, ok
}

// drain serves the queue until no op is left that can be served.
func (c *Coordinator) drain(sh *shard, q *queue, b batch) {
	for {
		ctx, cancel := context.WithTimeoutCause(context.Background(), c.opts.Load().WaitTimeout+turnTTL, ErrBusy)
		c.serve(ctx, q, b)
		cancel()
		sh.mu.Lock()
		var ok bool
		if b, ok = c.dequeue(q); !ok {
			q.active, q.exclusive = false, false
			c.dispatch(sh, q)
			sh.mu.Unlock()
			return
		}
		sh.mu.Unlock()
	}
}

// spent returns why the backend must not be asked any more, or nil. It returns ErrBusy if the context's cause says that
// one of the sidecar's own bounds ended it, and otherwise the context's error.
func spent(ctx context.Context) error {
	err := ctx.Err()
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(context.Cause(ctx), err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBusy, err)
}

func (o *op) answer(r Result, err error) {
	o.res, o.err = r, err
	close(o.done)
}
