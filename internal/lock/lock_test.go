package lock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

var key = cart.Key{Identifier: "u1", Instance: "default"}

func options() lock.Options {
	return lock.Options{
		Locking: true, Reason: "Configured", WaitTimeout: 5 * time.Second, LeaseDuration: 5 * time.Second,
		TTL: time.Hour, Limits: cart.DefaultLimits(), Holder: "test",
	}
}

func item(t testing.TB, id string, quantity int) cart.AddItem {
	t.Helper()
	it, err := cart.ParseItem("item", fmt.Appendf(nil, `{"id":%q,"quantity":%d}`, id, quantity), cart.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return cart.AddItem{Item: it}
}

func add(t testing.TB, c *lock.Coordinator, id string) (lock.Result, error) {
	t.Helper()
	return c.Change(t.Context(), key, lock.Change{Verb: item(t, id, 1), Scope: cart.PartItems})
}

// must is for what has to succeed: must(t)(c.Change(…)).
func must(t testing.TB) func(lock.Result, error) lock.Result {
	return func(r lock.Result, err error) lock.Result {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func read(t testing.TB, c *lock.Coordinator, key cart.Key) *cart.Cart {
	t.Helper()
	k, err := c.Read(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func quantity(t testing.TB, k *cart.Cart, id string) (n int) {
	t.Helper()
	raw, ok := k.Items.Object.Get(id)
	if !ok {
		return 0
	}
	o, err := cart.TrustedObject(raw)
	if err != nil {
		t.Fatal(err)
	}
	q, _ := o.Get("quantity")
	if _, err := fmt.Sscan(string(q), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Concurrent changes of one cart gather into fewer commits, and each gets a version of its own.
func TestChangesGather(t *testing.T) {
	gate := newGate(openMemory(t))
	c := lock.New(gate, options())
	const n = 50
	gate.close()
	versions := make([]uint64, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r, err := add(t, c, "x")
			if err != nil {
				t.Error(err)
				return
			}
			versions[i] = r.Cart.Version
		})
	}
	until(t, "all but one wait", func() bool { return c.Status().Stats.Waiting == n-1 })
	if q := c.Status().Queues; len(q) != 1 || q[0].Key != key || q[0].Waiting != n-1 {
		t.Errorf("queues: %+v", q)
	}
	gate.open()
	wg.Wait()
	slices.Sort(versions)
	for i, v := range versions {
		if v != uint64(i+1) {
			t.Fatalf("versions of the answers: %v", versions)
		}
	}
	if got := quantity(t, read(t, c, key), "x"); got != n {
		t.Errorf("%d of %d adds are in the cart", got, n)
	}
	if s := c.Status().Stats; s.Commits != 2 || s.Changes != n {
		t.Errorf("%d changes went out in %d commits, not 2", s.Changes, s.Commits)
	}
}

// Waiters of one cart are served in the order in which they came.
func TestLineIsFirstInFirstOut(t *testing.T) {
	gate := newGate(openMemory(t))
	c := lock.New(gate, options())
	gate.close()
	const n = 10
	results := make([]lock.Result, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i], _ = add(t, c, "x") })
		if i == 0 {
			until(t, "the first is under way", func() bool { return gate.waiting.Load() == 1 })
		} else {
			until(t, "it waits", func() bool { return c.Status().Stats.Waiting == int64(i) })
		}
	}
	gate.open()
	wg.Wait()
	for i, r := range results {
		if r.Cart == nil || r.Cart.Version != uint64(i+1) {
			t.Errorf("change %d got %+v", i, r.Cart)
		}
	}
}

// A failing change among others has its own answer and leaves nothing behind.
func TestBatchKeepsAnswersApart(t *testing.T) {
	gate := newGate(openMemory(t))
	c := lock.New(gate, options())
	must(t)(add(t, c, "x"))
	gate.close()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = add(t, c, "x") })
	until(t, "the first is under way", func() bool { return gate.waiting.Load() == 1 })
	var missing, stale error
	wg.Go(func() {
		_, missing = c.Change(t.Context(), key, lock.Change{Verb: cart.UpdateItem{ID: "nowhere"}, Scope: cart.PartItems})
	})
	wg.Go(func() {
		_, stale = c.Change(t.Context(), key, lock.Change{Verb: item(t, "y", 1), Scope: cart.PartItems, If: cart.Precondition{IfMatch: []string{"garbage"}}})
	})
	wg.Go(func() { _, _ = add(t, c, "z") })
	until(t, "three wait", func() bool { return c.Status().Stats.Waiting == 3 })
	gate.open()
	wg.Wait()
	if !errors.Is(missing, cart.ErrNotFound) || !errors.Is(stale, cart.ErrConflict) {
		t.Errorf("errors are %v and %v", missing, stale)
	}
	k := read(t, c, key)
	if quantity(t, k, "x") != 2 || quantity(t, k, "y") != 0 || quantity(t, k, "z") != 1 || k.Version != 3 {
		t.Errorf("the cart is version %d, %s", k.Version, k.Items.Object.Bytes())
	}
}

// A change whose caller gave up while it waited is not made.
func TestCancelledChangeIsNotMade(t *testing.T) {
	gate := newGate(openMemory(t))
	c := lock.New(gate, options())
	gate.close()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = add(t, c, "x") })
	until(t, "the first is under way", func() bool { return gate.waiting.Load() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	var err error
	wg.Go(func() {
		_, err = c.Change(ctx, key, lock.Change{Verb: item(t, "y", 1), Scope: cart.PartItems})
	})
	until(t, "it waits", func() bool { return c.Status().Stats.Waiting == 1 })
	cancel()
	until(t, "it is gone", func() bool { return c.Status().Stats.Waiting == 0 })
	gate.open()
	wg.Wait()
	if k := read(t, c, key); !errors.Is(err, context.Canceled) || k.Items.Object.Len() != 1 {
		t.Errorf("error %v, items %s", err, k.Items.Object.Bytes())
	}
}

// The wait in the queue is bounded as well.
func TestWaitInLineTimesOut(t *testing.T) {
	gate := newGate(openMemory(t))
	o := options()
	o.WaitTimeout = 30 * time.Millisecond
	c := lock.New(gate, o)
	gate.close()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = add(t, c, "x") })
	until(t, "the first is under way", func() bool { return gate.waiting.Load() == 1 })
	if _, err := add(t, c, "y"); !errors.Is(err, storage.ErrLockTimeout) {
		t.Errorf("error is %v", err)
	}
	gate.open()
	wg.Wait()
	if got := c.Status().Stats.Timeouts; got != 1 {
		t.Errorf("%d timeouts counted", got)
	}
}

// Several sidecars on one backend, in every combination of modes: nothing is lost.
func TestSeveralWritersLoseNothing(t *testing.T) {
	for name, open := range sharedBackends {
		for _, modes := range [][]bool{{true, true, true}, {false, false, false}, {true, false, true}} {
			t.Run(fmt.Sprintf("%s/%v", name, modes), func(t *testing.T) {
				store := open(t)
				var wg sync.WaitGroup
				var last *lock.Coordinator
				for i, locking := range modes {
					o := options()
					o.Locking = locking
					c := lock.New(store(), o)
					last = c
					for j := range 2 {
						wg.Go(func() {
							for range addsEach {
								if _, err := add(t, c, "x"); err != nil {
									t.Errorf("writer %d.%d: %v", i, j, err)
								}
							}
						})
					}
				}
				wg.Wait()
				want := len(modes) * 2 * addsEach
				if k := read(t, last, key); quantity(t, k, "x") != want || k.Version != uint64(want) {
					t.Errorf("%d adds of %d are in the cart, at version %d", quantity(t, k, "x"), want, k.Version)
				}
			})
		}
	}
}

// Simple mode meets another writer and turns locking on, once, and says so.
func TestTripwire(t *testing.T) {
	for name, open := range sharedBackends {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			var events atomic.Int32
			o := options()
			o.Locking, o.Reason = false, "OneReplica"
			o.OnEvent = func(e lock.Event) {
				if e.Kind == lock.EventForeignWriter && e.Key == key {
					events.Add(1)
				}
			}
			a, b := lock.New(store(), o), lock.New(store(), options())
			must(t)(add(t, a, "x"))
			must(t)(add(t, a, "x"))
			if s := a.Status(); s.Locking || s.Reason != "OneReplica" || s.ForeignWriters != 0 {
				t.Fatalf("before: %+v", s)
			}
			must(t)(add(t, b, "x"))
			must(t)(add(t, a, "x"))
			if s := a.Status(); !s.Locking || s.Reason != lock.EventForeignWriter || s.ForeignWriters != 1 || events.Load() != 1 {
				t.Errorf("after: %+v, %d events", s, events.Load())
			}
			a.Update(o) // the configuration still says that there is one replica
			if s := a.Status(); !s.Locking {
				t.Error("the same configuration turned locking off again")
			}
			if got := quantity(t, read(t, a, key), "x"); got != 4 {
				t.Errorf("%d of 4 adds are in the cart", got)
			}
		})
	}
}

// What a verb says of a cart is never said from a remembered state only.
func TestAnswersAreOfTheCurrentState(t *testing.T) {
	for name, open := range sharedBackends {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			a, b := lock.New(store(), options()), lock.New(store(), options())
			_ = read(t, a, key) // a remembers that there is nothing
			must(t)(add(t, b, "x"))
			patch, err := cart.ParseItemPatch("item", []byte(`{"quantity":7}`), cart.DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			r := must(t)(a.Change(t.Context(), key, lock.Change{Verb: cart.UpdateItem{ID: "x", Item: patch}, Scope: cart.PartItems}))
			if quantity(t, r.Cart, "x") != 7 {
				t.Errorf("items are %s", r.Cart.Items.Object.Bytes())
			}
			must(t)(b.Change(t.Context(), key, lock.Change{Verb: cart.RemoveItem{ID: "x"}, Scope: cart.PartItems}))
			_, err = a.Change(t.Context(), key, lock.Change{Verb: cart.UpdateItem{ID: "x", Item: patch}, Scope: cart.PartItems})
			if !errors.Is(err, cart.ErrNotFound) {
				t.Errorf("update of a removed item: %v", err)
			}
		})
	}
}

// A lock that another holder has is waited for, part by part, and a dead holder's ends with its lease.
func TestHeldLock(t *testing.T) {
	for name, open := range sharedBackends {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			o := options()
			o.WaitTimeout = 150 * time.Millisecond
			for _, locking := range []bool{true, false} {
				o.Locking = locking
				c := lock.New(store(), o)
				locker := store().(storage.Locker)
				claim := storage.Claim{Token: storage.NewToken(), Holder: "other", Parts: []cart.Part{cart.PartItems}, Duration: time.Minute}
				if _, err := locker.Acquire(t.Context(), key, claim, false); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if _, err := add(t, c, "x"); !errors.Is(err, storage.ErrLockTimeout) {
					t.Errorf("add under another's lock: %v", err)
				}
				if waited := time.Since(began); waited < o.WaitTimeout {
					t.Errorf("gave up after %v", waited)
				}
				_, err := c.Change(t.Context(), key, lock.Change{Verb: cart.PatchMetadata{Values: []cart.Member{{Key: "k", Value: []byte("1")}}}, Scope: cart.PartMetadata("k")})
				if err != nil {
					t.Errorf("a change of another part: %v", err)
				}
				if _, err := c.Forget(t.Context(), key, lock.Change{}); !errors.Is(err, storage.ErrLockTimeout) {
					t.Errorf("forget under another's lock: %v", err)
				}
				// A waiting change goes on when the lock is given back.
				long := o
				long.WaitTimeout = 10 * time.Second
				c.Update(long)
				done := make(chan error, 1)
				go func() { _, err := add(t, c, "x"); done <- err }()
				until(t, "it waits", func() bool { return c.Status().Stats.Waiting == 1 })
				if err := locker.Abandon(t.Context(), key, claim.Token); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
				// The lock of a holder that never comes back ends with its lease.
				claim.Token, claim.Duration = storage.NewToken(), 300*time.Millisecond
				if _, err := locker.Acquire(t.Context(), key, claim, false); err != nil {
					t.Fatal(err)
				}
				if _, err := add(t, c, "x"); err != nil {
					t.Errorf("after the lease: %v", err)
				}
				if err := c.Close(t.Context()); err != nil {
					t.Error(err)
				}
				if _, err := add(t, c, "x"); !errors.Is(err, lock.ErrDraining) {
					t.Errorf("a change after Close: %v", err)
				}
			}
		})
	}
}

// A lock of another holder over one part does not hold up changes of other parts that came to the queue with those that
// wait.
func TestHeldLockDoesNotHoldUpOtherParts(t *testing.T) {
	store := openMemory(t)
	gate := newGate(store)
	c := lock.New(gate, options())
	claim := storage.Claim{Token: storage.NewToken(), Parts: []cart.Part{cart.PartItems}, Duration: time.Minute}
	if _, err := store.Acquire(t.Context(), key, claim, false); err != nil {
		t.Fatal(err)
	}
	gate.close()
	var wg sync.WaitGroup
	meta := func(k string) error {
		_, err := c.Change(t.Context(), key, lock.Change{Verb: cart.PatchMetadata{Values: []cart.Member{{Key: k, Value: []byte("1")}}}, Scope: cart.PartMetadata(k)})
		return err
	}
	wg.Go(func() { _ = meta("a") })
	until(t, "the first is under way", func() bool { return gate.waiting.Load() == 1 })
	var added, set error
	itemsDone := make(chan struct{})
	go func() { _, added = add(t, c, "x"); close(itemsDone) }()
	until(t, "one waits", func() bool { return c.Status().Stats.Waiting == 1 })
	wg.Go(func() { set = meta("b") })
	until(t, "two wait", func() bool { return c.Status().Stats.Waiting == 2 })
	gate.open()
	wg.Wait() // the metadata go through while the lock is held
	if set != nil {
		t.Error(set)
	}
	select {
	case <-itemsDone:
		t.Errorf("the items changed under another's lock: %v", added)
	default:
	}
	if err := store.Abandon(t.Context(), key, claim.Token); err != nil {
		t.Fatal(err)
	}
	<-itemsDone
	if added != nil {
		t.Error(added)
	}
}

// until waits for a state that is about to come.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		time.Sleep(time.Millisecond) // polls a condition; nothing depends on how long
	}
}

// gate is a real store whose commits can be held up.
type gate struct {
	storage.Locker
	waiting atomic.Int32
	mu      sync.RWMutex
}

func newGate(s storage.Locker) *gate  { return &gate{Locker: s} }
func (g *gate) close()                { g.mu.Lock() }
func (g *gate) open()                 { g.mu.Unlock() }
func (g *gate) Unwrap() storage.Store { return g.Locker }

func (g *gate) Commit(ctx context.Context, cs ...storage.Commit) ([]storage.Outcome, error) {
	g.waiting.Add(1)
	g.mu.RLock()
	defer g.mu.RUnlock()
	g.waiting.Add(-1)
	return g.Locker.Commit(ctx, cs...)
}

// split is a real store that cannot change two carts in one step, and whose commits fail after some as if the sidecar
// had died.
type split struct {
	storage.Locker
	left *atomic.Int32 // commits until it dies
}

var errDied = fmt.Errorf("the sidecar died: %w", storage.ErrUnavailable)

func (s split) Atomic(a, b cart.Key) bool { return a == b }
func (s split) Unwrap() storage.Store     { return s.Locker }

func (s split) Commit(ctx context.Context, cs ...storage.Commit) ([]storage.Outcome, error) {
	if len(cs) > 1 {
		return nil, storage.ErrUnsupported
	}
	if s.left.Add(-1) < 0 {
		return nil, errDied
	}
	return s.Locker.Commit(ctx, cs...)
}

// A hand-over that died after any of its steps is finished by the next who asks for it: nothing is lost and nothing
// counted twice.
func TestHandOverInStepsIsResumed(t *testing.T) {
	from, to := cart.Key{Identifier: "guest", Instance: "default"}, cart.Key{Identifier: "user", Instance: "default"}
	resumes := map[string]func(t *testing.T, c *lock.Coordinator){
		"the same again": func(t *testing.T, c *lock.Coordinator) {
			if r := must(t)(c.HandOver(t.Context(), from, to, cart.StrategyAddQuantities, lock.Change{})); !r.Changed && quantity(t, r.Cart, "x") == 0 {
				t.Errorf("asked again: %+v", r)
			}
		},
		"a change of the source": func(t *testing.T, c *lock.Coordinator) {
			must(t)(c.Change(t.Context(), from, lock.Change{Verb: item(t, "late", 1), Scope: cart.PartItems}))
			must(t)(c.HandOver(t.Context(), from, to, cart.StrategyAddQuantities, lock.Change{}))
		},
		"another hand-over": func(t *testing.T, c *lock.Coordinator) {
			other := cart.Key{Identifier: "other", Instance: "default"}
			must(t)(c.Change(t.Context(), other, lock.Change{Verb: item(t, "z", 1), Scope: cart.PartItems}))
			must(t)(c.HandOver(t.Context(), other, to, cart.StrategyAddQuantities, lock.Change{}))
			must(t)(c.HandOver(t.Context(), from, to, cart.StrategyAddQuantities, lock.Change{}))
		},
	}
	for name, resume := range resumes {
		for dies := range 4 {
			t.Run(fmt.Sprintf("%s/dies after %d commits", name, dies), func(t *testing.T) {
				store := openMemory(t)
				whole := func() *lock.Coordinator {
					left := new(atomic.Int32)
					left.Store(1 << 20)
					return lock.New(split{store, left}, options())
				}
				setup := whole()
				must(t)(setup.Change(t.Context(), from, lock.Change{Verb: item(t, "x", 2), Scope: cart.PartItems}))
				must(t)(setup.Change(t.Context(), to, lock.Change{Verb: item(t, "x", 3), Scope: cart.PartItems}))

				left := new(atomic.Int32)
				left.Store(int32(dies))
				_, err := lock.New(split{store, left}, options()).HandOver(t.Context(), from, to, cart.StrategyAddQuantities, lock.Change{})
				if died := errors.Is(err, errDied); died != (dies < 3) {
					t.Fatalf("hand-over: %v", err)
				}
				// Readers see the items in exactly one of the carts.
				c := whole()
				g, u := quantity(t, read(t, c, from), "x"), quantity(t, read(t, c, to), "x")
				if !(g == 2 && u == 3) && !(g == 0 && u == 5) {
					t.Errorf("half-way the guest has %d and the user %d", g, u)
				}
				resume(t, c)
				g, u = quantity(t, read(t, c, from), "x"), quantity(t, read(t, c, to), "x")
				if g != 0 || u != 5 {
					t.Errorf("the guest has %d and the user %d", g, u)
				}
				if name == "a change of the source" && quantity(t, read(t, c, to), "late") != 1 {
					t.Error("the late item is lost")
				}
			})
		}
	}
}

// Many hand-overs and adds at once, in one step and in several: the sum is kept.
func TestHandOversKeepTheSum(t *testing.T) {
	for _, atomically := range []bool{true, false} {
		t.Run(fmt.Sprintf("atomic=%v", atomically), func(t *testing.T) {
			var store storage.Store = openMemory(t)
			if !atomically {
				left := new(atomic.Int32)
				left.Store(1 << 30)
				store = split{store.(storage.Locker), left}
			}
			coordinators := []*lock.Coordinator{lock.New(store, options()), lock.New(store, options())}
			keys := []cart.Key{{Identifier: "a", Instance: "d"}, {Identifier: "b", Instance: "d"}, {Identifier: "c", Instance: "d"}}
			const each = 40
			var wg sync.WaitGroup
			for i, c := range coordinators {
				for j, k := range keys {
					wg.Go(func() {
						for range each {
							if _, err := c.Change(t.Context(), k, lock.Change{Verb: item(t, "x", 1), Scope: cart.PartItems}); err != nil {
								t.Error(err)
							}
							if _, err := c.HandOver(t.Context(), k, keys[(j+1+i)%len(keys)], cart.StrategyAddQuantities, lock.Change{}); err != nil {
								t.Error(err)
							}
						}
					})
				}
			}
			wg.Wait()
			sum := 0
			for _, k := range keys {
				sum += quantity(t, read(t, coordinators[0], k), "x")
			}
			if want := len(coordinators) * len(keys) * each; sum != want {
				t.Errorf("%d of %d are left", sum, want)
			}
		})
	}
}

// A hand-over waits for the locks of both carts, and one that is refused changes nothing.
func TestHandOverHonoursLocks(t *testing.T) {
	store := openMemory(t)
	o := options()
	o.WaitTimeout = 50 * time.Millisecond
	c := lock.New(store, o)
	to := cart.Key{Identifier: "u2", Instance: "default"}
	must(t)(add(t, c, "x"))
	for _, locked := range []cart.Key{key, to} {
		claim := storage.Claim{Token: storage.NewToken(), Parts: []cart.Part{cart.PartMetadata("k")}, Duration: time.Minute}
		if _, err := store.Acquire(t.Context(), locked, claim, false); err != nil {
			t.Fatal(err)
		}
		if _, err := c.HandOver(t.Context(), key, to, cart.StrategySwap, lock.Change{}); !errors.Is(err, storage.ErrLockTimeout) {
			t.Errorf("with a lock on %s: %v", locked, err)
		}
		if err := store.Abandon(t.Context(), locked, claim.Token); err != nil {
			t.Fatal(err)
		}
	}
	r := must(t)(c.HandOver(t.Context(), key, to, cart.StrategySwap, lock.Change{}))
	if !r.Changed || quantity(t, r.Cart, "x") != 1 || read(t, c, key).Exists() {
		t.Errorf("swap: %+v", r)
	}
	again := must(t)(c.HandOver(t.Context(), key, to, cart.StrategySwap, lock.Change{}))
	if again.Changed || quantity(t, again.Cart, "x") != 1 {
		t.Errorf("swap of nothing: %+v", again)
	}
	self := must(t)(c.HandOver(t.Context(), to, to, cart.StrategySwap, lock.Change{}))
	if self.Changed || quantity(t, self.Cart, "x") != 1 || self.Cart.Version != r.Cart.Version {
		t.Errorf("swap onto itself: %+v", self)
	}
}

// What alters nothing succeeds, keeps the version and renews the life of the cart.
func TestNoOpRenewsTheLife(t *testing.T) {
	c := lock.New(openMemory(t), options())
	r := must(t)(add(t, c, "x"))
	// The clock of expiry counts milliseconds.
	until(t, "the next millisecond", func() bool { return time.Since(r.Cart.UpdatedAt) > 2*time.Millisecond })
	same := must(t)(c.Change(t.Context(), key, lock.Change{Verb: cart.RemoveItem{ID: "other"}, Scope: cart.PartItems}))
	if same.Changed || same.Cart.Version != 1 || !same.Cart.ExpiresAt.After(r.Cart.ExpiresAt) {
		t.Errorf("first %+v\nthen %+v", r.Cart, same.Cart)
	}
	if got := read(t, c, key); !got.ExpiresAt.Equal(same.Cart.ExpiresAt) {
		t.Errorf("expires %v, was answered %v", got.ExpiresAt, same.Cart.ExpiresAt)
	}
}

func TestTokens(t *testing.T) {
	a, b := storage.NewToken(), storage.NewToken()
	if len(a) != 22 || a == b || strings.ContainsAny(a, "+/=") {
		t.Errorf("tokens %q, %q", a, b)
	}
}

// A change that overtakes no other: a forget between two adds takes the first with it and not the second.
func TestForgetKeepsItsPlace(t *testing.T) {
	gate := newGate(openMemory(t))
	c := lock.New(gate, options())
	gate.close()
	var wg sync.WaitGroup
	for i, change := range []func() error{
		func() error { _, err := add(t, c, "first"); return err },
		func() error { _, err := add(t, c, "second"); return err },
		func() error { _, err := c.Forget(t.Context(), key, lock.Change{}); return err },
		func() error { _, err := add(t, c, "third"); return err },
	} {
		wg.Go(func() {
			if err := change(); err != nil {
				t.Error(err)
			}
		})
		if i == 0 {
			until(t, "the first is under way", func() bool { return gate.waiting.Load() == 1 })
		} else {
			until(t, "it waits", func() bool { return c.Status().Stats.Waiting == int64(i) })
		}
	}
	gate.open()
	wg.Wait()
	if k := read(t, c, key); k.Version != 1 || quantity(t, k, "third") != 1 || k.Items.Object.Len() != 1 {
		t.Errorf("the cart is version %d, %s", k.Version, k.Items.Object.Bytes())
	}
}

// What is about the whole cart depends on all of it, also on parts that another sidecar changed and the change does not
// touch.
func TestWholeCartIsOfOneInstant(t *testing.T) {
	for name, open := range sharedBackends {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			a, b := lock.New(store(), options()), lock.New(store(), options())
			first := must(t)(add(t, a, "x")).Cart
			meta := cart.PatchMetadata{Values: []cart.Member{{Key: "k", Value: []byte(`1`)}}}
			must(t)(b.Change(t.Context(), key, lock.Change{Verb: meta, Scope: cart.PartMetadata("k")}))

			// The etag of the whole cart is stale although the items are not.
			_, err := a.Change(t.Context(), key, lock.Change{Verb: item(t, "x", 1), Scope: cart.PartItems, If: cart.Precondition{IfMatch: []string{first.ETag()}}})
			if conflict := new(cart.ConflictError); !errors.As(err, &conflict) || conflict.Attempted != 1 {
				t.Errorf("an etag of before: %v", err)
			}
			must(t)(b.Change(t.Context(), key, lock.Change{Verb: cart.PatchMetadata{Values: []cart.Member{{Key: "k", Value: []byte(`2`)}}}, Scope: cart.PartMetadata("k")}))
			r := must(t)(a.Change(t.Context(), key, lock.Change{Verb: cart.Batch{Verbs: []cart.Verb{item(t, "x", 1)}}, Scope: cart.PartAll}))
			if v, _ := r.Cart.MetadataValue("k"); string(v) != "2" || r.Cart.Version != 4 {
				t.Errorf("the answer has metadata %s at version %d", v, r.Cart.Version)
			}
			// The items alone are answered with the version that they really have.
			must(t)(b.Change(t.Context(), key, lock.Change{Verb: meta, Scope: cart.PartMetadata("k")}))
			r = must(t)(a.Change(t.Context(), key, lock.Change{Verb: item(t, "x", 1), Scope: cart.PartItems}))
			if now := read(t, b, key); r.Cart.PartETag(cart.PartItems) != now.PartETag(cart.PartItems) || now.Version != 6 {
				t.Errorf("items were answered at version %d, and are at %d", r.Cart.Items.Version, now.Items.Version)
			}
		})
	}
}

// A commit that meets another state is computed anew in the same step. On Redis, whose steps run in the server, it
// takes its turn in the same round trip and succeeds with the next. It leaves no lock behind.
func TestConflictTakesTheTurn(t *testing.T) {
	for name, open := range sharedBackends {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			a, b := lock.New(store(), options()), lock.New(store(), options())
			must(t)(add(t, a, "x"))
			must(t)(add(t, b, "x"))
			before := a.Status().Stats
			must(t)(add(t, a, "x"))
			after := a.Status().Stats
			want := uint64(1)
			if name == "redis" {
				want = 2
			}
			if n := after.Commits - before.Commits; n != want || after.Conflicts-before.Conflicts != 1 || after.Acquired != before.Acquired {
				t.Errorf("a change that met a conflict: before %+v, after %+v", before, after)
			}
			outs, err := store().Commit(t.Context(), storage.Commit{Key: key, Expect: storage.Expect{ID: read(t, b, key).ID}, Locks: storage.Locks{Parts: []cart.Part{cart.PartAll}}})
			if err != nil || outs[0].Status != storage.Committed {
				t.Errorf("after it, a check of the whole cart: %+v, %v", outs, err)
			}
		})
	}
}

// Sidecars that take turns keep a place for the next change; none of them is left behind, and Close does not wait for a
// turn that nobody needs.
func TestCloseLeavesTheQueue(t *testing.T) {
	for name, open := range sharedBackends {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			a, b := lock.New(store(), options()), lock.New(store(), options())
			var wg sync.WaitGroup
			for _, c := range []*lock.Coordinator{a, b} {
				wg.Go(func() {
					for range 100 {
						if _, err := add(t, c, "x"); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			for _, c := range []*lock.Coordinator{a, b} {
				if err := c.Close(ctx); err != nil {
					t.Error(err)
				}
			}
			locker := store().(storage.Locker)
			claim := storage.Claim{Token: storage.NewToken(), Parts: []cart.Part{cart.PartAll}, Duration: time.Second}
			g, err := locker.Acquire(ctx, key, claim, false)
			if err != nil || quantity(t, g.Cart, "x") != 200 {
				t.Errorf("after both have gone: %+v, %v", g, err)
			}
		})
	}
}
