package lock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/moving"
	"github.com/sidecart/sidecart/internal/storage/redis"
	"github.com/sidecart/sidecart/internal/testserver"
)

// watcher is a reader of events.
type watcher struct {
	t      *testing.T
	shown  chan lock.Sighting // without room: a state is shown when the test takes it
	beats  chan struct{}
	ended  chan error
	cancel context.CancelFunc
}

func watch(t *testing.T, c *lock.Coordinator, key cart.Key, seen string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{t: t, shown: make(chan lock.Sighting), beats: make(chan struct{}, 1), ended: make(chan error, 1), cancel: cancel}
	go func() {
		w.ended <- c.Watch(ctx, key, lock.WatchRequest{
			Seen: &lock.Sight{ETag: seen}, Began: func() {}, Timeout: 5 * time.Second,
			Show: func(s lock.Sighting) error {
				select {
				case w.shown <- s:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			},
			Beat: func() error {
				select {
				case w.beats <- struct{}{}:
				default:
				}
				return nil
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-w.ended:
		case <-time.After(20 * time.Second):
			t.Error("the watch does not end")
		}
	})
	return w
}

// next is the next state that is shown, in short: "1: a" for version 1 with the item a, "gone".
func (w *watcher) next() string {
	w.t.Helper()
	select {
	case s := <-w.shown:
		return short(s)
	case err := <-w.ended:
		w.ended <- err
		w.t.Fatalf("it ended: %v", err)
	case <-time.After(30 * time.Second):
		w.t.Fatal("nothing is shown")
	}
	return ""
}

func short(s lock.Sighting) string {
	text := fmt.Sprint(s.Cart.Version, ":")
	for _, m := range s.Cart.Items.Object.Members() {
		text += " " + m.Key
	}
	if s.Gone {
		return "gone " + text
	}
	return text
}

func (w *watcher) want(want string) {
	w.t.Helper()
	if got := w.next(); got != want {
		w.t.Fatalf("shown is %q, want %q", got, want)
	}
}

// What one sidecar commits, another shows, on every backend: first what stands there, then each change, that the cart
// is gone, and its successor.
func TestWatch(t *testing.T) {
	for name, open := range allBackends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := open(t)
			writer := lock.New(backend(), options())
			reader := lock.New(backend(), options())
			w := watch(t, reader, key, "")
			w.want("0:")
			must(t)(add(t, writer, "a"))
			w.want("1: a")
			must(t)(add(t, writer, "b"))
			w.want("2: a b")
			must(t)(writer.Forget(t.Context(), key, lock.Change{}))
			w.want("gone 0:")
			must(t)(add(t, writer, "c"))
			w.want("1: c")
			must(t)(writer.HandOver(t.Context(), key, cart.Key{Identifier: "other", Instance: key.Instance}, cart.StrategySwap, lock.Change{}))
			w.want("gone 0:")
		})
	}
}

// A cart that expires is gone, and nobody has written anything.
func TestWatchExpiry(t *testing.T) {
	for name, open := range allBackends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := open(t)
			o := options()
			o.TTL = 2 * time.Second
			writer := lock.New(backend(), o)
			must(t)(add(t, writer, "a"))
			w := watch(t, lock.New(backend(), o), key, "")
			w.want("1: a")
			w.want("gone 0:")
		})
	}
}

// A reader that is slow is shown the latest state, and neither every one nor an old one last. It holds up neither the
// writer nor another reader.
func TestWatchSlowReader(t *testing.T) {
	backend := allBackends()["memory"](t)
	c := lock.New(backend(), options())
	slow, quick := watch(t, c, key, ""), watch(t, c, key, "")
	slow.want("0:")
	quick.want("0:")
	const changes = 50
	latest := ""
	for i := range changes {
		must(t)(c.Change(t.Context(), key, lock.Change{Verb: cart.IncrementMetadata{Key: "n", By: 1}, Scope: cart.PartAll}))
		latest = fmt.Sprint(i+1, ":")
		quick.want(latest)
	}
	shown := 0
	for got := ""; got != latest; shown++ {
		got = slow.next()
	}
	if shown > 2 {
		t.Errorf("a reader that slept is shown %d states", shown)
	}
	select {
	case s := <-slow.shown:
		t.Errorf("after the latest it is shown %s", short(s))
	case <-slow.beats:
		t.Error("it beats")
	default:
	}
}

// Who has seen the present state is not shown it again, and is told that the watch has begun.
func TestWatchGoesOn(t *testing.T) {
	c := lock.New(openMemory(t), options())
	res := must(t)(add(t, c, "a"))
	w := watch(t, c, key, res.Cart.ETag())
	<-w.beats
	must(t)(add(t, c, "b"))
	w.want("2: a b")
	watch(t, c, key, "of another time").want("2: a b")
	// One that knows the cart that is gone is told so, also if that is the first that happens.
	last := watch(t, c, key, read(t, c, key).ETag())
	<-last.beats
	must(t)(c.Forget(t.Context(), key, lock.Change{}))
	last.want("gone 0:")
}

// Where one cart takes the place of another between two looks, the first is gone.
func TestWatchSuccessor(t *testing.T) {
	c := lock.New(openMemory(t), options())
	must(t)(add(t, c, "a"))
	w := watch(t, c, key, "")
	w.want("1: a")
	must(t)(add(t, c, "b"))
	shown := <-w.shown // it is at showing this, and what follows happens meanwhile
	if got := short(shown); got != "2: a b" {
		t.Fatal(got)
	}
	other := cart.Key{Identifier: "guest", Instance: key.Instance}
	must(t)(c.Change(t.Context(), other, lock.Change{Verb: item(t, "g", 1), Scope: cart.PartAll}))
	must(t)(c.HandOver(t.Context(), other, key, cart.StrategySwap, lock.Change{}))
	w.want("gone 0:")
	w.want("2: g")
}

func TestWatchEndsWithTheCoordinator(t *testing.T) {
	c := lock.New(openMemory(t), options())
	w := watch(t, c, key, "")
	w.want("0:")
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := <-w.ended
	w.ended <- err
	if !errors.Is(err, lock.ErrDraining) {
		t.Errorf("it ended with %v", err)
	}
	if err := c.Watch(t.Context(), key, lock.WatchRequest{}); !errors.Is(err, lock.ErrDraining) {
		t.Errorf("afterwards: %v", err)
	}
}

// Who is shown nothing is told every 15 seconds that the watch goes on.
func TestWatchBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer func() { _ = store.Close() }()
		ctx, cancel := context.WithCancel(t.Context())
		ended, began := make(chan error), time.Now()
		var beats []time.Duration
		go func() {
			ended <- lock.New(store, options()).Watch(ctx, key, lock.WatchRequest{
				Seen: &lock.Sight{}, Began: func() {}, Timeout: time.Second,
				Show: func(lock.Sighting) error { return nil },
				Beat: func() error { beats = append(beats, time.Since(began)); return nil },
			})
		}()
		time.Sleep(46 * time.Second)
		cancel()
		<-ended
		want := []time.Duration{lock.BeatInterval, 2 * lock.BeatInterval, 3 * lock.BeatInterval}
		if !slices.Equal(beats, want) {
			t.Errorf("it beats after %v, want %v", beats, want)
		}
	})
}

// deaf is a store that tells nothing, as one whose other sidecars are of an older release.
type deaf struct{ storage.Locker }

// failing is a store whose carts cannot be read while it has an error.
type failing struct {
	blind
	err atomic.Pointer[error]
}

func (f *failing) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	if err := f.err.Load(); err != nil {
		return nil, *err
	}
	return f.blind.Load(ctx, key)
}

// A read that fails while the backend is gone does not end the watch. The reader is shown the latest when the backend
// answers again, though nobody tells of it. What does not pass ends the watch.
func TestWatchOutlivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer func() { _ = store.Close() }()
		writer, broken := lock.New(store, options()), &failing{blind: blinded(store)}
		var shown []string
		ended := make(chan error, 1)
		go func() {
			ended <- lock.New(broken, options()).Watch(t.Context(), key, lock.WatchRequest{
				Seen: &lock.Sight{}, Began: func() {}, Timeout: time.Second,
				Show: func(s lock.Sighting) error { shown = append(shown, short(s)); return nil },
			})
		}()
		want := func(want ...string) {
			t.Helper()
			time.Sleep(2 * time.Second) // of the bubble: longer than a pause between two tries
			synctest.Wait()
			if !slices.Equal(shown, want) {
				t.Fatalf("shown is %q, want %q", shown, want)
			}
		}
		want("0:")
		broken.err.Store(&storage.ErrUnavailable)
		must(t)(add(t, writer, "a"))
		must(t)(add(t, writer, "b"))
		want("0:")
		broken.err.Store(nil)
		want("0:", "2: a b")
		broken.err.Store(&storage.ErrCorrupt)
		must(t)(add(t, writer, "c"))
		if err := <-ended; !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("it ended with %v", err)
		}
	})
}

// What nobody tells of is found by looking, within a second.
func TestWatchByAsking(t *testing.T) {
	store := openMemory(t)
	writer, reader := lock.New(store, options()), lock.New(deaf{store}, options())
	w := watch(t, reader, key, "")
	w.want("0:")
	for i := range 3 {
		must(t)(add(t, writer, fmt.Sprint(i)))
		began := time.Now()
		w.next()
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	}
}

// While carts move, what either release writes is shown, and the move is no event.
func TestWatchWhileCartsMove(t *testing.T) {
	from := redis.Config{Addresses: []string{testserver.StartRedis(t).Addr}, Prefix: "cart", DialTimeout: time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
	to := from
	to.Prefix = "moved"
	store := func(c redis.Config) storage.Store {
		s, err := redis.New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	both := func() storage.Store {
		s, err := moving.New(store(from), store(to), "test")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	old := lock.New(store(from), options())
	must(t)(add(t, old, "a"))
	w := watch(t, lock.New(both(), options()), key, "")
	w.want("1: a")
	must(t)(add(t, old, "b")) // by a sidecar that does not know of the move
	w.want("2: a b")
	must(t)(add(t, lock.New(both(), options()), "c")) // which moves the cart
	w.want("3: a b c")
	must(t)(add(t, lock.New(store(to), options()), "d")) // by one that knows only the new backend
	w.want("4: a b c d")
}
