package moving_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/moving"
)

// walkAll walks until all carts are moved. Like a sidecar, it tries again if a backend does not answer in time, or if
// an earlier walk of its own seems to be under way.
func walkAll(t *testing.T, s *moving.Store) error {
	for patience := time.Now().Add(time.Minute); ; {
		did, err := s.Finish(t.Context())
		switch {
		case did && err == nil:
			return nil
		case err != nil && !errors.Is(err, storage.ErrUnavailable), time.Now().After(patience):
			return fmt.Errorf("walked: %v, %v", did, err)
		}
		select {
		case <-t.Context().Done():
			return t.Context().Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestFinish: a walk moves all carts, reports how many, and leaves nothing in the old backend but markers. While
// another walks, it does nothing.
func TestFinish(t *testing.T) {
	for name, open := range pairs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			openOld, openNew := open(t)
			o, n := openOld(), openNew()
			const carts = 30
			for i := range carts {
				key := cart.Key{Identifier: fmt.Sprint("u", i%10), Instance: fmt.Sprint("i", i/10)}
				mustCommit(t, o, storage.Committed, change(key, &cart.Cart{}, fmt.Sprintf(`{"a":%d}`, i)))
			}
			s := movingStore(t, o, n)
			if n, more, err := s.Count(t.Context(), 1000); n != carts || more || err != nil {
				t.Errorf("Count before: %d, %v, %v", n, more, err)
			}
			if p := s.Progress(); p.State != storage.Moving {
				t.Errorf("before: %+v", p)
			}
			began := time.Now()
			if err := walkAll(t, s); err != nil {
				t.Fatalf("Finish: %v", err)
			}
			if p := s.Progress(); p.State != storage.Done || p.Carried != carts || p.Left != 0 || p.Err != nil || p.Clean.Before(began) || p.Clean.After(time.Now()) {
				t.Errorf("after: %+v", p)
			}
			if n, more, err := s.Count(t.Context(), 1000); n != carts || more || err != nil {
				t.Errorf("Count after: %d, %v, %v", n, more, err)
			}
			for i := range carts {
				key := cart.Key{Identifier: fmt.Sprint("u", i%10), Instance: fmt.Sprint("i", i/10)}
				if k := mustLoad(t, n, key); itemsOf(k) != fmt.Sprintf(`{"a":%d}`, i) || markerOf(t, o, key) != "done" {
					t.Errorf("%s: %s", key, itemsOf(k))
				}
			}
			if list, err := s.Instances(t.Context(), "u3"); err != nil || !slices.Equal(list, []string{"i0", "i1", "i2"}) {
				t.Errorf("Instances: %v, %v", list, err)
			}

			// Another walks now.
			other := movingStore(t, openOld(), openNew())
			walking, end := make(chan struct{}), make(chan struct{})
			go func() {
				if l, ok := o.(storage.Loner); ok {
					_, _ = l.Alone(t.Context(), "move", func(context.Context) error { close(walking); <-end; return nil })
					return
				}
				claim := leaseClaim("another-one-is-walking", time.Minute)
				claim.Parts = []cart.Part{cart.PartAll}
				_, _ = o.Acquire(t.Context(), cart.Key{Instance: "chore-move"}, claim, false)
				close(walking)
			}()
			<-walking
			did, err := other.Finish(t.Context())
			for patience := time.Now().Add(time.Minute); errors.Is(err, storage.ErrUnavailable) && time.Now().Before(patience); {
				did, err = other.Finish(t.Context()) // a backend was too busy to say whether another walks
			}
			if did || err != nil {
				t.Errorf("a second walk: %v, %v", did, err)
			}
			close(end)
		})
	}
}

// TestLeft: a cart that the new backend cannot hold stays in use where it is, and the walk says so.
func TestLeft(t *testing.T) {
	openOld, openNew := pairs["memory to memory"](t)
	o, n := openOld(), openNew()
	mustCommit(t, o, storage.Committed, change(u1, &cart.Cart{}, `{"a":1}`))
	s := movingStore(t, o, small{n})
	did, err := s.Finish(t.Context())
	if p := s.Progress(); !did || !errors.Is(err, storage.ErrTooLarge) || p.Left != 1 || p.State != storage.Moving || !p.Clean.IsZero() {
		t.Errorf("Finish: %v, %v, %+v", did, err, p)
	}
	k := mustLoad(t, s, u1)
	if itemsOf(k) != `{"a":1}` || k.ExpiresAt.IsZero() || markerOf(t, o, u1) != "" {
		t.Errorf("left: %+v", k)
	}
	mustCommit(t, s, storage.Committed, change(u1, k, `{"a":2}`))
	if k := mustLoad(t, o, u1); itemsOf(k) != `{"a":2}` {
		t.Errorf("changed: %s", itemsOf(k))
	}
}

// small is a backend that can hold no cart.
type small struct{ movable }

func (s small) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	if commits[0].Change.Place != nil {
		return nil, storage.ErrTooLarge
	}
	return s.movable.Commit(ctx, commits...)
}

// addItem makes verbs that add one of an item.
func addItem(t *testing.T) func(id string) cart.Verb {
	return func(id string) cart.Verb {
		item, err := cart.ParseItem("item", fmt.Appendf(nil, `{"id":%q,"quantity":1}`, id), cart.DefaultLimits())
		if err != nil {
			t.Error(err)
		}
		return cart.AddItem{Item: item}
	}
}

// TestUnderLoad: meanwhile two sidecars that move carts and one that does not know of the move sell, in locked mode.
// Each thing that was added is there once.
func TestUnderLoad(t *testing.T) {
	for name, open := range pairs {
		t.Run(name, func(t *testing.T) {
			openOld, openNew := open(t)
			const carts, writers, changes = 40, 8, 40
			opts := lock.Options{
				Locking: true, WaitTimeout: patient, LeaseDuration: 5 * time.Second, TTL: time.Hour, Holder: "test",
				Limits: cart.DefaultLimits(),
			}
			stores := []storage.Store{openOld(), movingStore(t, openOld(), openNew()), movingStore(t, openOld(), openNew())}
			var shops []*lock.Coordinator
			for _, s := range stores {
				c := lock.New(s, opts)
				t.Cleanup(func() { _ = c.Close(context.Background()) })
				shops = append(shops, c)
			}
			keyOf := func(i int) cart.Key { return cart.Key{Identifier: fmt.Sprint("u", i), Instance: "default"} }
			item := addItem(t)
			var (
				mu    sync.Mutex
				acked = map[cart.Key]map[string]int{}
				took  []time.Duration
				moved atomic.Int64
			)
			note := func(key cart.Key, id string) {
				mu.Lock()
				defer mu.Unlock()
				if acked[key] == nil {
					acked[key] = map[string]int{}
				}
				acked[key][id]++
			}
			for i := range carts {
				if _, err := shops[0].Change(t.Context(), keyOf(i), lock.Change{Verb: item("first")}); err != nil {
					t.Fatal(err)
				}
				note(keyOf(i), "first")
			}
			walked := make(chan error, 1)
			var running sync.WaitGroup
			for w := range writers {
				running.Go(func() {
					shop := shops[w%len(shops)]
					for range changes {
						key := keyOf(0) // hot
						if rand.N(2) == 0 {
							key = keyOf(rand.N(carts))
						}
						id := fmt.Sprint("by", w)
						began := time.Now()
						_, err := shop.Change(t.Context(), key, lock.Change{Verb: item(id)})
						switch {
						case err == nil:
							note(key, id)
							if shop != shops[0] {
								mu.Lock()
								took = append(took, time.Since(began))
								mu.Unlock()
							}
						case errors.Is(err, storage.ErrMoved) && shop == shops[0]:
							moved.Add(1) // it says so, and has changed nothing
						default:
							t.Errorf("writer %d: %v", w, err)
						}
					}
				})
			}
			go func() { walked <- walkAll(t, stores[1].(*moving.Store)) }()
			running.Wait()
			if err := <-walked; err != nil {
				t.Fatalf("walk: %v", err)
			}
			for i := range carts {
				k, err := shops[2].Read(t.Context(), keyOf(i))
				if err != nil {
					t.Fatal(err)
				}
				text := itemsOf(k)
				for id, n := range acked[keyOf(i)] {
					if !strings.Contains(text, fmt.Sprintf(`"id":%q,"quantity":%d`, id, n)) {
						t.Errorf("%s: %d of %q were acknowledged: %s", keyOf(i), n, id, text)
					}
				}
				if inOld := mustLoad(t, stores[0], keyOf(i)); !inOld.Empty() || markerOf(t, stores[0], keyOf(i)) != "done" {
					t.Errorf("%s is left in the old backend: %s", keyOf(i), itemsOf(inOld))
				}
			}
			slices.Sort(took)
			t.Logf("%d changes while all carts moved: p50 %v, p99 %v, longest %v; %d calls to the sidecar that was not told were refused",
				len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1], moved.Load())
		})
	}
}
