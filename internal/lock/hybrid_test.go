package lock_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
)

// switched is a store that can be down.
type switched struct {
	storage.Store
	down atomic.Bool
}

var errDown = errors.Join(storage.ErrUnavailable, errors.New("connection refused"))

func (s *switched) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	if s.down.Load() {
		return nil, errDown
	}
	return s.Store.Load(ctx, key)
}

func (s *switched) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	if s.down.Load() {
		return nil, errDown
	}
	return s.Store.Commit(ctx, commits...)
}

// While the store of checkouts is down, checkouts and settlements are refused and change nothing, and carts go on, also
// to other names. What was ordered is taken once the store is back, under either name.
func TestHybridDown(t *testing.T) {
	checkouts := &switched{Store: memory.New()}
	c := lock.NewHybrid(openMemory(t), checkouts, retaining())
	user := cart.Key{Identifier: "user", Instance: "default"}
	other := cart.Key{Identifier: "other", Instance: "default"}
	for id, k := range map[string]cart.Key{"O": key, "P": other} {
		changed(t, c, k, item(t, "x", 5))
		checkOut(t, c, k, id)
	}

	checkouts.down.Store(true)
	before := read(t, c, key)
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, lock.ErrNoCheckouts) || !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := c.Checkout(t.Context(), key, lock.CheckoutRequest{ID: "Q", ExpiresIn: time.Hour})
	refused("a checkout", err)
	_, err = c.Settle(t.Context(), key, "O", cart.Ordered, lock.Change{})
	refused("a settlement", err)
	_, err = c.GetCheckout(t.Context(), key, "O")
	refused("a read", err)
	refused("a list", c.ListCheckouts(t.Context(), key, func(*lock.Checkout) error { return nil }))
	if now := read(t, c, key); now.Version != before.Version || string(now.Ledger.Value) != string(before.Ledger.Value) {
		t.Errorf("the cart was changed: %+v", now)
	}
	changed(t, c, key, item(t, "x", 2))
	must(t)(c.HandOver(t.Context(), key, user, cart.StrategySwap, lock.Change{}))
	must(t)(c.HandOver(t.Context(), other, user, cart.StrategyAddQuantities, lock.Change{}))

	checkouts.down.Store(false)
	sorted := func() []string { return slices.Sorted(slices.Values(states(t, c, user))) }
	if got := sorted(); !slices.Equal(got, []string{"O OPEN", "P OPEN"}) {
		t.Errorf("list of the new name: %v", got)
	}
	for i, name := range []cart.Key{key, user} {
		if r := settle(t, c, name, []string{"O", "P"}[i], cart.Ordered); !r.Settled || r.Key != user || quantity(t, r.Cart, "x") != 12-5*(i+1) {
			t.Errorf("settled under %s: %t, %s, %s", name, r.Settled, r.Key, r.Cart.Items.Object.Bytes())
		}
	}
	must(t)(c.Forget(t.Context(), user, lock.Change{}))
	if got := sorted(); !slices.Equal(got, []string{"O ORDERED", "P ORDERED"}) {
		t.Errorf("list of the new name when the cart has gone: %v", got)
	}
}

// Checkouts that were made before there was a store for them are found, listed and settled where they are.
func TestHybridComesLater(t *testing.T) {
	carts, checkouts := openMemory(t), memory.New()
	old := lock.New(carts, retaining())
	changed(t, old, key, item(t, "x", 5))
	first := checkOut(t, old, key, "O-1")
	c := lock.NewHybrid(carts, checkouts, retaining())
	if r := checkOut(t, c, key, "O-1"); !r.Checkout.CreatedAt.Equal(first.Checkout.CreatedAt) {
		t.Errorf("the same id is another checkout: %+v", r.Checkout)
	}
	checkOut(t, c, key, "O-2")
	changed(t, c, key, item(t, "x", 10))
	if got := states(t, c, key); !slices.Equal(got, []string{"O-2 OPEN", "O-1 OPEN"}) {
		t.Errorf("list: %v", got)
	}
	for i, id := range []string{"O-1", "O-2"} {
		if r := settle(t, c, key, id, cart.Ordered); !r.Settled || quantity(t, r.Cart, "x") != 10-5*i {
			t.Errorf("%s: %+v", id, r)
		}
	}
	if s, err := old.GetCheckout(t.Context(), key, "O-1"); err != nil || s.State(time.Now()) != lock.CheckoutOrdered {
		t.Errorf("a sidecar that does not know of the store of checkouts: %+v, %v", s, err)
	}
	if _, err := old.GetCheckout(t.Context(), key, "O-2"); !errors.Is(err, cart.ErrNotFound) {
		t.Errorf("O-2 is beside the carts: %v", err)
	}
}

// A cache that forgets its carts loses no checkout, and nothing is taken from a new cart of the same name.
func TestHybridOutlivesTheCarts(t *testing.T) {
	carts, checkouts := openMemory(t), memory.New()
	c := lock.NewHybrid(carts, checkouts, retaining())
	changed(t, c, key, item(t, "x", 5))
	checkOut(t, c, key, "O-1")
	checkOut(t, c, key, "O-2")
	settle(t, c, key, "O-2", cart.Cancelled)
	if err := carts.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := lock.NewHybrid(carts, checkouts, retaining()) // another sidecar
	changed(t, other, key, item(t, "x", 1))
	if got := states(t, other, key); !slices.Equal(got, []string{"O-2 CANCELLED", "O-1 OPEN"}) {
		t.Errorf("list: %v", got)
	}
	if r := settle(t, other, key, "O-1", cart.Ordered); !r.Settled || quantity(t, r.Cart, "x") != 1 || quantity(t, r.Checkout.Cart, "x") != 5 {
		t.Errorf("settled: %+v", r)
	}
	if err := other.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := states(t, other, key); len(got) > 0 {
		t.Errorf("after a flush: %v", got)
	}
}

// Cart and checkout end by themselves, each in its store.
func TestHybridExpires(t *testing.T) {
	for _, critical := range criticals {
		t.Run(critical, func(t *testing.T) {
			t.Parallel()
			o := retaining()
			o.TTL, o.CheckoutRetention = 10*time.Millisecond, 300*time.Millisecond
			c := lock.NewHybrid(openMemory(t), sharedBackends[critical](t)(), o)
			const open = 200 * time.Millisecond
			res, err := func() (lock.CheckoutResult, error) {
				long := o
				long.TTL = time.Hour // else the cart may end before it is checked out
				c.Update(long)
				changed(t, c, key, item(t, "x", 5))
				r, err := c.Checkout(t.Context(), key, lock.CheckoutRequest{ID: "O", ExpiresIn: open})
				c.Update(o)
				changed(t, c, key, item(t, "y", 1))
				return r, err
			}()
			if err != nil {
				t.Fatal(err)
			}
			if k := read(t, c, key); k.Exists() && k.ExpiresAt.Before(res.Checkout.ExpiresAt) {
				t.Errorf("the cart ends at %s, before its checkout at %s", k.ExpiresAt, res.Checkout.ExpiresAt)
			}
			ended := func(what string, over func() bool) {
				t.Helper()
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for deadline := time.Now().Add(30 * time.Second); !over(); <-tick.C {
					if time.Now().After(deadline) {
						t.Fatalf("%s is still there", what)
					}
				}
			}
			ended("the cart", func() bool { return !read(t, c, key).Exists() })
			ended("the checkout", func() bool {
				_, err := c.GetCheckout(t.Context(), key, "O")
				return errors.Is(err, cart.ErrNotFound)
			})
			if got := states(t, c, key); len(got) > 0 {
				t.Errorf("list: %v", got)
			}
		})
	}
}

// The trail of a database says in plain columns who made and settled which checkout of which cart, from which version,
// once for each, also where the carts are elsewhere.
func TestHybridAuditTrail(t *testing.T) {
	for name, open := range audits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := open(t)
			o := auditedOptions()
			o.CheckoutRetention = time.Hour
			c := lock.NewHybrid(openMemory(t), a.open(), o)
			ctx := context.WithValue(t.Context(), callerKey{}, "Checkout")
			changed(t, c, key, item(t, "x", 5), item(t, "y", 1))
			for _, id := range []string{"O-1", "O-2", "O-1"} { // the last is a repeat
				r := lock.CheckoutRequest{ID: id, ExpiresIn: time.Hour, Attributes: []byte(`{"total":"19.90"}`)}
				if id == "O-2" {
					r.Attributes = nil
				}
				if _, err := c.Checkout(ctx, key, r); err != nil {
					t.Fatal(err)
				}
			}
			changed(t, c, key, item(t, "z", 1))
			ctx = context.WithValue(t.Context(), callerKey{}, "Settle")
			for _, id := range []string{"O-1", "O-2", "O-1"} {
				outcome := map[string]cart.Outcome{"O-1": cart.Ordered, "O-2": cart.Cancelled}[id]
				if _, err := c.Settle(ctx, key, id, outcome, lock.Change{}); err != nil {
					t.Fatal(err)
				}
			}
			out, err := a.server.Query(a.database, "SELECT checkout_id, kind, call_name, identifier, instance, from_version, to_version, who, COALESCE(attributes, 'none') "+
				"FROM sidecart_audit WHERE part = 'checkout' ORDER BY id")
			if err != nil {
				t.Fatal(err)
			}
			want := []string{
				`O-1|checked out|Checkout|u1|default|2|2|pod-1|{"total":"19.90"}`, `O-2|checked out|Checkout|u1|default|2|2|pod-1|none`,
				`O-1|ordered|Settle|u1|default|2|2|pod-1|{"total":"19.90"}`, `O-2|cancelled|Settle|u1|default|2|2|pod-1|none`,
			}
			if d := cmp.Diff(want, strings.Split(strings.ReplaceAll(out, "\t", "|"), "\n")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			id := read(t, c, key).ID
			if n, err := a.server.Query(a.database, "SELECT COUNT(*) FROM sidecart_audit WHERE cart_id = '"+id+"'"); err != nil || n != "4" {
				t.Errorf("%s lines are of the cart, want 4: %v", n, err)
			}
		})
	}
}
