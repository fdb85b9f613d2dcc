package lock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
)

// listAll makes a whole list, with between called after each page, and returns how often each cart is on it.
func listAll(t *testing.T, c *lock.Coordinator, r lock.ListRequest, between func()) (met map[cart.Key]int, pages int) {
	t.Helper()
	met = map[cart.Key]int{}
	for {
		found, next, err := c.List(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > r.Most {
			t.Fatalf("a page of %d carts, at most %d were asked for", len(found), r.Most)
		}
		for _, f := range found {
			met[f.Key]++
			if f.Version == 0 || f.UpdatedAt.IsZero() {
				t.Errorf("%+v", f)
			}
		}
		if pages++; next == nil {
			return met, pages
		}
		r.Place = *next
		between()
	}
}

// A list meets every cart that exists all the while, whatever comes and goes meanwhile and however small its pages are.
// Carts that have expired, and locks without a cart, are on none.
func TestListMeetsEveryCart(t *testing.T) {
	for name, open := range allBackends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := open(t)()
			c := lock.New(store, options())
			if name == "memcached" {
				if _, _, err := c.List(t.Context(), lock.ListRequest{Most: 10}); !errors.Is(err, storage.ErrUnsupported) {
					t.Errorf("a backend that cannot find its carts: %v", err)
				}
				return
			}
			put := func(key cart.Key) {
				t.Helper()
				must(t)(c.Change(t.Context(), key, lock.Change{Verb: item(t, "a", 1), Scope: cart.PartItems}))
			}
			want := map[cart.Key]bool{}
			for i := range 40 {
				key := cart.Key{Identifier: fmt.Sprint("u", i%30), Instance: fmt.Sprint("a.b", i/30)}
				want[key] = true
				put(key)
			}
			locked := cart.Key{Identifier: "u-locked", Instance: "default"}
			if _, err := c.AcquireLease(t.Context(), locked, lock.LeaseRequest{Parts: []cart.Part{cart.PartAll}, Wait: -1, Duration: time.Minute}); err != nil {
				t.Fatal(err)
			}
			gone := cart.Key{Identifier: "u-gone", Instance: "default"}
			put(gone)
			must(t)(c.Forget(t.Context(), gone, lock.Change{}))
			if err := store.Ping(t.Context()); err != nil { // which leaves a record of a name that no client has
				t.Fatal(err)
			}
			for _, most := range []int{1, 7, 1000} {
				n := 0
				met, pages := listAll(t, c, lock.ListRequest{Most: most}, func() {
					if n++; n%3 == 0 && n < 60 {
						put(cart.Key{Identifier: fmt.Sprint("new-", most, "-", n), Instance: "default"})
					}
				})
				for key := range want {
					if met[key] == 0 {
						t.Errorf("pages of %d do not have %s", most, key)
					}
				}
				for key := range met {
					if !want[key] && !strings.HasPrefix(key.Identifier, "new-") {
						t.Errorf("pages of %d have %s", most, key)
					}
				}
				if least := len(want) / most; pages < least {
					t.Errorf("%d pages of %d", pages, most)
				}
			}
		})
	}
}

// odd is a store in memory whose reads take time, and whose pages are as they are given.
type odd struct {
	storage.Locker
	takes   time.Duration
	damaged cart.Key
	page    func(after string, limit int) (keys []cart.Key, next string)

	mu            sync.Mutex
	reading, most int // at once
}

func (o *odd) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	o.mu.Lock()
	o.reading++
	o.most = max(o.most, o.reading)
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.reading--
	}()
	time.Sleep(o.takes) // by the clock of the bubble
	if key == o.damaged {
		return nil, fmt.Errorf("load: %w", storage.ErrCorrupt)
	}
	return o.Locker.Load(ctx, key)
}

func (o *odd) Page(ctx context.Context, after string, limit int) ([]cart.Key, string, error) {
	if o.page == nil {
		w, _ := storage.As[storage.Walker](o.Locker)
		return w.Page(ctx, after, limit)
	}
	keys, next := o.page(after, limit)
	return keys, next, nil
}

// oddly runs a test on such a store with n carts, in a bubble.
func oddly(t *testing.T, n int, name func(i int) cart.Key, test func(t *testing.T, o *odd, c *lock.Coordinator)) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		defer store.Close()
		o := &odd{Locker: store}
		opts := options()
		opts.TTL = 0
		c := lock.New(o, opts)
		for i := range n {
			must(t)(c.Change(t.Context(), name(i), lock.Change{Verb: item(t, "a", 1), Scope: cart.PartItems}))
		}
		test(t, o, c)
	})
}

func numbered(i int) cart.Key { return cart.Key{Identifier: fmt.Sprint("u", i), Instance: "default"} }

// A page of a slow backend ends when half of its time is over, and the list goes on behind it.
func TestListOfASlowBackend(t *testing.T) {
	oddly(t, 50, numbered, func(t *testing.T, o *odd, c *lock.Coordinator) {
		o.takes = 300 * time.Millisecond
		var place lock.ListPlace
		met := map[cart.Key]bool{}
		for pages := 1; ; pages++ {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			began := time.Now()
			found, next, err := c.List(ctx, lock.ListRequest{Place: place, Most: 1000})
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); len(found) == 0 || took > 3*time.Second {
				t.Errorf("%d carts in %s", len(found), took)
			}
			for _, f := range found {
				met[f.Key] = true
			}
			if next == nil {
				if len(met) != 50 || pages < 4 {
					t.Errorf("%d carts on %d pages", len(met), pages)
				}
				return
			}
			place = *next
		}
	})
}

// Lists take turns, read one cart at a time, and rest as long as a read takes. Who comes too late is told that it is
// busy.
func TestListsSlowNobody(t *testing.T) {
	oddly(t, 20, numbered, func(t *testing.T, o *odd, c *lock.Coordinator) {
		o.takes = 10 * time.Millisecond
		began := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if found, _, err := c.List(t.Context(), lock.ListRequest{Most: 100}); err != nil || len(found) != 20 {
					t.Errorf("%d carts, %v", len(found), err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, _, err := c.List(ctx, lock.ListRequest{Most: 100}); !errors.Is(err, lock.ErrBusy) {
			t.Errorf("behind others: %v", err)
		}
		wg.Wait()
		if took := time.Since(began); o.most != 1 || took != 3*20*2*o.takes {
			t.Errorf("%d reads at once, in %s", o.most, took)
		}
	})
}

// Carts that were changed since are left out, those that were not are on the list.
func TestListOfIdleCarts(t *testing.T) {
	oddly(t, 5, numbered, func(t *testing.T, _ *odd, c *lock.Coordinator) {
		time.Sleep(time.Hour)
		must(t)(c.Change(t.Context(), numbered(2), lock.Change{Verb: item(t, "a", 1), Scope: cart.PartItems}))
		time.Sleep(time.Hour)
		for idle, want := range map[time.Duration]int{0: 5, time.Hour: 5, time.Hour + 1: 4, 2 * time.Hour: 4, 2*time.Hour + 1: 0} {
			if met, _ := listAll(t, c, lock.ListRequest{Most: 2, Idle: idle}, func() {}); len(met) != want || met[numbered(2)] > 0 != (idle <= time.Hour) {
				t.Errorf("idle for %s: %v", idle, met)
			}
		}
	})
}

// One cart whose stored form is damaged keeps no other from the list.
func TestListPassesDamagedCarts(t *testing.T) {
	oddly(t, 5, numbered, func(t *testing.T, o *odd, c *lock.Coordinator) {
		o.damaged = numbered(3)
		if met, _ := listAll(t, c, lock.ListRequest{Most: 2}, func() {}); len(met) != 4 {
			t.Errorf("%v", met)
		}
	})
}

// Names that a backend finds beyond what a page has room for are on the next pages. What would make a token too long is
// asked for again.
func TestListOfAGenerousBackend(t *testing.T) {
	long := func(i int) cart.Key {
		return cart.Key{Identifier: fmt.Sprint(strings.Repeat("u", 250), i), Instance: strings.Repeat("i", 255)}
	}
	oddly(t, 60, long, func(t *testing.T, o *odd, c *lock.Coordinator) {
		asked, crowded := 0, 2
		o.page = func(after string, _ int) (keys []cart.Key, next string) {
			asked++
			from, to := 0, 10
			switch after {
			case "":
				next = "second"
			case "second": // which has very many at first
				if from, to = 10, 20; crowded > 0 {
					crowded--
					to = 60
				}
				next = "third"
			case "third":
				from, to = 20, 60
			}
			for i := from; i < to; i++ {
				keys = append(keys, long(i))
			}
			return keys, next
		}
		r := lock.ListRequest{Most: 7}
		met := map[cart.Key]bool{}
		for range 100 {
			found, next, err := c.List(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				met[f.Key] = true
			}
			if next == nil {
				break
			}
			if r.Place = *next; r.Place.After == "third" {
				r.Most = 1000
			}
			n := 0
			for _, key := range r.Place.Pending {
				n += len(key.Identifier) + len(key.Instance)
			}
			if n > 14<<10 {
				t.Fatalf("%d bytes of names", n)
			}
		}
		if len(met) != 60 || crowded != 0 {
			t.Errorf("%d carts, after %d pages of names", len(met), asked)
		}
	})
}
