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

// maxBatch bounds how many changes go out as one commit, and so how long the first waits while the others are computed.
const maxBatch = 128

// shard is a share of the queues, so that carts do not meet on one mutex. Its mutex guards its queues and all that is
// in them.
type shard struct {
	mu     sync.Mutex
	queues map[cart.Key]*queue
}

// queue has the changes of one cart in this sidecar. Commits leave it one after the other, first come first served.
// Changes that come while a commit is under way gather and go out together.
type queue struct {
	key    cart.Key
	active bool // somebody serves the queue
	// exclusive says that a hand-over is being served. It may be waiting for a lease, so changes under that lease must
	// not wait for it.
	exclusive bool
	pending   []*op
	waiters   []*waiter
}

// op is one change on its way.
type op struct {
	Change
	forget bool
	// exclusive, if set, runs in place of a verb when the op is served. Nothing else of this queue is under way then.
	exclusive func(ctx context.Context)
	// claim, if set, asks for a lease in place of a verb. When the op is served, it begins to wait in the backend, and
	// later ops of the same parts wait behind it. once makes it fail where it would have to wait.
	claim *storage.Claim
	once  bool
	grant storage.Grant // of claim

	ctx     context.Context // of its call
	parts   []cart.Part     // what it waits for in the queue
	since   time.Time
	expires time.Time // end of its wait
	running bool      // taken out of the queue: it will be answered
	done    chan struct{}

	res Result
	err error
}

// solo reports whether the op needs a commit of its own, since a commit has one token.
func (o *op) solo() bool { return o.forget || o.exclusive != nil || o.Lease != "" }

// waiter has the changes that wait for one turn, or the one op that waits for its lease.
type waiter struct {
	claim  storage.Claim
	once   bool // as of the op that waits for its lease
	ops    []*op
	cancel context.CancelFunc
	// granted and cart are set once the lock is there.
	granted bool
	cart    *cart.Cart
}

// batch is what is served at once.
type batch struct {
	ops []*op
	// token is the lock under which it is served; "" for none.
	token string
	// view is the state to compute from, where it is known better than from the cache.
	view *cart.Cart
	// beside says that something else of the queue is under way.
	beside bool
	// called says that it is one op, which its own call serves.
	called bool
}

// callers returns ctx with the callers' contexts of ops, for a commit that carries their changes.
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

// submit puts a change in the queue of its cart and waits for the answer. The call has entered. Where the queue is
// empty the caller serves its change itself, without a switch of goroutines.
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

// queueParts are the parts that decide which waiting changes a change must not overtake.
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

// waits reports whether the op must wait behind others, although nobody serves the queue. A change under a lease never
// waits here: the others may be waiting for that very lease.
func (q *queue) waits(o *op) bool {
	behind := func(p *op) bool { return cart.Overlap(p.parts, o.parts) }
	return o.Lease == "" && (q.blocks(o) || slices.ContainsFunc(q.pending, behind))
}

// blocks reports whether a waiter that waits for a lock holds the op up.
func (q *queue) blocks(o *op) bool {
	return slices.ContainsFunc(q.waiters, func(w *waiter) bool { return cart.Overlap(w.claim.Parts, o.parts) })
}

// enqueue puts the op last: in the waiter that waits for the lock it needs, or in the queue.
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

// await waits for the answer, or takes the op out of the queue when its time is up. An op that is being served is
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
			cause = storage.ErrLockTimeout // it waited in the queue for all of its time
		}
	}
	sh.mu.Lock()
	waiting := q.remove(o)
	if waiting {
		c.dispatch(sh, q) // the op that has gone may have held up others
	}
	sh.mu.Unlock()
	if waiting {
		if errors.Is(cause, storage.ErrLockTimeout) {
			c.stats.timeouts.Add(1)
		}
		return Result{}, cause
	}
	select {
	case <-o.done: // answered just now: a lease that was granted must not get lost
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

// remove takes an op that is not being served out of the queue.
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
		w.cancel() // no op waits for that lock any more
		return true
	})
	return true
}

// waiting counts the ops that are not being served and says since when the oldest waits.
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

// handOn ends the caller's turn: a goroutine serves what has gathered, if anything.
func (c *Coordinator) handOn(sh *shard, q *queue) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	q.active, q.exclusive = false, false
	c.dispatch(sh, q)
}

// dispatch puts the queue to work. The shard is locked.
func (c *Coordinator) dispatch(sh *shard, q *queue) {
	if b, ok := c.dispatchable(sh, q); ok {
		c.inFlight.Go(func() { c.drain(sh, q, b) })
	}
}

// dispatchable hands the queue to the caller if nobody serves it and something could go out, and ends a queue in which
// nothing waits. The shard is locked.
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

// drain serves the queue until nothing is left that could go out.
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

// spent returns why the backend must not be asked any more, or nil. It is ErrBusy if a bound of the sidecar's own has
// ended the context, which its cause says, and otherwise the context's error.
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
