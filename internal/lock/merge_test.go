package lock_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// inSteps opens store so that two carts share no step, and dies after some commits.
func inSteps(store storage.Locker, commits int32) storage.Store {
	left := new(atomic.Int32)
	left.Store(commits)
	return split{store, left}
}

// A merge that comes to more than is allowed caps it, and tells which items, in one step and in several; and also where
// it finishes what died half-way.
func TestMergeTellsWhatItCapped(t *testing.T) {
	from, to := cart.Key{Identifier: "guest", Instance: "default"}, cart.Key{Identifier: "user", Instance: "default"}
	const whole = 1 << 20
	for _, tc := range []struct {
		name   string
		open   func(storage.Locker) storage.Store
		dies   int32 // a first try, after as many commits; 0 for none
		capped []string
	}{
		{"in one step", func(s storage.Locker) storage.Store { return s }, 0, []string{"b", "a"}},
		{"in steps", func(s storage.Locker) storage.Store { return inSteps(s, whole) }, 0, []string{"b", "a"}},
		{"in steps, of which the first was made", func(s storage.Locker) storage.Store { return inSteps(s, whole) }, 1, []string{"b", "a"}},
		{"in steps, of which two were made by another", func(s storage.Locker) storage.Store { return inSteps(s, whole) }, 2, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := openMemory(t)
			c := lock.New(tc.open(store), options())
			for _, id := range []string{"b", "a", "c"} {
				must(t)(c.Change(t.Context(), to, lock.Change{Verb: item(t, id, 6000), Scope: cart.PartItems}))
			}
			for id, n := range map[string]int{"a": 4001, "b": 9000, "c": 4000} {
				must(t)(c.Change(t.Context(), from, lock.Change{Verb: item(t, id, n), Scope: cart.PartItems}))
			}
			if tc.dies > 0 {
				if _, err := lock.New(inSteps(store, tc.dies), options()).HandOver(t.Context(), from, to, cart.StrategyAddQuantities, lock.Change{}); !errors.Is(err, errDied) {
					t.Fatal(err)
				}
			}
			r := must(t)(c.HandOver(t.Context(), from, to, cart.StrategyAddQuantities, lock.Change{}))
			if !r.Changed || !slices.Equal(r.Capped, tc.capped) {
				t.Errorf("capped %q, want %q; changed %v", r.Capped, tc.capped, r.Changed)
			}
			k := read(t, c, to)
			if a, b, c := quantity(t, k, "a"), quantity(t, k, "b"), quantity(t, k, "c"); a != 10_000 || b != 10_000 || c != 10_000 {
				t.Errorf("a %d, b %d, c %d", a, b, c)
			}
			if read(t, c, from).Exists() {
				t.Error("the source is still there")
			}
		})
	}
}

// A merge that would come to too large a cart is refused before anything is done, on every backend.
func TestMergeIntoTooLargeACart(t *testing.T) {
	for name, open := range allBackends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := open(t)()
			o := options()
			o.Limits.MaxCartBytes = 1000
			for _, s := range []storage.Store{store, inSteps(store.(storage.Locker), 1<<20)} {
				c := lock.New(s, o)
				from, to := cart.Key{Identifier: "guest", Instance: fmt.Sprint(s.Atomic(key, cart.Key{}))}, cart.Key{Identifier: "user", Instance: fmt.Sprint(s.Atomic(key, cart.Key{}))}
				for _, k := range []cart.Key{from, to} {
					large := cart.Object{}.With(k.Identifier, []byte(`{"x":"`+strings.Repeat("x", 500)+`"}`))
					must(t)(c.Change(t.Context(), k, lock.Change{Verb: cart.Put{Items: &large}, Scope: cart.PartItems}))
				}
				guest, user := read(t, c, from), read(t, c, to)
				_, err := c.HandOver(t.Context(), from, to, cart.StrategyAddQuantities, lock.Change{})
				var invalid *cart.InvalidError
				if !errors.As(err, &invalid) || !invalid.TooLarge || invalid.Field != "cart" || invalid.Limit != 1000 || invalid.Actual <= 1000 {
					t.Errorf("%+v", err)
				}
				if a, b := read(t, c, from), read(t, c, to); a.ETag() != guest.ETag() || b.ETag() != user.ETag() || a.Transfer != nil {
					t.Error("a merge that was refused touched a cart")
				}
				if r := must(t)(c.HandOver(t.Context(), from, to, cart.StrategySwap, lock.Change{})); !r.Changed || r.Cart.Size() != guest.Size() {
					t.Errorf("a swap: %+v", r)
				}
			}
		})
	}
}
