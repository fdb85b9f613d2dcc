package lock_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// allBackends are sharedBackends, and the memory, whose store is shared by the sidecars of a test.
func allBackends() map[string]func(t *testing.T) func() storage.Store {
	all := maps.Clone(sharedBackends)
	all["memory"] = func(t *testing.T) func() storage.Store {
		s := openMemory(t)
		return func() storage.Store { return s }
	}
	return all
}

// Two clients that open a cart at once are given the same etag of what is not there, and one of them only can change it
// with that.
func TestAbsentETagsRace(t *testing.T) {
	for name, open := range allBackends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := open(t)
			sidecars := make([]*lock.Coordinator, 2)
			for i := range sidecars {
				sidecars[i] = lock.New(backend(), options())
			}
			var none cart.Cart
			for i := range 40 {
				key := cart.Key{Identifier: fmt.Sprint("racer-", i), Instance: "default"}
				scope := []cart.Part{cart.PartItems, cart.PartAll}[i%2]
				others := i%4 > 1 // conditions come meanwhile, which do not touch the items
				if others {
					must(t)(sidecars[0].Change(t.Context(), key, lock.Change{Verb: cart.PutCondition{Name: "vat"}, Scope: cart.PartConditions}))
				}
				errs := make([]error, 4)
				var wg sync.WaitGroup
				for n := range errs {
					wg.Go(func() {
						items := cart.Object{}.With(fmt.Sprint("of-", n), []byte(`{"quantity":1}`))
						_, errs[n] = sidecars[n%2].Change(t.Context(), key, lock.Change{
							Verb: cart.Put{Items: &items}, Scope: cart.PartItems, If: cart.Precondition{IfMatch: []string{none.PartETag(scope)}},
						})
					})
				}
				wg.Wait()
				won := 0
				for _, err := range errs {
					switch {
					case err == nil:
						won++
					case !errors.Is(err, cart.ErrConflict):
						t.Fatalf("%s: %v", key, err)
					}
				}
				want := 1
				if others && scope == cart.PartAll { // "only if there is no cart", and there was one
					want = 0
				}
				if k := read(t, sidecars[1], key); won != want || k.Items.Object.Len() != want {
					t.Fatalf("%s: %d of them won, want %d; items %s", key, won, want, k.Items.Object.Bytes())
				}
			}
		})
	}
}

// Metadata keys stand in the order in which they came, on every backend, also where many changes are committed
// together.
func TestMetadataKeepsItsOrder(t *testing.T) {
	patch := func(keys ...string) cart.PatchMetadata {
		var p cart.PatchMetadata
		for _, key := range keys {
			p.Values = append(p.Values, cart.Member{Key: key, Value: []byte(`1`)})
		}
		return p
	}
	remove := func(key string) cart.PatchMetadata { return cart.PatchMetadata{Values: []cart.Member{{Key: key}}} }
	for name, open := range allBackends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := open(t)
			gate := newGate(backend().(storage.Locker))
			c := lock.New(gate, options())
			order := func(what, want string) {
				t.Helper()
				k, err := lock.New(backend(), options()).Read(t.Context(), key) // by another sidecar
				if err != nil {
					t.Fatal(err)
				}
				if got := string(k.MetadataObject()); got != want {
					t.Errorf("%s: %s, want %s", what, got, want)
				}
				if mine := read(t, c, key); string(mine.MetadataObject()) != want {
					t.Errorf("%s: the sidecar itself says %s", what, mine.MetadataObject())
				}
			}
			change := func(v cart.Verb) {
				t.Helper()
				r := must(t)(c.Change(t.Context(), key, lock.Change{Verb: v, Scope: cart.PartAll}))
				order("", string(r.Cart.MetadataObject()))
			}
			change(patch("z", "a", "m"))
			order("a patch", `{"z":1,"a":1,"m":1}`)
			change(cart.Batch{Verbs: []cart.Verb{patch("y"), patch("b"), item(t, "x", 1), patch("a", "c")}})
			order("a batch", `{"z":1,"a":1,"m":1,"y":1,"b":1,"c":1}`)
			change(cart.Batch{Verbs: []cart.Verb{remove("a"), remove("y")}})
			change(patch("a"))
			order("removed and set again", `{"z":1,"m":1,"b":1,"c":1,"a":1}`)

			// The first holds up the others, which then go out together.
			gate.close()
			verbs := []cart.Verb{item(t, "first", 1), remove("z"), patch("k", "j"), patch("z"), remove("k"), patch("d"), patch("k")}
			var wg sync.WaitGroup
			before := c.Status().Stats.Commits
			for i, v := range verbs {
				wg.Go(func() {
					must(t)(c.Change(t.Context(), key, lock.Change{Verb: v, Scope: cart.PartAll}))
				})
				if i == 0 {
					until(t, "the first is under way", func() bool { return gate.waiting.Load() == 1 })
				} else {
					until(t, "it waits", func() bool { return c.Status().Stats.Waiting == int64(i) })
				}
			}
			gate.open()
			wg.Wait()
			order("together", `{"m":1,"b":1,"c":1,"a":1,"j":1,"z":1,"d":1,"k":1}`)
			if n := c.Status().Stats.Commits - before; n > 3 {
				t.Errorf("%d commits", n)
			}
			k := read(t, c, key)
			if _, ok := k.Removed["z"]; ok || len(k.Removed) != 1 || k.Removed["y"] == 0 {
				t.Errorf("tombstones %v", slices.Collect(maps.Keys(k.Removed)))
			}
		})
	}
}
