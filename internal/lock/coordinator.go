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

// Sentinels of this package, beside those of storage. They are matched with errors.Is.
var (
	// ErrDraining is returned when the coordinator is stopping.
	ErrDraining = errors.New("stopping")
	// ErrBusy is returned when a request's time ended before the backend was asked. The sidecar itself was too slow,
	// and nothing was changed.
	ErrBusy = errors.New("the sidecar did not get to it in time; nothing was changed")
)

// Errors lists every sentinel, for tables that must be complete.
var Errors = []error{ErrDraining, ErrBusy, ErrKeyReused, ErrEmptyCart, ErrAlreadySettled, ErrNoCheckouts}

// Options are what a [Coordinator] runs with.
type Options struct {
	// Locking turns distributed locking on, if the store can lock across replicas.
	Locking bool
	// Reason says why locking is on or off, for the status: "Configured", "MultipleReplicas".
	Reason string
	// WaitTimeout is how long a change waits for a lock at most.
	WaitTimeout time.Duration
	// LeaseDuration is how long a lock lives if its holder does not renew it.
	LeaseDuration time.Duration
	// TTL is how long a cart lives after its last change; 0 is for ever.
	TTL time.Duration
	// IdempotencyWindow is how long a cart remembers the requests that were made under idempotency keys. 0 means for
	// the cart's life. They end with the cart in any case.
	IdempotencyWindow time.Duration
	// CheckoutRetention is how long a checkout is kept after it was settled or expired, whichever came last.
	CheckoutRetention time.Duration
	// Limits bound the carts.
	Limits cart.Limits
	// Holder names this sidecar for people who look at a lock.
	Holder string
	// CallOf names the call of a context, such as "AddItem", for an audit trail; nil leaves it out. It is called only
	// if the store is a [storage.Auditor].
	CallOf func(ctx context.Context) string
	// OnEvent receives the events that operators should see; nil drops them. It must not block.
	OnEvent func(Event)
}

// Event is something that deserves a log line and a metric.
type Event struct {
	// Kind is one of the Event constants.
	Kind string
	// Key is the cart that it happened on, if it was one.
	Key cart.Key
	// Message describes it in a sentence.
	Message string
}

// EventForeignWriter: simple mode met a version conflict that this sidecar did not cause. From now on locking is on, if
// the store can lock.
const EventForeignWriter = "ForeignWriter"

// Change is a request to change one cart.
type Change struct {
	// Verb is what to do.
	Verb cart.Verb
	// If must hold on Scope at the instant of the change.
	If    cart.Precondition
	Scope cart.Part
	// Lease is the token of the lease that the change is made under; "" for none. The change is made only if the lease
	// is held at that instant, and parts that it does not cover must be free. Release gives the lease back in the same
	// step if the change succeeds, even if it alters nothing.
	Lease   string
	Release bool
	// Request is the idempotency key, if any. A repeat of a request that the cart remembers changes nothing. It checks
	// no lease and no precondition, and waits for no lock.
	Request Request
}

// Result is the answer to a change.
type Result struct {
	// Cart is the cart right after this change. Parts outside of Change.Scope may be older, unless the scope is
	// PartAll.
	Cart *cart.Cart
	// Changed says whether anything was altered.
	Changed bool
	// Capped are the ids of the items whose quantity a merge capped at the limit, in the order of the cart's items. If
	// another sidecar made a step of the merge, they are not known.
	Capped []string
	// Repeat says that the request was made before. Changed and Repeat.Version are from then, and Cart is the cart as
	// it is now.
	Repeat Repeat
}

// turnTTL bounds how long a sidecar that dies in the middle of a change blocks the others. A turn covers one round trip
// to the backend. A longer turn would cost a second round trip, because its waiter would have to claim it again
// ([storage.Claim.Confirms]).
const turnTTL = storage.WaiterTTL

// Coordinator serves the carts of one store. All methods are safe for concurrent use. Errors match a sentinel of cart,
// storage or this package, or the context's error.
type Coordinator struct {
	store  storage.Store
	locker storage.Locker // nil if locks cannot exclude other sidecars
	audits bool           // the store keeps an audit trail
	// snapshots is where new checkouts are stored: the store of the carts, or one of their own.
	snapshots records
	opts      atomic.Pointer[Options]
	mode      mode
	shards    [64]shard
	cache     *cache
	stats     stats
	leases    leases
	views     *views
	// listing admits one call of List at a time.
	listing chan struct{}

	ending   chan struct{} // closed by Close
	closing  atomic.Bool
	inFlight sync.WaitGroup
	closeMu  sync.RWMutex // held for reading while inFlight grows, so that Close sees all of it
}

// New serves store's carts and keeps checkouts beside them. Close does not close the store.
func New(store storage.Store, o Options) *Coordinator { return NewHybrid(store, nil, o) }

// NewHybrid serves store's carts and keeps checkouts in another store, or beside the carts if checkouts is nil.
// Checkouts that were made beside the carts earlier stay there and are settled there. Close closes neither store.
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

// Update replaces the options while requests run. Each change keeps the options that it began with. If the tripwire
// turned locking on, it stays on until new options turn it on themselves.
func (c *Coordinator) Update(o Options) {
	c.opts.Store(&o)
	c.mode.configure(o, c.store.Capabilities())
}

// enter counts a call as under way, so that Close can wait for it. A call enters once, at its beginning. It then runs
// to its end, however many steps it takes.
func (c *Coordinator) enter() error {
	c.closeMu.RLock()
	defer c.closeMu.RUnlock()
	if c.closing.Load() {
		return ErrDraining
	}
	c.inFlight.Add(1)
	return nil
}

// Close refuses new calls with ErrDraining and ends calls that hold a lease or watch a cart. It waits until the others
// have ended, or ctx has.
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

// Change makes one change. When it returns without an error, the change is in the backend.
func (c *Coordinator) Change(ctx context.Context, key cart.Key, ch Change) (Result, error) {
	if err := c.enter(); err != nil {
		return Result{}, err
	}
	defer c.inFlight.Done()
	return c.change(ctx, key, ch, false)
}

// change makes one change, or forgets the cart. Under a lease it does not queue for parts that the lease does not
// cover, because it could then wait for others that wait for its lease. It asks again until the parts are free or the
// wait time has passed.
func (c *Coordinator) change(ctx context.Context, key cart.Key, ch Change, forget bool) (Result, error) {
	if err := c.canLease(ch); err != nil {
		return Result{}, err
	}
	if ch.Request.Key != "" && c.lockAwaited(key) { // a repeat need not queue for the lock
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

// Instances lists the existing instances of an identifier, sorted.
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
	c.cache.clear() // entries added during the flush may be from before it
	if err == nil && c.snapshots.apart {
		err = c.snapshots.flush(ctx)
	}
	if err == nil {
		c.leases.clear()
	}
	return err
}

// How long a call pauses before it asks again, unless something wakes it.
const (
	pauseMin = 2 * time.Millisecond
	pauseMax = 50 * time.Millisecond
)

// pause waits before the next attempt, longer each time, with jitter. When ctx ends, it returns storage.ErrLockTimeout.
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
