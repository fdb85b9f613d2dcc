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

// maxBatch bounds how many changes go out as one commit, and so how long the
// first of them waits for the computing of the last.
const maxBatch = 128

// shard is a share of the lines, so that carts do not meet on one mutex. Its
// mutex guards its lines and all that is in them.
type shard struct {
	mu    sync.Mutex
	lines map[cart.Key]*line
}

// line is the queue of one cart in this sidecar. Commits leave it one after the
// other, first come first served; while one is under way, what comes meanwhile
// gathers and goes out together.
type line struct {
	key    cart.Key
	active bool // somebody serves the line
	// exclusive says that what is served is a hand-over, which may take long: it may be waiting for
	// a lease, and what is done under that lease must not wait for it.
	exclusive bool
	pending   []*op
	parked    []*group
}

// op is one change on its way.
type op struct {
	Change
	forget bool
	// exclusive, where set, is run in the op's turn instead of a verb: nothing else of this
	// line is under way then.
	exclusive func(ctx context.Context)
	// claim, where set, asks for a lease instead: in the op's turn it begins to wait in the
	// backend, and what comes after it waits behind it. once lets it wait for nobody.
	claim *storage.Claim
	once  bool
	grant storage.Grant // of claim

	parts   []cart.Part // what it waits for in the line
	since   time.Time
	expires time.Time // end of its wait
	running bool      // taken out of the line: it will be answered
	done    chan struct{}

	res Result
	err error
}

// solo reports whether the op shares its commit with no other: a commit has one token.
func (o *op) solo() bool { return o.forget || o.exclusive != nil || o.Lease != "" }

// group are changes that wait for one lock, or one op that waits for its lease.
type group struct {
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
	// beside says that something else of the line is under way.
	beside bool
}

var shardSeed = maphash.MakeSeed()

func (c *Coordinator) shard(key cart.Key) *shard {
	return &c.shards[maphash.Comparable(shardSeed, key)%uint64(len(c.shards))]
}

// submit puts a change in the line of its cart and waits for the answer. Where the line is
// empty the caller serves its change itself, without a switch of goroutines.
func (c *Coordinator) submit(ctx context.Context, key cart.Key, o *op) (Result, error) {
	if err := c.enter(); err != nil {
		return Result{}, err
	}
	defer c.inFlight.Done()
	if err := spent(ctx); err != nil {
		return Result{}, err
	}
	o.since = time.Now()
	if o.expires.IsZero() {
		o.expires = o.since.Add(c.opts.Load().WaitTimeout)
	}
	o.parts = c.queueParts(key, o)
	o.done = make(chan struct{})

	sh := c.shard(key)
	sh.mu.Lock()
	l := sh.lines[key]
	if l == nil {
		l = &line{key: key}
		sh.lines[key] = l
	}
	switch {
	case o.once && l.blocks(o):
		sh.mu.Unlock()
		c.stats.timeouts.Add(1)
		return Result{}, storage.ErrLockTimeout
	case l.exclusive && o.Lease != "" && o.exclusive == nil:
		o.running = true
		sh.mu.Unlock()
		c.serve(ctx, l, batch{ops: []*op{o}, beside: true})
	case l.active || l.waits(o):
		l.enqueue(o)
		sh.mu.Unlock()
	case o.claim != nil:
		c.launch(l, o)
		sh.mu.Unlock()
	default:
		l.active, l.exclusive, o.running = true, o.exclusive != nil, true
		sh.mu.Unlock()
		c.serve(ctx, l, batch{ops: []*op{o}})
		c.pass(sh, l)
	}
	return c.await(ctx, sh, l, o)
}

// queueParts are the parts that decide which waiting changes a change must not
// overtake.
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

// waits reports whether the op must wait behind others, although nobody serves the line. What
// is done under a lease waits for nobody: whoever waits may be waiting for that lease.
func (l *line) waits(o *op) bool {
	behind := func(p *op) bool { return cart.Overlap(p.parts, o.parts) }
	return o.Lease == "" && (l.blocks(o) || slices.ContainsFunc(l.pending, behind))
}

// blocks reports whether a group that waits for a lock holds the op up.
func (l *line) blocks(o *op) bool {
	return slices.ContainsFunc(l.parked, func(g *group) bool { return cart.Overlap(g.claim.Parts, o.parts) })
}

// enqueue puts the op last: in the group that waits for the lock it needs, or in
// the line.
func (l *line) enqueue(o *op) {
	behind := slices.ContainsFunc(l.pending, func(p *op) bool { return cart.Overlap(p.parts, o.parts) })
	for _, g := range l.parked {
		if !behind && !o.solo() && o.claim == nil && !g.claim.Fence && cart.Covers(g.claim.Parts, o.parts) {
			g.ops = append(g.ops, o)
			return
		}
	}
	l.pending = append(l.pending, o)
}

// await waits for the answer, or takes the op out of the line when its time is
// up. An op that is being served is answered in any case.
func (c *Coordinator) await(ctx context.Context, sh *shard, l *line, o *op) (Result, error) {
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
			cause = storage.ErrLockTimeout // it stood in the line for all its time
		}
	}
	sh.mu.Lock()
	waiting := l.remove(o)
	if waiting {
		c.wake(sh, l) // a group that is gone holds nobody up
	}
	sh.mu.Unlock()
	if waiting {
		if errors.Is(cause, storage.ErrLockTimeout) {
			c.stats.timeouts.Add(1)
		}
		return Result{}, cause
	}
	select {
	case <-o.done: // just now; a lease that was granted must not get lost
		return o.res, o.err
	default:
	}
	select {
	case <-o.done:
		return o.res, o.err
	case <-ctx.Done():
		return Result{}, ctx.Err() // its commit is under way: the outcome is unknown
	}
}

// remove takes an op that is not being served out of the line.
func (l *line) remove(o *op) bool {
	if o.running {
		return false
	}
	is := func(p *op) bool { return p == o }
	l.pending = slices.DeleteFunc(l.pending, is)
	l.parked = slices.DeleteFunc(l.parked, func(g *group) bool {
		g.ops = slices.DeleteFunc(g.ops, is)
		if len(g.ops) > 0 || g.granted {
			return false
		}
		g.cancel() // nobody wants that lock any more
		return true
	})
	return true
}

// waiting counts the ops that are not being served and says since when the oldest waits.
func (l *line) waiting() (n int, since time.Time) {
	see := func(ops []*op) {
		for _, o := range ops {
			n++
			if since.IsZero() || o.since.Before(since) {
				since = o.since
			}
		}
	}
	see(l.pending)
	for _, g := range l.parked {
		see(g.ops)
	}
	return n, since
}

// pass ends the caller's turn: a goroutine serves what has gathered, if anything.
func (c *Coordinator) pass(sh *shard, l *line) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l.active, l.exclusive = false, false
	c.wake(sh, l)
}

// wake puts the line to work. The shard is locked.
func (c *Coordinator) wake(sh *shard, l *line) {
	if b, ok := c.rouse(sh, l); ok {
		c.inFlight.Go(func() { c.work(sh, l, b) })
	}
}

// rouse hands the line to the caller if nobody serves it and something could go
// out, and ends a line in which nothing waits. The shard is locked.
func (c *Coordinator) rouse(sh *shard, l *line) (b batch, ok bool) {
	if l.active {
		return b, false
	}
	if b, ok = c.next(l); ok {
		l.active = true
	} else if len(l.pending) == 0 && len(l.parked) == 0 && sh.lines[l.key] == l {
		delete(sh.lines, l.key)
	}
	return b, ok
}

// work serves the line until nothing is left that could go out.
func (c *Coordinator) work(sh *shard, l *line, b batch) {
	for {
		ctx, cancel := context.WithTimeoutCause(context.Background(), c.opts.Load().WaitTimeout+turnLease, ErrBusy)
		c.serve(ctx, l, b)
		cancel()
		sh.mu.Lock()
		var ok bool
		if b, ok = c.next(l); !ok {
			l.active, l.exclusive = false, false
			c.wake(sh, l)
			sh.mu.Unlock()
			return
		}
		sh.mu.Unlock()
	}
}

// spent is why the backend is not asked any more: ErrBusy where a bound of the sidecar's own
// has ended the context, which it says by a cause, and else the context's error.
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
