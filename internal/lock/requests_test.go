package lock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
)

// keyed is a change of the items under an idempotency key. Its sum is that of what it says.
func keyed(verb cart.Verb, key string, sum byte) lock.Change {
	return lock.Change{Verb: verb, Scope: cart.PartItems, Request: lock.Request{Key: key, Sum: cart.Sum{sum}}}
}

// Attempts of one request that come at once, through several sidecars, make one change; all are answered with it.
func TestRequestsAreMadeOnce(t *testing.T) {
	for name, open := range sharedBackends {
		for _, locking := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " locking ", locking), func(t *testing.T) {
				t.Parallel()
				again := open(t)
				const sidecars, requests = 3, 12
				o := options()
				o.Locking, o.WaitTimeout = locking, 30*time.Second
				var cs [sidecars]*lock.Coordinator
				for i := range cs {
					cs[i] = lock.New(again(), o)
				}
				var (
					wg       sync.WaitGroup
					firsts   [requests]atomic.Int64
					versions sync.Map
				)
				for i := range requests {
					for s := range 2 * sidecars {
						wg.Go(func() {
							r, err := cs[s%sidecars].Change(t.Context(), key, keyed(item(t, "x", 1), fmt.Sprint("key-", i), byte(i)))
							if err != nil {
								t.Error(err)
								return
							}
							version := r.Repeat.Version
							if version == 0 {
								firsts[i].Add(1)
								version = r.Cart.Version
							}
							if v, seen := versions.LoadOrStore(i, version); seen && v != version {
								t.Errorf("request %d made version %d and version %d", i, v, version)
							}
						})
					}
				}
				wg.Wait()
				for i := range firsts {
					if n := firsts[i].Load(); n != 1 {
						t.Errorf("request %d was made %d times", i, n)
					}
				}
				if k := read(t, cs[0], key); quantity(t, k, "x") != requests || k.Version != requests {
					t.Errorf("%d of %d, at version %d", quantity(t, k, "x"), requests, k.Version)
				}
			})
		}
	}
}

// A key that was given with another request is refused, and nothing is changed.
func TestReusedKey(t *testing.T) {
	store := openMemory(t)
	c := lock.New(store, options())
	must(t)(c.Change(t.Context(), key, keyed(item(t, "x", 1), "k", 1)))
	for range 2 { // computed from the cache, and from what the backend has
		_, err := c.Change(t.Context(), key, keyed(item(t, "x", 2), "k", 2))
		if !errors.Is(err, lock.ErrKeyReused) {
			t.Errorf("another request: %v", err)
		}
		_, err = c.Forget(t.Context(), key, lock.Change{Request: lock.Request{Key: "k", Sum: cart.Sum{3}}})
		if !errors.Is(err, lock.ErrKeyReused) {
			t.Errorf("Forget: %v", err)
		}
		to := cart.Key{Identifier: "u2", Instance: "default"}
		if _, err = c.HandOver(t.Context(), to, key, cart.StrategySwap, lock.Change{Request: lock.Request{Key: "k", Sum: cart.Sum{4}}}); !errors.Is(err, lock.ErrKeyReused) {
			t.Errorf("HandOver: %v", err)
		}
		if k := read(t, c, key); quantity(t, k, "x") != 1 || k.Version != 1 {
			t.Errorf("%d at version %d", quantity(t, k, "x"), k.Version)
		}
		c = lock.New(store, options())
	}
}

// A change that failed leaves no key, one that altered nothing does where there is a cart.
func TestWhichRequestsAreRemembered(t *testing.T) {
	c := lock.New(openMemory(t), options())
	remove := func(key string) lock.Change { return keyed(cart.RemoveItem{ID: "y"}, key, 1) }
	for range 2 {
		if r := must(t)(c.Change(t.Context(), key, remove("nothing"))); r.Changed || r.Repeat.Version != 0 {
			t.Errorf("a change of no cart: %+v", r)
		}
	}
	must(t)(c.Change(t.Context(), key, keyed(item(t, "x", 1), "add", 1)))
	for attempt := range 2 {
		if r := must(t)(c.Change(t.Context(), key, remove("remove"))); r.Changed || (r.Repeat.Version != 0) != (attempt > 0) {
			t.Errorf("attempt %d of a change that alters nothing: %+v", attempt, r)
		}
	}
	tooMany := keyed(item(t, "x", 10_000), "much", 1)
	for range 2 {
		if _, err := c.Change(t.Context(), key, tooMany); !errors.Is(err, cart.ErrInvalid) {
			t.Errorf("too many: %v", err)
		}
	}
	must(t)(c.Change(t.Context(), key, keyed(cart.RemoveItem{ID: "x"}, "empty", 1)))
	if r := must(t)(c.Change(t.Context(), key, tooMany)); !r.Changed || r.Repeat.Version != 0 {
		t.Errorf("the request that had failed: %+v", r)
	}

	// Forgetting the cart ends its keys.
	must(t)(c.Forget(t.Context(), key, lock.Change{Request: lock.Request{Key: "forget"}}))
	if r := must(t)(c.Change(t.Context(), key, keyed(item(t, "x", 1), "add", 1))); !r.Changed || r.Repeat.Version != 0 || r.Cart.Version != 1 {
		t.Errorf("in the successor: %+v", r)
	}
}

// A cart remembers its last 64 requests, within the window.
func TestRequestsAreForgotten(t *testing.T) {
	c := lock.New(openMemory(t), options())
	attempt := func(i int) lock.Result {
		return must(t)(c.Change(t.Context(), key, keyed(item(t, "x", 1), fmt.Sprint("key-", i), 1)))
	}
	for i := range cart.MaxRequests {
		attempt(i)
	}
	for i := range cart.MaxRequests {
		if r := attempt(i); r.Repeat.Version != uint64(i+1) {
			t.Fatalf("request %d is repeated: %+v", i, r.Repeat)
		}
	}
	attempt(cart.MaxRequests)
	if r := attempt(1); r.Repeat.Version != 2 {
		t.Errorf("the 64th before: %+v", r.Repeat)
	}
	if r := attempt(0); r.Repeat.Version != 0 {
		t.Errorf("the 65th before: %+v", r.Repeat)
	}
	o := options()
	o.IdempotencyWindow = time.Nanosecond
	c.Update(o)
	if r := attempt(cart.MaxRequests); r.Repeat.Version != 0 {
		t.Errorf("after the window: %+v", r.Repeat)
	}
}

// A repeat waits for no lock, and asks for neither lease nor precondition again.
func TestRepeatWaitsForNobody(t *testing.T) {
	store := openMemory(t)
	c, other := lock.New(store, options()), lock.New(store, options())
	must(t)(add(t, c, "y"))
	l, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: []cart.Part{cart.PartItems}, Wait: 0})
	if err != nil {
		t.Fatal(err)
	}
	under := keyed(item(t, "x", 1), "k", 1)
	under.Lease, under.Release = l.Token, true
	under.If.IfMatch = []string{read(t, c, key).PartETag(cart.PartItems)}
	must(t)(c.Change(t.Context(), key, under))
	for name, c := range map[string]*lock.Coordinator{"the same sidecar": c, "another": other} {
		if r := must(t)(c.Change(t.Context(), key, under)); r.Repeat.Version != 2 || quantity(t, r.Cart, "x") != 1 {
			t.Errorf("%s, the lease was given back: %+v", name, r)
		}
	}
	if _, err := other.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: []cart.Part{cart.PartAll}, Wait: 0}); err != nil {
		t.Fatal(err)
	}
	gate := newGate(store)
	cold := lock.New(gate, options())
	plain := under
	plain.Lease, plain.Release = "", false
	prompt := func(name string, c *lock.Coordinator) {
		t.Helper()
		begun := time.Now()
		r := must(t)(c.Change(t.Context(), key, plain))
		if r.Repeat.Version != 2 || time.Since(begun) > options().WaitTimeout/2 {
			t.Errorf("%s, while all is locked: %+v after %s", name, r, time.Since(begun))
		}
	}
	prompt("the same sidecar", c)
	prompt("another", other)

	// Others wait for the lock in the same sidecar, and came in the same batch.
	ctx, cancel := context.WithCancel(t.Context())
	var waiting, asked sync.WaitGroup
	add := func(id string) {
		waiting.Go(func() {
			_, err := cold.Change(ctx, key, lock.Change{Verb: item(t, id, 1), Scope: cart.PartItems})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	gate.close()
	add("under way")
	until(t, "a change is under way", func() bool { return gate.waiting.Load() > 0 })
	add("waits")
	asked.Go(func() { prompt("in a batch with others", cold) })
	until(t, "two wait", func() bool { return cold.Status().Stats.Waiting == 2 })
	gate.open()
	asked.Wait()
	until(t, "the others wait for the lock", func() bool { return cold.Status().Stats.Waiting == 2 })
	prompt("behind others", cold)
	cancel()
	waiting.Wait()
}

// A repeat is answered with the cart as it is now.
func TestRepeatShowsTheCartOfNow(t *testing.T) {
	store := openMemory(t)
	c, other := lock.New(store, options()), lock.New(store, options())
	must(t)(c.Change(t.Context(), key, keyed(item(t, "x", 1), "k", 1)))
	must(t)(add(t, other, "x"))
	must(t)(other.Change(t.Context(), key, lock.Change{Verb: cart.PatchMetadata{Values: []cart.Member{{Key: "m", Value: []byte("1")}}}}))
	r := must(t)(c.Change(t.Context(), key, keyed(item(t, "x", 1), "k", 1)))
	if r.Repeat.Version != 1 || !r.Changed || r.Cart.Version != 3 || quantity(t, r.Cart, "x") != 2 {
		t.Errorf("%+v at version %d, with %d", r.Repeat, r.Cart.Version, quantity(t, r.Cart, "x"))
	}
}

// Two changes that alter nothing are both remembered, although neither raises the version.
func TestChangesOfNothingAreBothRemembered(t *testing.T) {
	gate := newGate(openMemory(t))
	c, other := lock.New(gate, options()), lock.New(gate, options())
	must(t)(add(t, c, "x"))
	read(t, other, key)
	gate.close()
	var wg sync.WaitGroup
	attempt := func(c *lock.Coordinator, id string) (lock.Result, error) {
		return c.Change(t.Context(), key, keyed(cart.RemoveItem{ID: id}, id, 1))
	}
	for id, c := range map[string]*lock.Coordinator{"a": c, "b": other} {
		wg.Go(func() {
			if _, err := attempt(c, id); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "both are under way", func() bool { return gate.waiting.Load() == 2 })
	gate.open()
	wg.Wait()
	for _, id := range []string{"a", "b"} {
		if r := must(t)(attempt(c, id)); r.Repeat.Version != 1 {
			t.Errorf("%s is not remembered", id)
		}
	}
}

// A hand-over with a key is made once, however often it is sent, and wherever it broke off. What both carts remember is
// remembered afterwards.
func TestHandOverIsMadeOnce(t *testing.T) {
	from, to := cart.Key{Identifier: "guest", Instance: "default"}, cart.Key{Identifier: "user", Instance: "default"}
	for _, strategy := range []cart.Strategy{cart.StrategyAddQuantities, cart.StrategyKeepTarget, cart.StrategySwap} {
		for dies := int32(-1); dies < 4; dies++ { // -1 stands for one step, which cannot break off
			t.Run(fmt.Sprintf("%s after %d commits", strategy, dies), func(t *testing.T) {
				store := openMemory(t)
				c := lock.New(store, options())
				at := func(key cart.Key, id, request string) lock.Result {
					return must(t)(c.Change(t.Context(), key, keyed(item(t, id, 1), request, 1)))
				}
				at(from, "a", "in the source")
				at(to, "a", "in the target")
				ch := lock.Change{Request: lock.Request{Key: "k", Sum: cart.Sum{9}}}
				if dies >= 0 {
					_, err := lock.New(inSteps(store, dies), options()).HandOver(t.Context(), from, to, strategy, ch)
					if err != nil && !errors.Is(err, errDied) {
						t.Fatal(err)
					}
					c = lock.New(inSteps(store, 1<<20), options())
				}
				var version uint64
				for attempt := range 3 {
					r := must(t)(c.HandOver(t.Context(), from, to, strategy, ch))
					if !r.Changed || attempt > 0 && r.Repeat.Version == 0 {
						t.Errorf("attempt %d: changed %v, %+v", attempt, r.Changed, r.Repeat)
					}
					if attempt == 1 {
						version = r.Repeat.Version
					}
				}
				k := read(t, c, to)
				want := map[cart.Strategy]int{cart.StrategyAddQuantities: 2, cart.StrategyKeepTarget: 1, cart.StrategySwap: 1}[strategy]
				if n := quantity(t, k, "a"); n != want || k.Version != version {
					t.Errorf("%d, want %d; version %d, was %d", n, want, k.Version, version)
				}
				if r := at(to, "a", "in the source"); r.Repeat.Version != 1 {
					t.Errorf("a request of the source: %+v", r.Repeat)
				}
				if r := at(to, "a", "in the target"); (r.Repeat.Version == 1) != (strategy != cart.StrategySwap) {
					t.Errorf("a request of the target: %+v", r.Repeat)
				}
			})
		}
	}
}

// Attempts of one hand-over that meet, and one that finishes what was asked for without a key, are one request too.
func TestHandOverMeetsItself(t *testing.T) {
	from, to := cart.Key{Identifier: "guest", Instance: "default"}, cart.Key{Identifier: "user", Instance: "default"}
	ch := lock.Change{Request: lock.Request{Key: "k", Sum: cart.Sum{9}}}
	put := func(c *lock.Coordinator, key cart.Key) {
		must(t)(c.Change(t.Context(), key, lock.Change{Verb: item(t, "a", 1), Scope: cart.PartItems}))
	}
	store := openMemory(t)
	gate := newGate(store)
	put(lock.New(store, options()), from)
	put(lock.New(store, options()), to)
	gate.close()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			r, err := lock.New(gate, options()).HandOver(t.Context(), from, to, cart.StrategyAddQuantities, ch)
			if err != nil || !r.Changed || quantity(t, r.Cart, "a") != 2 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	until(t, "both are under way", func() bool { return gate.waiting.Load() == 2 })
	gate.open()
	wg.Wait()

	store = openMemory(t)
	put(lock.New(store, options()), from)
	if _, err := lock.New(inSteps(store, 1), options()).HandOver(t.Context(), from, to, cart.StrategySwap, lock.Change{}); !errors.Is(err, errDied) {
		t.Fatal(err)
	}
	c := lock.New(inSteps(store, 1<<20), options())
	for attempt := range 2 {
		if r := must(t)(c.HandOver(t.Context(), from, to, cart.StrategySwap, ch)); !r.Changed || (r.Repeat.Version != 0) != (attempt > 0) {
			t.Errorf("attempt %d: changed %v, %+v", attempt, r.Changed, r.Repeat)
		}
	}
}

// A hand-over that moves nothing is remembered by the target, where there is one.
func TestHandOverOfNothing(t *testing.T) {
	c := lock.New(openMemory(t), options())
	nobody := cart.Key{Identifier: "nobody", Instance: "default"}
	ch := lock.Change{Request: lock.Request{Key: "k", Sum: cart.Sum{9}}}
	must(t)(add(t, c, "x"))
	for name, from := range map[string]cart.Key{"no source": nobody, "onto itself": key} {
		ch.Request.Key = name
		for attempt := range 2 {
			r := must(t)(c.HandOver(t.Context(), from, key, cart.StrategySwap, ch))
			if r.Changed || (r.Repeat.Version != 0) != (attempt > 0) || r.Cart.Version != 1 {
				t.Errorf("%s, attempt %d: %+v, changed %v", name, attempt, r.Repeat, r.Changed)
			}
		}
	}
}
