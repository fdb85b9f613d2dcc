package storage

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// Watcher is a store that tells when a cart changes. The fallback is to look at the cart now and then, as [WatcherOf]
// does. So must whoever uses a Watcher, more seldom: a message may get lost, and a sidecar of an older release sends
// none.
type Watcher interface {
	// Watch has changed called soon after the cart of key has changed, by whatever sidecar, or may have, until stop is
	// called. It waits for nobody. changed must not block, and may be called when nothing has changed. That a cart
	// expires is no change.
	Watch(key cart.Key, changed func()) (stop func())

	// Hears reports whether it is told now of all that other sidecars of this release change of the cart, which it must
	// watch. When that begins, changed is called once.
	Hears(key cart.Key) bool

	// Glance looks at carts, one Glimpse for each of keys, by reads as cheap as the store has them.
	Glance(ctx context.Context, keys []cart.Key) ([]Glimpse, error)
}

// Glimpse is what a look at a cart shows of it. Where two of the same cart differ in ID or Version, the cart has
// changed. A cart that is not there is the zero Glimpse.
type Glimpse struct {
	ID      string
	Version uint64
	// Left is in how much time the cart expires unless it is changed; 0 for never.
	Left time.Duration
}

// GlimpseAt is the Glimpse of a cart at now, by the clock that gave the cart its times.
func GlimpseAt(c *cart.Cart, now time.Time) Glimpse {
	if !c.Exists() {
		return Glimpse{}
	}
	g := Glimpse{ID: c.ID, Version: c.Version}
	if !c.ExpiresAt.IsZero() {
		g.Left = max(c.ExpiresAt.Sub(now), 1)
	}
	return g
}

// WatcherOf returns the power of s to watch carts, or the fallback.
func WatcherOf(s Store) Watcher {
	if w, ok := As[Watcher](s); ok {
		return w
	}
	return asker{s}
}

// asker is the fallback for a store that tells nothing.
type asker struct{ store Store }

func (asker) Watch(cart.Key, func()) func() { return func() {} }

func (asker) Hears(cart.Key) bool { return false }

func (a asker) Glance(ctx context.Context, keys []cart.Key) ([]Glimpse, error) {
	return GlanceEach(ctx, keys, func(ctx context.Context, key cart.Key) (Glimpse, error) {
		c, err := a.store.Load(ctx, key)
		if err != nil {
			return Glimpse{}, err
		}
		return GlimpseAt(c, time.Now()), nil
	})
}

// glances is how many looks at single carts are under way at once.
const glances = 8

// GlanceEach is a [Watcher].Glance for a store that looks at one cart after the other. A cart that cannot be looked at
// has the zero Glimpse, since it hides none of the others; the error is of the first such cart where there is no other.
func GlanceEach(ctx context.Context, keys []cart.Key, look func(context.Context, cart.Key) (Glimpse, error)) ([]Glimpse, error) {
	all, errs := make([]Glimpse, len(keys)), make([]error, len(keys))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(glances, len(keys)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(keys)); i = next.Add(1) - 1 {
				all[i], errs[i] = look(ctx, keys[i])
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 && !slices.Contains(errs, nil) {
		return nil, errs[0]
	}
	return all, nil
}

// Watches are the carts that a process watches, and whom to tell. The zero value is ready.
type Watches struct {
	some  atomic.Bool // there are any
	mu    sync.Mutex
	byKey map[cart.Key][]*watch
}

type watch struct{ changed func() }

// Add adds a watch, and reports whether it is the first of that cart. remove takes it away, and reports whether it was
// the last of that cart; it must be called once.
func (w *Watches) Add(key cart.Key, changed func()) (first bool, remove func() (last bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey == nil {
		w.byKey = map[cart.Key][]*watch{}
	}
	one := &watch{changed}
	w.byKey[key] = append(w.byKey[key], one)
	w.some.Store(true)
	return len(w.byKey[key]) == 1, func() (last bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		rest := slices.DeleteFunc(slices.Clone(w.byKey[key]), func(other *watch) bool { return other == one })
		if w.byKey[key] = rest; len(rest) == 0 {
			delete(w.byKey, key)
		}
		w.some.Store(len(w.byKey) > 0)
		return len(rest) == 0
	}
}

// Tell tells those who watch the cart. It costs next to nothing where nobody watches any.
func (w *Watches) Tell(key cart.Key) {
	if !w.some.Load() {
		return
	}
	w.mu.Lock()
	list := w.byKey[key]
	w.mu.Unlock()
	for _, one := range list {
		one.changed()
	}
}

// Any reports whether any cart is watched.
func (w *Watches) Any() bool { return w.some.Load() }

// Keys are the carts that are watched, in no order.
func (w *Watches) Keys() (keys []cart.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.byKey {
		keys = append(keys, key)
	}
	return keys
}

// Has reports whether the cart is watched.
func (w *Watches) Has(key cart.Key) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.byKey[key]) > 0
}
