package lock_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

const (
	farTrip = 300 * time.Microsecond // between two machines of a cluster, with what a server does
	farHop  = 150 * time.Microsecond // from a program to its sidecar and back
)

// far is a server with compare-and-swap whose calls take a round trip each, in the time of a bubble: so what is
// measured is the protocol, whatever else the machine does.
type far struct {
	mu       sync.Mutex
	revision uint64
	value    []byte
}

func (d *far) travel(do func()) {
	way := func() { time.Sleep(farTrip/2 + rand.N(farTrip/10)) }
	way()
	d.mu.Lock()
	do()
	d.mu.Unlock()
	way()
}

func (d *far) get() (value []byte, revision uint64) {
	d.travel(func() { value, revision = d.value, d.revision })
	return value, revision
}

// swap replaces the value, and tells what is there then.
func (d *far) swap(revision uint64, value []byte) (swapped bool, there []byte, now uint64) {
	d.travel(func() {
		if swapped = d.revision == revision; swapped {
			d.revision, d.value = d.revision+1, value
		}
		there, now = d.value, d.revision
	})
	return swapped, there, now
}

// farStore is what a store has of it: it knows what a swap has met, as that of Memcached does.
type farStore struct {
	*far
	*cell.Recent
}

func (d farStore) Get(ctx context.Context, key cart.Key) ([]byte, uint64, error) {
	value, revision := d.get()
	d.Read(key, value, revision)
	return value, revision, ctx.Err()
}

func (d farStore) Swap(ctx context.Context, key cart.Key, revision uint64, value []byte, _ time.Time) (bool, error) {
	swapped, there, now := d.swap(revision, value)
	if swapped {
		d.Stored(key, value, now)
	} else {
		d.Read(key, there, now)
	}
	return swapped, ctx.Err()
}

func (farStore) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "Far", Shared: true}
}
func (farStore) Close() error { return nil }

// farRate is how many changes some writers make of one value in a while, and the longest that one took.
func farRate(writers int, change func(writer int)) (changes int, longest time.Duration) {
	const while = 300 * time.Millisecond
	var (
		mu  sync.Mutex
		all sync.WaitGroup
	)
	for i := range writers {
		all.Go(func() {
			for end := time.Now().Add(while); time.Now().Before(end); {
				begin := time.Now()
				change(i)
				mu.Lock()
				changes, longest = changes+1, max(longest, time.Since(begin))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return changes, longest
}

// plainly is a correct loop without a sidecar: read, change, and store where nothing else was stored meanwhile.
func plainly(d *far) {
	for pause := time.Millisecond; ; pause = min(2*pause, 32*time.Millisecond) {
		value, revision := d.get()
		if swapped, _, _ := d.swap(revision, bytes.Clone(value)); swapped {
			return
		}
		time.Sleep(rand.N(pause))
	}
}

// TestHotCart: on a backend that can compare and swap, writers of one cart make more changes through sidecars than by a
// plain loop, none waits for long, and a writer who meets nobody is about as quick.
func TestHotCart(t *testing.T) {
	rates := map[int]float64{}
	for _, writers := range []int{1, 5} {
		var (
			plain, ours int
			longest     time.Duration
		)
		synctest.Test(t, func(*testing.T) {
			d := new(far)
			plain, _ = farRate(writers, func(int) { plainly(d) })
		})
		synctest.Test(t, func(t *testing.T) {
			d := new(far)
			var sidecars []*lock.Coordinator
			for range writers {
				s := cell.New(cell.Swapping(farStore{d, cell.NewRecent(time.Second)}))
				defer func() { _ = s.Close() }()
				c := lock.New(s, options())
				defer func() { _ = c.Close(context.Background()) }()
				sidecars = append(sidecars, c)
			}
			ours, longest = farRate(writers, func(i int) {
				time.Sleep(farHop)
				if _, err := add(t, sidecars[i], fmt.Sprint("item", i)); err != nil {
					t.Error(err)
				}
			})
			got := 0
			for i, k := 0, read(t, sidecars[0], key); i < writers; i++ {
				got += quantity(t, k, fmt.Sprint("item", i))
			}
			if got != ours {
				t.Errorf("%d of %d changes are in the cart", got, ours)
			}
		})
		rates[writers] = float64(ours) / float64(plain)
		t.Logf("%d writers: %d changes, %d by the plain loop; the longest took %v", writers, ours, plain, longest)
		if longest > 50*time.Millisecond {
			t.Errorf("one of %d writers waited for %v", writers, longest)
		}
	}
	if rates[5] < 1.4 {
		t.Errorf("five writers make %.2f times the changes of a plain loop, want 1.4", rates[5])
	}
	if rates[1] < 1/1.6 {
		t.Errorf("one writer makes %.2f times the changes of a plain loop, want 0.63", rates[1])
	}
}
