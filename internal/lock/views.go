package lock

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// views are the readers of events, by the cart that they watch. The store is asked once for all readers of a cart.
//
// If the store reports changes, it wakes the readers. In addition each cart is checked from time to time. That finds
// changes which the store did not report, and carts that have expired.
type views struct {
	coordinator *Coordinator
	source      storage.Watcher

	mu     sync.Mutex
	carts  map[cart.Key]*viewed
	pacing bool
	wake   chan struct{}
}

// viewed is a cart that is watched.
type viewed struct {
	views *views
	key   cart.Key
	stop  func() // ends the store's watch

	// What follows is guarded by the mutex of views.
	readers map[*view]struct{}
	// changes counts how often the readers were woken.
	changes uint64
	reading *reading
	// due is when the cart is checked next, and glimpse is what the last check saw.
	due     time.Time
	looked  bool
	glimpse storage.Glimpse
}

// view is one reader.
type view struct {
	of   *viewed
	news chan struct{}
}

// reading is a read of the cart that several readers share. It began when the readers had been woken as often as
// changes says.
type reading struct {
	changes uint64
	done    chan struct{}
	cart    *cart.Cart
	err     error
}

// How often a cart is checked: if the store reports its changes, and if it does not. The actual interval is up to a
// quarter less, so that carts are not all checked at once. Together with the check itself it stays below a second.
const (
	heardPace  = 2 * time.Second
	unheard    = 800 * time.Millisecond
	leastPause = 10 * time.Millisecond
	// atOnce is how many carts are checked together, and lookLimit how long that may take.
	atOnce    = 200
	lookLimit = 2 * time.Second
)

func newViews(c *Coordinator) *views {
	return &views{coordinator: c, source: storage.WatcherOf(c.store), carts: map[cart.Key]*viewed{}, wake: make(chan struct{}, 1)}
}

// join adds a reader.
func (vs *views) join(key cart.Key) *view {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	k := vs.carts[key]
	if k == nil {
		k = &viewed{views: vs, key: key, readers: map[*view]struct{}{}, due: time.Now().Add(rand.N(unheard))}
		k.stop = vs.source.Watch(key, k.changed)
		vs.carts[key] = k
	}
	v := &view{of: k, news: make(chan struct{}, 1)}
	k.readers[v] = struct{}{}
	if !vs.pacing {
		vs.pacing = true
		go vs.pace()
	}
	vs.kick()
	return v
}

// leave removes the reader.
func (v *view) leave() {
	k, vs := v.of, v.of.views
	vs.mu.Lock()
	defer vs.mu.Unlock()
	delete(k.readers, v)
	if len(k.readers) == 0 {
		delete(vs.carts, k.key)
		k.stop()
		vs.kick()
	}
}

func (vs *views) kick() {
	select {
	case vs.wake <- struct{}{}:
	default:
	}
}

// changed wakes the readers of a cart.
func (k *viewed) changed() {
	k.views.mu.Lock()
	defer k.views.mu.Unlock()
	k.wakeAll()
}

func (k *viewed) wakeAll() {
	k.changes++
	for v := range k.readers {
		select {
		case v.news <- struct{}{}:
		default:
		}
	}
}

// read reads the cart, or shares the read of another reader that began after this one was woken.
func (v *view) read(ctx context.Context, limit time.Duration) (*cart.Cart, error) {
	k, vs := v.of, v.of.views
	vs.mu.Lock()
	r := k.reading
	if r == nil || r.changes != k.changes {
		r = &reading{changes: k.changes, done: make(chan struct{})}
		k.reading = r
		vs.mu.Unlock()
		// Others share the read, so it must not end with this reader.
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		r.cart, r.err = vs.coordinator.read(own, k.key)
		vs.mu.Lock()
		if k.reading == r {
			k.reading = nil
		}
		vs.mu.Unlock()
		close(r.done)
		return r.cart, r.err
	}
	vs.mu.Unlock()
	select {
	case <-r.done:
		return r.cart, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pace checks each cart when it is due, as long as any cart is watched.
func (vs *views) pace() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-vs.wake:
		}
		due, next, some := vs.whatIsDue()
		if !some {
			return
		}
		if len(due) > 0 {
			vs.look(due)
			next = 0
		}
		timer.Reset(next)
	}
}

// whatIsDue returns the carts to check now, and how long until the next are due. some is false if no cart is watched;
// then pacing ends.
func (vs *views) whatIsDue() (due []*viewed, next time.Duration, some bool) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if len(vs.carts) == 0 {
		vs.pacing = false
		return nil, 0, false
	}
	now := time.Now()
	next = heardPace
	for _, k := range vs.carts {
		left := k.due.Sub(now)
		if left <= 0 && len(due) < atOnce {
			due = append(due, k)
		}
		next = min(next, max(left, leastPause))
	}
	return due, next, true
}

// look checks carts, and wakes the readers of those that have changed.
func (vs *views) look(due []*viewed) {
	keys := make([]cart.Key, len(due))
	paces := make([]time.Duration, len(due))
	for i, k := range due {
		keys[i], paces[i] = k.key, unheard
		if vs.source.Hears(k.key) {
			paces[i] = heardPace
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookLimit)
	defer cancel()
	seen, err := vs.source.Glance(ctx, keys)
	now := time.Now()
	vs.mu.Lock()
	defer vs.mu.Unlock()
	for i, k := range due {
		pause := paces[i] - rand.N(paces[i]/4)
		if err == nil {
			g := seen[i]
			if !k.looked || g.ID != k.glimpse.ID || g.Version != k.glimpse.Version {
				k.wakeAll()
			}
			k.looked, k.glimpse = true, g
			if g.Left > 0 {
				pause = min(pause, g.Left+time.Millisecond)
			}
		}
		k.due = now.Add(max(pause, leastPause))
	}
}
