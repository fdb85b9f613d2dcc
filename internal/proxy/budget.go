package proxy

import (
	"context"
	"errors"
	"hash/maphash"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sidecart/sidecart/internal/cart"
)

// A sidecar has little memory, and a request costs a multiple of its bytes: it is received, parsed, merged into the
// cart, sent to the backend and answered. So requests are admitted by what they cost. A request that does not fit
// waits, in order, and ends with BUSY after a while.
//
// The budget has pools. Requests take from them in one order only, so that two requests never wait for each other:
//
//	small   requests of little carts, with all that belongs to them
//	bodies  large requests, while they are received and parsed
//	work    large carts, from the read of the backend until the answer is written
//	leased  the same for changes under a lease, which the others may be waiting for
//	unseen  the same for carts whose size is not known, while large ones are about: a small one
//	        is not to wait for what large ones wait for
const (
	// baseMemory is what an idle sidecar needs, with all of its connections.
	baseMemory = 44 << 20
	// unlimitedMemory is the limit if none is set.
	unlimitedMemory = 512 << 20
	// leastBudget lets one request of the default limits through on the smallest machine.
	leastBudget = 24 << 20

	// smallBytes is the largest size of a small request or cart.
	smallBytes = 32 << 10
	// callCost is what a small request costs beside its bytes: a goroutine, a stream, its contexts, and a small cart.
	callCost   = 16 << 10
	smallTimes = 4
	// bodyTimes and workTimes are how many bytes of memory a byte of a large request, and of a large cart, costs. They
	// were measured as the peak of the process, less that of an idle one.
	bodyTimes = 3
	workTimes = 7

	// busyWait is how long a request waits for memory. It is less than the default request timeout, so that clients get
	// BUSY and no timeout.
	busyWait = 5 * time.Second
	// maxWaiting bounds the requests that wait. Each may hold a window of received bytes.
	maxWaiting = 512
)

// budget is the memory for requests under way.
type budget struct {
	small, bodies, work, leased, unseen pool
	waiting                             atomic.Int64
	sizes                               sizes
}

// newBudget divides the memory that a limit leaves to requests; math.MaxInt64 is no limit.
func newBudget(limit int64, limits cart.Limits) *budget {
	if limit <= 0 || limit == math.MaxInt64 {
		limit = unlimitedMemory
	}
	total := max(limit-baseMemory, leastBudget)
	b := &budget{}
	b.small.open(total / 4)
	b.bodies.open(total / 4)
	b.work.open(total / 4)
	b.leased.open(total / 8)
	b.unseen.open(total / 8)
	b.sizes.seed = maphash.MakeSeed()
	b.sizes.guess.Store(int64(limits.MaxCartBytes))
	return b
}

// pool is a share of the budget.
type pool struct {
	*semaphore.Weighted
	size int64
}

func (p *pool) open(size int64) { p.Weighted, p.size = semaphore.NewWeighted(size), size }

// lot is a request's share of a pool.
type lot struct {
	from *pool
	cost int64
}

func (l *lot) release() {
	if l.cost > 0 {
		l.from.Release(l.cost)
		l.cost = 0
	}
}

// shrink gives back what exceeds cost.
func (l *lot) shrink(cost int64) {
	if l.cost > cost {
		l.from.Release(l.cost - cost)
		l.cost = cost
	}
}

// take waits until p has room for cost. A request that is larger than the whole pool runs alone.
func (b *budget) take(ctx context.Context, p *pool, cost int64) (lot, error) {
	cost = min(cost, p.size)
	if p.TryAcquire(cost) {
		return lot{p, cost}, nil
	}
	if b.waiting.Add(1) > maxWaiting {
		b.waiting.Add(-1)
		return lot{}, errBusy
	}
	defer b.waiting.Add(-1)
	wctx, cancel := context.WithTimeout(ctx, busyWait)
	defer cancel()
	if err := p.Acquire(wctx, cost); err != nil {
		if ctx.Err() == nil || errors.Is(context.Cause(ctx), errRequestTimeout) {
			return lot{}, errBusy
		}
		return lot{}, err // the client gave up
	}
	return lot{p, cost}, nil
}

// admission is one request's share of the budget. One goroutine uses it at a time.
type admission struct {
	budget *budget
	bytes  int64 // of the request
	arrive lot
	work   lot
	// last is the last large answer of a call with several answers.
	last *owed
}

// admit waits until a request of n bytes may be received.
func (b *budget) admit(ctx context.Context, a *admission, n int64) (err error) {
	a.budget, a.bytes = b, n
	if n <= smallBytes {
		a.arrive, err = b.take(ctx, &b.small, callCost+smallTimes*n)
	} else {
		a.arrive, err = b.take(ctx, &b.bodies, bodyTimes*n)
	}
	return err
}

// arrived says that the request has n bytes, after it could have had more.
func (a *admission) arrived(n int64) {
	a.bytes = n
	if n <= smallBytes {
		a.arrive.shrink(callCost + smallTimes*n)
	} else {
		a.arrive.shrink(bodyTimes * n)
	}
}

// release gives back everything. It may be called repeatedly.
func (a *admission) release() {
	a.arrive.release()
	a.work.release()
}

// begin waits until a request may work on carts with a total of size bytes. size is a guess unless known is true.
func (a *admission) begin(ctx context.Context, size int64, known, leased bool) (err error) {
	if size = max(size, a.bytes); size <= smallBytes {
		return nil
	}
	from := &a.budget.work
	switch {
	case leased:
		from = &a.budget.leased
	case !known && a.bytes <= smallBytes:
		from = &a.budget.unseen
	}
	a.work, err = a.budget.take(ctx, from, workTimes*size)
	return err
}

// learned says that the carts have size bytes. It reports whether there is memory for the answer outside the pool
// unseen. That pool is not for answers: a client that reads slowly would keep its memory from carts of unknown size.
func (a *admission) learned(size int64) bool {
	if size = max(size, a.bytes); size <= smallBytes {
		a.work.release()
		return true
	}
	a.work.shrink(workTimes * size)
	if a.work.from != &a.budget.unseen {
		return true
	}
	work := &a.budget.work
	cost := min(a.work.cost, work.size)
	if !work.TryAcquire(cost) {
		return false
	}
	a.work.release()
	a.work = lot{work, cost}
	return true
}

// answered reserves what an answer of n bytes needs until it is written. It returns the receipt to settle then; nil if
// the answer needs nothing.
func (a *admission) answered(n int64) *receipt {
	a.arrive.release()
	a.work.shrink(2 * n)
	if a.work.cost == 0 {
		return nil
	}
	r := &receipt{&owed{lot: a.work, done: make(chan struct{})}}
	a.last, a.work = r.owed, lot{}
	// gRPC may drop the buffers of a broken connection. When the garbage collector frees the receipt, the memory is
	// free too.
	runtime.AddCleanup(r, (*owed).settle, r.owed)
	return r
}

// owed is the share that an answer holds until it is written.
type owed struct {
	once sync.Once
	lot  lot
	done chan struct{} // closed when it is written
}

func (o *owed) settle() {
	o.once.Do(func() {
		o.lot.release()
		close(o.done)
	})
}

// written waits until the last answer of a stream is written. A client that does not read it loses the stream, because
// the answer keeps memory from others.
func (a *admission) written(ctx context.Context) error {
	if a.last == nil {
		return nil
	}
	late := time.NewTimer(answerGrace)
	defer late.Stop()
	select {
	case <-a.last.done:
		a.last = nil
		return nil
	case <-late.C:
		return errUnread
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// receipt is the pool of one gRPC buffer. gRPC returns the buffer to it when the buffer was written.
type receipt struct{ owed *owed }

// Get implements [mem.BufferPool].
func (*receipt) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put implements [mem.BufferPool].
func (r *receipt) Put(*[]byte) { r.owed.settle() }

type admissionKey struct{}

// admissionOf is nil for a call that came by no front, as in tests.
func admissionOf(ctx context.Context) *admission {
	a, _ := ctx.Value(admissionKey{}).(*admission)
	return a
}

// sizes remembers how large carts are, so that a call can be admitted before its cart is read.
type sizes struct {
	seed maphash.Seed
	// known has sets of four entries, for keys whose hashes share an index. An entry is the upper half of the hash, and
	// the size.
	known [1024][4]atomic.Uint64
	// guess is the size assumed for an unknown cart: about that of the carts seen lately. It begins with the largest
	// size, so that a sidecar which starts among large carts survives.
	guess atomic.Int64
}

// of returns the size of a cart, and whether it is known or a guess.
func (s *sizes) of(key cart.Key) (size int64, known bool) {
	h := maphash.Comparable(s.seed, key)
	set := &s.known[h%uint64(len(s.known))]
	for i := range set {
		if e := set[i].Load(); e>>32 == h>>32 && e != 0 {
			return int64(e & math.MaxUint32), true
		}
	}
	return s.guess.Load(), false
}

// saw records the size of a cart; 0 for a cart that does not exist, or was not read.
func (s *sizes) saw(key cart.Key, size int64) {
	h := maphash.Comparable(s.seed, key)
	size = min(size, math.MaxUint32)
	set := &s.known[h%uint64(len(s.known))]
	at := int(h>>16) % len(set) // if there is no free entry, it replaces any
	for i := range set {
		if e := set[i].Load(); e>>32 == h>>32 || e == 0 {
			at = i
			break
		}
	}
	set[at].Store(h>>32<<32 | uint64(size))
	// It grows at once and shrinks slowly. Lost updates do no harm.
	if g := s.guess.Load(); size >= g {
		s.guess.Store(size)
	} else {
		s.guess.Store(g - (g-size+7)/8)
	}
}

// sizeOf estimates the bytes of a cart.
func sizeOf(c *cart.Cart) int64 {
	if c == nil {
		return 0
	}
	n := len(c.Items.Object.Bytes()) + len(c.Conditions.Object.Bytes())
	for i := range c.Metadata {
		n += len(c.Metadata[i].Key) + len(c.Metadata[i].Value)
	}
	return int64(n)
}
