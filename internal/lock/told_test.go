package lock_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
)

// blind is a store that tells of changes, and whose carts cannot be looked at. So readers learn only what they are
// told.
type blind struct {
	storage.Locker
	storage.Watcher
}

func blinded(s storage.Store) blind { return blind{s.(storage.Locker), storage.WatcherOf(s)} }

func (blind) Glance(context.Context, []cart.Key) ([]storage.Glimpse, error) {
	return nil, storage.ErrUnavailable
}

// What a sidecar commits it tells its own readers of, on every backend. Nothing is asked.
func TestWatchTellsOfItself(t *testing.T) {
	for name, open := range allBackends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := lock.New(blinded(open(t)()), options())
			w := watch(t, c, key, "")
			w.want("0:")
			must(t)(add(t, c, "a"))
			w.want("1: a")
			must(t)(add(t, c, "b"))
			w.want("2: a b")
			must(t)(c.Forget(t.Context(), key, lock.Change{}))
			w.want("gone 0:")
		})
	}
}

// What another sidecar commits is told where the backend can, without asking.
func TestWatchIsTold(t *testing.T) {
	for _, name := range []string{"redis", "postgres", "memory"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := allBackends()[name](t)
			writer, reader := lock.New(backend(), options()), lock.New(blinded(backend()), options())
			w := watch(t, reader, key, "")
			w.want("0:")
			// The writer does not know at once that somebody watches.
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			latest, seen := "", ""
			for n := 1; seen == ""; n++ {
				must(t)(writer.Change(t.Context(), key, lock.Change{Verb: cart.IncrementMetadata{Key: "n", By: 1}, Scope: cart.PartAll}))
				latest = fmt.Sprint(n, ":")
				select {
				case s := <-w.shown:
					seen = short(s)
				case <-tick.C:
					if n > 1000 {
						t.Fatal("nothing is told")
					}
				}
			}
			for seen != latest {
				seen = w.next()
			}
			must(t)(writer.Forget(t.Context(), key, lock.Change{}))
			w.want("gone 0:")
			must(t)(add(t, writer, "c"))
			w.want("1: c")
		})
	}
}

// counting is a store that counts what it is asked for, and takes its time to load.
type counting struct {
	storage.Locker
	storage.Watcher
	watches, stops, loads atomic.Int64
}

func (c *counting) Watch(key cart.Key, changed func()) (stop func()) {
	c.watches.Add(1)
	end := c.Watcher.Watch(key, changed)
	return func() {
		c.stops.Add(1)
		end()
	}
}

func (c *counting) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	c.loads.Add(1)
	time.Sleep(10 * time.Millisecond)
	return c.Locker.Load(ctx, key)
}

// All readers of a cart share one watch of the store, and one read of what has changed.
func TestWatchersShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer func() { _ = store.Close() }()
		counted := &counting{Locker: store, Watcher: storage.WatcherOf(store)}
		writer, reader := lock.New(store, options()), lock.New(counted, options())
		ctx, cancel := context.WithCancel(t.Context())
		const readers = 20
		var shown atomic.Int64
		ended := make(chan error)
		for range readers {
			go func() {
				ended <- reader.Watch(ctx, key, lock.WatchRequest{
					Seen: &lock.Sight{}, Began: func() {}, Timeout: time.Second,
					Show: func(lock.Sighting) error { shown.Add(1); return nil },
				})
			}()
		}
		time.Sleep(3 * time.Second) // of the bubble
		before := counted.loads.Load()
		must(t)(add(t, writer, "a"))
		time.Sleep(100 * time.Millisecond)
		// The second read is for a check by time that falls into these moments.
		if loads := counted.loads.Load() - before; shown.Load() != 2*readers || loads < 1 || loads > 2 {
			t.Errorf("a change was shown to %d of %d readers by %d reads", shown.Load()-readers, readers, loads)
		}
		if counted.watches.Load() != 1 || counted.stops.Load() != 0 {
			t.Errorf("%d watches of one cart, %d of them ended", counted.watches.Load(), counted.stops.Load())
		}
		cancel()
		for range readers {
			<-ended
		}
		if counted.watches.Load() != 1 || counted.stops.Load() != 1 {
			t.Errorf("at the end, %d watches of one cart, %d of them ended", counted.watches.Load(), counted.stops.Load())
		}
	})
}
