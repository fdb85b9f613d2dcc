package lock

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Sentinels that only this package knows, beside those of storage; matched with errors.Is.
var (
	// ErrDraining is returned when the coordinator is stopping.
	ErrDraining = errors.New("stopping")
	// ErrBusy is returned when the time of a request ended before the backend was asked: the sidecar itself was too
	// slow, and nothing was changed.
	ErrBusy = errors.New("the sidecar did not get to it in time; nothing was changed")
)

// Errors lists every sentinel, for tables that must be complete.
var Errors = []error{ErrDraining, ErrBusy, ErrKeyReused, ErrEmptyCart, ErrAlreadySettled, ErrNoCheckouts}

// Options are what a [Coordinator] runs with.
type Options struct {
	// Locking turns distributed locking on, where the store can lock across replicas.
	Locking bool
	// Reason says why locking is on or off, for the status: "Configured", "MultipleReplicas".
	Reason string
	// WaitTimeout is the longest that a change waits for a lock.
	WaitTimeout time.Duration
	// LeaseDuration is how long a lock lives that its holder does not renew.
	LeaseDuration time.Duration
	// TTL is the life of a cart from its last change; 0 is for ever.
	TTL time.Duration
	// IdempotencyWindow is for how long a cart remembers the requests that were made under idempotency keys; 0 is for
	// the cart's life, which ends it in any case.
	IdempotencyWindow time.Duration
	// CheckoutRetention is for how long a checkout is kept after it was settled or has expired, whichever came last.
	CheckoutRetention time.Duration
	// Limits bound the carts.
	Limits cart.Limits
	// Holder names this sidecar to people who look at a lock.
	Holder string
	// CallOf names the call that a context is of, such as "AddItem", for an audit trail; nil leaves it open. It is
	// asked only where the store is a [storage.Auditor].
	CallOf func(ctx context.Context) string
	// OnEvent is told what people should hear of; nil drops it. It must not block.
	OnEvent func(Event)
}

// Event is something that deserves a log line and a metric.
type Event struct {
	// Kind is one of the Event constants.
	Kind string
	// Key is the cart that it happened on, where it was one.
	Key cart.Key
	// Message says it in a sentence.
	Message string
}

// EventForeignWriter: simple mode met a version conflict that this sidecar did not cause, and locking is on from now
// where the store can lock.
const EventForeignWriter = "ForeignWriter"

// Change is a request to change one cart.
type Change struct {
	// Verb is what to do.
	Verb cart.Verb
	// If must hold on Scope at the instant of the change.
	If    cart.Precondition
	Scope cart.Part
	// Lease is the token of a lease to work under; "" for none. The change is made only if the lease stands at that
	// instant, and parts that it does not cover must be free. Release gives it back in the same step, if the change
	// succeeds, also one that alters nothing.
	Lease   string
	Release bool
	// Request is the idempotency key, if any. A repeat of a request that the cart remembers changes nothing. It asks
	// for no lease and no precondition, and waits for no lock.
	Request Request
}

// Result is the answer to a change.
type Result struct {
	// Cart is the cart right after this change. Parts outside of Change.Scope may be older, unless the scope is
	// PartAll.
	Cart *cart.Cart
	// Changed says whether anything was altered.
	Changed bool
	// Capped are the ids of the items whose quantity a merge made the largest that is allowed, in the order of the
	// cart's items. Where another sidecar made a step of the merge, they are not known.
	Capped []string
	// Repeat says that the request was made before. Changed and Repeat.Version are of that time, and Cart is as it is
	// now.
	Repeat Repeat
}

// turnTTL bounds how long a sidecar that dies in the middle of a change holds up the others. A turn covers one round
// trip to the backend. A longer turn would cost a second round trip, since its waiter would have to claim it again
// ([storage.Claim.Confirms]).
const turnTTL = storage.WaiterTTL

// Coordinator serves the carts of one store. All methods are safe for concurrent use. Errors match a sentinel of cart,
// storage or this package, or the context's error.
type Coordinator struct {
	store  storage.Store
	locker storage.Locker // nil where locks cannot hold off anybody else
	audits bool           // the store keeps an audit trail
	// snapshots is where checkouts are made: the store, or one of their own.
	snapshots records
	opts      atomic.Pointer[Options]
	mode      mode
	shards    [64]shard
	cache     *cache
	stats     stats
	leases    leases
	views     *views
	// listing is held by the one list that is made.
	listing chan struct{}

	ending   chan struct{} // closed by Close
	closing  atomic.Bool
	inFlight sync.WaitGroup
	closeMu  sync.RWMutex // held for reading while inFlight grows, so that Close sees all of it
}

// New serves store's carts and keeps checkouts beside them. Close does not close the store.
func New(store storage.Store, o Options) *Coordinator { return NewHybrid(store, nil, o) }

// NewHybrid serves store's carts and keeps checkouts in another store, or beside the carts where checkouts is nil.
// Those that were made beside the carts before stay there and are settled there. Close closes neither store.
func NewHybrid(store, checkouts storage.Store, o Options) *Coordinator {
	c := &Coordinator{store: store, audits: audits(store), cache: newCache(), ending: make(chan struct{}), listing: make(chan struct{}, 1)}
	c.snapshots = c.beside()
	if checkouts != nil {
		c.snapshots = records{store: checkouts, apart: true, audits: audits(checkouts)}
	}
	if l, ok := store.(storage.Locker); ok && store.Capabilities().Locks {
		c.locker = l
	}
	for i := range c.shards {
		c.shards[i].queues = make(map[cart.Key]*queue)
	}
	c.views = newViews(c)
	c.Update(o)
	return c
}

// Update replaces the options while requests run. Each change keeps the options that it began with. Locking that the
// tripwire turned on stays on until new options turn it on themselves.
func (c *Coordinator) Update(o Options) {
	c.opts.Store(&o)
	c.mode.configure(o, c.store.Capabilities())
}

// enter counts a call in, so that Close can wait for it. A call enters once, at its beginning: what was let in is
// finished, however many steps it takes.
func (c *Coordinator) enter() error {
	c.closeMu.RLock()
	defer c.closeMu.RUnlock()
	if c.closing.Load() {
		return ErrDraining
	}
	c.inFlight.Add(1)
	return nil
}

// Close refuses new calls with ErrDraining, ends those that hold a lease or watch a cart, and waits for the others
// under way, or for ctx.
func (c *Coordinator) Close(ctx context.Context) error {
	c.closeMu.Lock()
	if !c.closing.Swap(true) {
		close(c.ending)
	}
	c.closeMu.Unlock()
	c.leaveQueues()
	done := make(chan struct{})
	go func() { c.inFlight.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Read returns the cart as it is in the backend, never half changed.
func (c *Coordinator) Read(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.inFlight.Done()
	return c.read(ctx, key)
}

func (c *Coordinator) read(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	if err := spent(ctx); err != nil {
		return nil, err
	}
	seen := c.cache.stamp(key)
	k, err := c.store.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	if k.Transfer != nil {
		return c.readInTransfer(ctx, key, k)
	}
	c.cache.offer(key, k, seen)
	return k, nil
}

// Change makes one change. What it answers is acknowledged: it is in the backend.
func (c *Coordinator) Change(ctx context.Context, key cart.Key, ch Change) (Result, error) {
	if err := c.enter(); err != nil {
		return Result{}, err
	}
	defer c.inFlight.Done()
	return c.change(ctx, key, ch, false)
}

// change makes one change, or forgets the cart. Under a lease it does not queue for parts that the lease does not
// cover, since it could then wait for others who wait for its lease. It asks again until the parts are free or the wait
// time has passed.
func (c *Coordinator) change(ctx context.Context, key cart.Key, ch Change, forget bool) (Result, error) {
	if err := c.canLease(ch); err != nil {
		return Result{}, err
	}
	if ch.Request.Key != "" && c.lockAwaited(key) { // a repeat does not queue for it
		if again, ok, err := c.lookUp(ctx, key, ch.Request); ok || err != nil {
			return again, err
		}
	}
	expires := time.Now().Add(c.opts.Load().WaitTimeout)
	for attempt := 0; ; attempt++ {
		res, err := c.submit(ctx, key, &op{Change: ch, forget: forget, expires: expires})
		if heldUp(err) {
			if again, ok, e := c.lookUp(ctx, key, ch.Request); ok || errors.Is(e, ErrKeyReused) {
				return again, e
			}
		}
		if !errors.Is(err, errHeld) {
			return res, c.noteLease(key, ch, err)
		}
		wait, cancel := context.WithDeadline(ctx, expires)
		err = pause(wait, attempt)
		cancel()
		if err != nil {
			if errors.Is(err, storage.ErrLockTimeout) {
				c.stats.timeouts.Add(1)
			}
			return Result{}, err
		}
	}
}

// Forget removes the cart; Change.Verb is nil. Changed says whether there was one; Cart is the zero cart.
func (c *Coordinator) Forget(ctx context.Context, key cart.Key, ch Change) (Result, error) {
	if err := c.enter(); err != nil {
		return Result{}, err
	}
	defer c.inFlight.Done()
	return c.forget(ctx, key, ch)
}

func (c *Coordinator) forget(ctx context.Context, key cart.Key, ch Change) (Result, error) {
	ch.Scope = cart.PartAll
	return c.change(ctx, key, ch, true)
}

// ForgetAll removes every cart of an identifier, each as one change, and returns how many there were.
func (c *Coordinator) ForgetAll(ctx context.Context, identifier string) (int, error) {
	if err := c.enter(); err != nil {
		return 0, err
	}
	defer c.inFlight.Done()
	instances, err := c.store.Instances(ctx, identifier)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, i := range instances {
		r, err := c.forget(ctx, cart.Key{Identifier: identifier, Instance: i}, Change{})
		if err != nil {
			return n, err
		}
		if r.Changed {
			n++
		}
	}
	return n, nil
}

// Instances lists the instances that exist of an identifier, sorted.
func (c *Coordinator) Instances(ctx context.Context, identifier string) ([]string, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.inFlight.Done()
	return c.store.Instances(ctx, identifier)
}

// Flush removes all carts of the store's prefix, and all checkouts.
func (c *Coordinator) Flush(ctx context.Context) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.inFlight.Done()
	c.cache.clear()
	err := c.store.Flush(ctx)
	c.cache.clear() // what was put in during the flush may be from before it
	if err == nil && c.snapshots.apart {
		err = c.snapshots.flush(ctx)
	}
	if err == nil {
		c.leases.clear()
	}
	return err
}

// How long a call pauses before it asks again, if nothing wakes it.
const (
	pauseMin = 2 * time.Millisecond
	pauseMax = 50 * time.Millisecond
)

// pause waits before the next attempt, longer each time, with jitter. The end of ctx's time is storage.ErrLockTimeout.
func pause(ctx context.Context, attempt int) error {
	d := min(pauseMin<<min(attempt, 10), pauseMax)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return storage.ErrLockTimeout
		}
		return ctx.Err()
	}
}
