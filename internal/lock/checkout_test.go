package lock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/moving"
)

func retaining() lock.Options {
	o := options()
	o.CheckoutRetention, o.IdempotencyWindow = time.Hour, time.Hour
	return o
}

func checkOut(t testing.TB, c *lock.Coordinator, k cart.Key, id string) lock.CheckoutResult {
	t.Helper()
	r, err := c.Checkout(t.Context(), k, lock.CheckoutRequest{ID: id, ExpiresIn: time.Hour, Attributes: []byte(`{"order":1.50}`)})
	if err != nil {
		t.Fatalf("checkout %s of %s: %v", id, k, err)
	}
	return r
}

func settle(t testing.TB, c *lock.Coordinator, k cart.Key, id string, o cart.Outcome) lock.CheckoutResult {
	t.Helper()
	r, err := c.Settle(t.Context(), k, id, o, lock.Change{})
	if err != nil {
		t.Fatalf("settle %s of %s: %v", id, k, err)
	}
	return r
}

func states(t testing.TB, c *lock.Coordinator, k cart.Key) (ids []string) {
	t.Helper()
	err := c.ListCheckouts(t.Context(), k, func(s *lock.Checkout) error {
		ids = append(ids, s.ID+" "+s.State(time.Now()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func condition(t testing.TB, name, text string) cart.PutCondition {
	t.Helper()
	o, err := cart.ParseCondition("condition", name, []byte(text), cart.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return cart.PutCondition{Name: name, Condition: o}
}

func changed(t testing.TB, c *lock.Coordinator, k cart.Key, verbs ...cart.Verb) {
	t.Helper()
	for _, v := range verbs {
		must(t)(c.Change(t.Context(), k, lock.Change{Verb: v, Scope: cart.PartAll}))
	}
}

// The cart is forgotten between the steps of a settlement, and another call settles the checkout without it. What was
// ordered was taken once, and one answer alone says that it settled the checkout.
func TestCartGoesBetweenSteps(t *testing.T) {
	store := memory.New()
	other := lock.New(store, retaining())
	changed(t, other, key, item(t, "x", 5))
	checkOut(t, other, key, "O")
	var second lock.CheckoutResult
	first := lock.New(&marking{Locker: store, left: 1, move: func() {
		if n := quantity(t, read(t, other, key), "x"); n != 0 {
			t.Errorf("%d are left after the first step", n)
		}
		if _, err := other.Forget(t.Context(), key, lock.Change{}); err != nil {
			t.Error(err)
		}
		second = settle(t, other, key, "O", cart.Ordered)
	}}, retaining())
	if r := settle(t, first, key, "O", cart.Ordered); r.Settled || !second.Settled || r.Checkout.Outcome != cart.Ordered {
		t.Errorf("the first says %+v, the second %+v", r, second)
	}
}

// What was ordered is taken, once, and what came meanwhile stays.
func TestCheckoutAndSettle(t *testing.T) {
	for name, open := range allBackends() {
		for _, locking := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " locking ", locking), func(t *testing.T) {
				t.Parallel()
				again := open(t)
				o := retaining()
				o.Locking = locking
				a, b := lock.New(again(), o), lock.New(again(), o)
				changed(t, a, key, item(t, "x", 2), item(t, "y", 1), condition(t, "vat", `{"value":"6%"}`), condition(t, "fee", `{"value":"1"}`))
				before := read(t, a, key)
				made := checkOut(t, a, key, "O-1")
				if k := made.Checkout; k.State(time.Now()) != lock.CheckoutOpen || k.CartID != before.ID || k.Cart.Version != before.Version ||
					string(k.Cart.Items.Object.Bytes()) != string(before.Items.Object.Bytes()) || string(k.Attributes) != `{"order":1.50}` {
					t.Fatalf("checkout: %+v", k)
				}
				if now := read(t, b, key); now.ETag() != before.ETag() || now.ExpiresAt.Before(made.Checkout.ExpiresAt) {
					t.Errorf("the cart is at %s until %s; the checkout is open until %s", now.ETag(), now.ExpiresAt, made.Checkout.ExpiresAt)
				}
				changed(t, b, key, item(t, "x", 3), item(t, "z", 1), condition(t, "fee", `{"value":"2"}`))
				if r := checkOut(t, b, key, "O-1"); string(r.Checkout.Cart.Items.Object.Bytes()) != string(before.Items.Object.Bytes()) {
					t.Errorf("again: %s", r.Checkout.Cart.Items.Object.Bytes())
				}
				if r := settle(t, b, key, "O-1", cart.Ordered); !r.Settled || r.Checkout.Outcome != cart.Ordered || quantity(t, r.Cart, "x") != 3 {
					t.Errorf("settled: %+v", r)
				}
				if r := settle(t, a, key, "O-1", cart.Ordered); r.Settled {
					t.Error("settled twice")
				}
				if _, err := a.Settle(t.Context(), key, "O-1", cart.Cancelled, lock.Change{}); !errors.Is(err, lock.ErrAlreadySettled) {
					t.Errorf("the other outcome: %v", err)
				}
				k := read(t, a, key)
				if quantity(t, k, "x") != 3 || quantity(t, k, "y") != 0 || quantity(t, k, "z") != 1 ||
					string(k.Conditions.Object.Bytes()) != `{"fee":{"value":"2"}}` && string(k.Conditions.Object.Bytes()) != `{"fee":{"value":"2","name":"fee"}}` {
					t.Errorf("left: %s %s", k.Items.Object.Bytes(), k.Conditions.Object.Bytes())
				}
				if r := checkOut(t, a, key, "O-1"); r.Checkout.Outcome != cart.Ordered {
					t.Error("a settled id opened again")
				}
				checkOut(t, a, key, "O-2")
				version := read(t, a, key).Version
				settle(t, b, key, "O-2", cart.Cancelled)
				if v := read(t, a, key).Version; v != version {
					t.Errorf("a cancellation raised the version from %d to %d", version, v)
				}
				if got := states(t, b, key); !slices.Equal(got, []string{"O-2 CANCELLED", "O-1 ORDERED"}) {
					t.Errorf("list: %v", got)
				}
				if _, err := a.GetCheckout(t.Context(), key, "O-3"); !errors.Is(err, cart.ErrNotFound) {
					t.Errorf("an unknown one: %v", err)
				}
				if name != "memcached" {
					if names, err := a.Instances(t.Context(), key.Identifier); err != nil || len(names) != 1 {
						t.Errorf("instances: %v, %v", names, err)
					}
				}
				must(t)(a.Forget(t.Context(), key, lock.Change{}))
				if _, err := a.Checkout(t.Context(), key, lock.CheckoutRequest{ID: "O-9", ExpiresIn: time.Hour}); !errors.Is(err, lock.ErrEmptyCart) {
					t.Errorf("a cart that is gone: %v", err)
				}
			})
		}
	}
}

// Open checkouts go along, and are settled where the cart is, under whichever of its names they are asked for.
func TestCheckoutsGoAlong(t *testing.T) {
	for name, open := range allBackends() {
		for _, strategy := range []cart.Strategy{cart.StrategySwap, cart.StrategyAddQuantities} {
			t.Run(fmt.Sprint(name, " ", strategy), func(t *testing.T) {
				t.Parallel()
				c := lock.New(open(t)(), retaining())
				changed(t, c, key, item(t, "x", 2))
				checkOut(t, c, key, "O-1")
				checkOut(t, c, key, "O-2")
				checkOut(t, c, key, "O-3")
				changed(t, c, key, item(t, "x", 10))
				must(t)(c.HandOver(t.Context(), key, user, strategy, lock.Change{}))
				changed(t, c, key, item(t, "x", 100)) // a successor, of which nothing is taken
				if r := settle(t, c, user, "O-1", cart.Ordered); !r.Settled || r.Key != user || quantity(t, r.Cart, "x") != 10 {
					t.Errorf("under the new name: %+v", r)
				}
				if r := settle(t, c, key, "O-2", cart.Ordered); !r.Settled || r.Key != user || quantity(t, r.Cart, "x") != 8 {
					t.Errorf("under the old name: %+v", r)
				}
				must(t)(c.HandOver(t.Context(), user, key, cart.StrategySwap, lock.Change{})) // and back
				if r := settle(t, c, user, "O-3", cart.Ordered); r.Key != key || quantity(t, r.Cart, "x") != 6 {
					t.Errorf("after the way back: %+v", r)
				}
				if n := quantity(t, read(t, c, key), "x"); n != 6 {
					t.Errorf("%d are left", n)
				}
			})
		}
	}
}

// Once the cart has gone, its checkouts are settled without one.
func TestSettleWithoutCart(t *testing.T) {
	for name, open := range allBackends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := lock.New(open(t)(), retaining())
			changed(t, c, key, item(t, "x", 2))
			checkOut(t, c, key, "O-1")
			checkOut(t, c, key, "O-2")
			must(t)(c.Forget(t.Context(), key, lock.Change{}))
			if r := settle(t, c, key, "O-1", cart.Ordered); !r.Settled || r.Cart.Exists() {
				t.Errorf("without a cart: %+v", r)
			}
			changed(t, c, key, item(t, "x", 5))
			if r := settle(t, c, key, "O-2", cart.Ordered); !r.Settled || quantity(t, r.Cart, "x") != 5 {
				t.Errorf("beside a successor: %+v", r)
			}
			if got := states(t, c, key); !slices.Equal(got, []string{"O-2 ORDERED", "O-1 ORDERED"}) {
				t.Errorf("list: %v", got)
			}
		})
	}
}

// fate is that of a process that is killed at its n-th call of a store: before the call, or before its answer.
type fate struct {
	calls  atomic.Int64
	at     int64
	answer bool // the call takes effect
}

// mortal is a store as such a process has it.
type mortal struct {
	storage.Locker
	*fate
}

var errKilled = fmt.Errorf("%w: the process was killed", storage.ErrUnavailable)

func (m *fate) call(do func() error) error {
	n := m.calls.Add(1)
	if n > m.at || n == m.at && !m.answer {
		return errKilled
	}
	err := do()
	if n == m.at {
		return errKilled
	}
	return err
}

func (m *mortal) Load(ctx context.Context, key cart.Key) (k *cart.Cart, err error) {
	err = m.call(func() error { k, err = m.Locker.Load(ctx, key); return err })
	return k, err
}

func (m *mortal) Commit(ctx context.Context, commits ...storage.Commit) (outs []storage.Outcome, err error) {
	err = m.call(func() error { outs, err = m.Locker.Commit(ctx, commits...); return err })
	return outs, err
}

func (m *mortal) Acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool) (g storage.Grant, err error) {
	err = m.call(func() error { g, err = m.Locker.Acquire(ctx, key, claim, queued); return err })
	return g, err
}

func (m *mortal) Abandon(ctx context.Context, key cart.Key, token string) error {
	return m.call(func() error { return m.Locker.Abandon(ctx, key, token) })
}

// killed runs do in a process that is killed at each of its calls in turn, and then check, until do gets to its end.
func killed(t *testing.T, coordinate func(wrap func(storage.Store) storage.Store, o lock.Options) *lock.Coordinator, do func(n int, c *lock.Coordinator) error, check func(n int)) {
	t.Helper()
	n := 0
	for at := int64(1); ; at++ {
		ended := false
		for _, answer := range []bool{false, true} {
			m := &fate{at: at, answer: answer}
			o := retaining()
			o.LeaseDuration = 200 * time.Millisecond // for which the turns of a process that was killed hold up others
			err := do(n, coordinate(func(s storage.Store) storage.Store { return &mortal{s.(storage.Locker), m} }, o))
			if ended = m.calls.Load() < at; ended && err != nil {
				t.Fatalf("without a fault: %v", err)
			}
			check(n)
			n++
		}
		if ended {
			if at < 4 {
				t.Fatalf("only %d calls", at)
			}
			return
		}
	}
}

// criticals are the backends that checkouts may have of their own.
var criticals = []string{"postgres", "mariadb", "dynamodb"}

// pairs are where carts and checkouts may be: each backend alone, and some with one for checkouts.
func pairs() map[string]func(t *testing.T) (carts, checkouts storage.Store) {
	all := map[string]func(t *testing.T) (carts, checkouts storage.Store){}
	for name, open := range allBackends() {
		all[name] = func(t *testing.T) (carts, checkouts storage.Store) { return open(t)(), nil }
	}
	for _, name := range []string{"redis", "sqlite", "memory"} {
		for _, critical := range criticals {
			all[name+" and "+critical] = func(t *testing.T) (carts, checkouts storage.Store) {
				return allBackends()[name](t)(), sharedBackends[critical](t)()
			}
		}
	}
	return all
}

// A process that is killed at any call of a checkout, of a settlement or of a hand-over leaves nothing that the next
// one cannot finish: what was ordered is taken once, and what came meanwhile stays.
func TestCheckoutKilled(t *testing.T) {
	at := func(n int) (from, to cart.Key) {
		return cart.Key{Identifier: fmt.Sprint("guest-", n), Instance: "default"}, cart.Key{Identifier: fmt.Sprint("user-", n), Instance: "default"}
	}
	for name, open := range pairs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			carts, checkouts := open(t)
			store := func(wrap func(storage.Store) storage.Store, o lock.Options) *lock.Coordinator {
				if checkouts == nil {
					return lock.New(wrap(carts), o)
				}
				return lock.NewHybrid(wrap(carts), wrap(checkouts), o)
			}
			c := lock.NewHybrid(carts, checkouts, retaining())
			left := func(n int, k cart.Key, want int, list ...string) {
				t.Helper()
				now := read(t, c, k)
				if got := quantity(t, now, "x"); got != want || quantity(t, now, "z") != 1 {
					t.Errorf("%d: %d left, want %d: %s", n, got, want, now.Items.Object.Bytes())
				}
				if got := states(t, c, k); !slices.Equal(got, list) {
					t.Errorf("%d: list %v, want %v", n, got, list)
				}
				if entries, err := now.Checkouts(); err != nil || slices.ContainsFunc(entries, func(e cart.CheckoutEntry) bool { return e.Outcome == "" }) {
					t.Errorf("%d: the right to take is left: %v, %v", n, entries, err)
				}
			}
			fill := func(k cart.Key) { changed(t, c, k, item(t, "x", 5), condition(t, "vat", `{"value":"6%"}`)) }
			killed(t, store, func(n int, dying *lock.Coordinator) error {
				from, _ := at(n)
				fill(from)
				_, err := dying.Checkout(t.Context(), from, lock.CheckoutRequest{ID: "O", ExpiresIn: time.Hour})
				return err
			}, func(n int) {
				from, _ := at(n)
				checkOut(t, c, from, "O")
				changed(t, c, from, item(t, "x", 2), item(t, "z", 1))
				settle(t, c, from, "O", cart.Ordered)
				left(n, from, 2, "O ORDERED")
			})
			for _, outcome := range []cart.Outcome{cart.Ordered, cart.Cancelled} {
				killed(t, store, func(n int, dying *lock.Coordinator) error {
					from, _ := at(n + 1000*len(outcome))
					fill(from)
					checkOut(t, c, from, "O")
					changed(t, c, from, item(t, "x", 2), item(t, "z", 1))
					_, err := dying.Settle(t.Context(), from, "O", outcome, lock.Change{})
					return err
				}, func(n int) {
					from, _ := at(n + 1000*len(outcome))
					settle(t, c, from, "O", outcome)
					want := 7
					if outcome == cart.Ordered {
						want = 2
					}
					left(n, from, want, "O "+string(outcome))
					checkOut(t, c, from, "P") // drops what the settlement left in the cart
					settle(t, c, from, "P", cart.Cancelled)
					left(n, from, want, "P CANCELLED", "O "+string(outcome))
				})
			}
			for i, strategy := range []cart.Strategy{cart.StrategySwap, cart.StrategyAddQuantities} {
				killed(t, store, func(n int, dying *lock.Coordinator) error {
					from, to := at(n + 20000 + 1000*i)
					fill(from)
					checkOut(t, c, from, "O")
					changed(t, c, from, item(t, "x", 2), item(t, "z", 1))
					_, err := dying.HandOver(t.Context(), from, to, strategy, lock.Change{})
					return err
				}, func(n int) {
					from, to := at(n + 20000 + 1000*i)
					settle(t, c, from, "O", cart.Ordered) // wherever it is now
					must(t)(c.HandOver(t.Context(), from, to, strategy, lock.Change{}))
					now := read(t, c, to)
					if quantity(t, now, "x") != 2 || quantity(t, now, "z") != 1 {
						t.Errorf("%s %d: left %s", strategy, n, now.Items.Object.Bytes())
					}
				})
			}
		})
	}
}

// Of many that check out, settle and add at once through two sidecars, each id is taken once and nothing else is.
func TestCheckoutsAtOnce(t *testing.T) {
	for name, open := range allBackends() {
		for _, locking := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " locking ", locking), func(t *testing.T) {
				t.Parallel()
				again := open(t)
				o := retaining()
				o.Locking, o.WaitTimeout = locking, 30*time.Second
				cs := [2]*lock.Coordinator{lock.New(again(), o), lock.New(again(), o)}
				const each = 6
				var (
					wg    sync.WaitGroup
					taken atomic.Int64
				)
				changed(t, cs[0], key, item(t, "x", 1000))
				for i, c := range cs {
					wg.Go(func() {
						for n := range 3 * each {
							if _, err := c.Change(t.Context(), key, keyed(item(t, "y", 1), fmt.Sprint(i, "-", n), byte(n))); err != nil {
								t.Error(err)
							}
						}
					})
					wg.Go(func() {
						for n := range each {
							id := fmt.Sprint("O-", n) // the same ids in both
							if _, err := c.Checkout(t.Context(), key, lock.CheckoutRequest{ID: id, ExpiresIn: time.Hour}); err != nil {
								t.Errorf("checkout: %v", err)
								return
							}
							r, err := c.Settle(t.Context(), key, id, cart.Ordered, lock.Change{})
							if err != nil {
								t.Errorf("settle: %v", err)
								return
							}
							if r.Settled {
								taken.Add(1)
							}
							if _, err := c.Change(t.Context(), key, lock.Change{Verb: item(t, "x", 1000), Scope: cart.PartItems}); err != nil {
								t.Error(err)
							}
						}
					})
				}
				wg.Wait()
				if n := taken.Load(); n != each {
					t.Errorf("%d settlements for %d ids", n, each)
				}
				var snapshots int
				err := cs[0].ListCheckouts(t.Context(), key, func(s *lock.Checkout) error {
					snapshots += quantity(t, s.Cart, "y")
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				// A settlement takes no more than is there, so what is left bounds what was taken.
				if k := read(t, cs[0], key); quantity(t, k, "y") < 2*3*each-snapshots || quantity(t, k, "y") > 2*3*each {
					t.Errorf("%d of y are left, of %d; the snapshots have %d", quantity(t, k, "y"), 2*3*each, snapshots)
				}
			})
		}
	}
}

// Checkouts move with the carts to another backend, those of carts that have gone too.
func TestCheckoutsMove(t *testing.T) {
	from, to := memory.New(), memory.New()
	before := lock.New(from, retaining())
	changed(t, before, key, item(t, "x", 2))
	for _, id := range []string{"O-1", "O-2"} {
		checkOut(t, before, key, id)
	}
	settle(t, before, key, "O-1", cart.Cancelled)
	gone := cart.Key{Identifier: "gone", Instance: "default"}
	changed(t, before, gone, item(t, "x", 2))
	checkOut(t, before, gone, "O-3")
	must(t)(before.Forget(t.Context(), gone, lock.Change{}))

	store, err := moving.New(from, to, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	if did, err := store.Finish(t.Context()); err != nil || !did {
		t.Fatal(did, err)
	}
	c := lock.New(to, retaining()) // which has all
	if got := states(t, c, key); !slices.Equal(got, []string{"O-2 OPEN", "O-1 CANCELLED"}) {
		t.Errorf("list: %v", got)
	}
	if r := settle(t, c, key, "O-2", cart.Ordered); !r.Settled || quantity(t, r.Cart, "x") != 0 {
		t.Errorf("settled: %+v", r)
	}
	if r := settle(t, c, gone, "O-3", cart.Ordered); !r.Settled {
		t.Errorf("of a cart that has gone: %+v", r)
	}
}

// Records of checkouts are on no list of carts.
func TestCheckoutsAreNoCarts(t *testing.T) {
	c := lock.New(openMemory(t), retaining())
	changed(t, c, key, item(t, "x", 2))
	checkOut(t, c, key, "O-1")
	found, next, err := c.List(t.Context(), lock.ListRequest{Most: 10})
	if err != nil || next != nil || len(found) != 1 || found[0].Key != key {
		t.Errorf("list: %+v, %v, %v", found, next, err)
	}
}
