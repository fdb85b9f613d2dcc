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
// does. The user of a Watcher must look too, but more seldom: a message may get lost, and a sidecar of an older release
// sends none.
type Watcher interface {
	// Watch calls changed soon after any sidecar has changed the cart of key, or may have, until stop is called. It
	// does not block, nor must changed. changed may be called when nothing has changed. The expiry of a cart does not
	// count as a change.
	Watch(key cart.Key, changed func()) (stop func())

	// Hears reports whether the store is now told of every change that other sidecars of this release make to the cart.
	// The cart must be watched. When that begins, changed is called once.
	Hears(key cart.Key) bool

	// Glance looks at carts, one Glimpse for each of keys, by reads as cheap as the store has them.
	Glance(ctx context.Context, keys []cart.Key) ([]Glimpse, error)
}

// Glimpse is what a look at a cart shows of it. If two of the same cart differ in ID or Version, the cart has changed.
// A cart that is not there is the zero Glimpse.
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

// GlanceEach is a [Watcher].Glance for a store that looks at carts one by one. A cart that cannot be looked at has the
// zero Glimpse, so that it does not hide the others. There is an error, that of the first such cart, only if no cart
// could be looked at.
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

// Tell tells the watchers of the cart. It costs next to nothing if nobody watches any cart.
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
