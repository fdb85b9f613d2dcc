package cell

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// counting is a toy that counts what it is asked for.
type counting struct {
	toyStore
	gets, swaps *atomic.Int64
}

func (d counting) Get(ctx context.Context, key cart.Key) ([]byte, uint64, error) {
	d.gets.Add(1)
	return d.toyStore.Get(ctx, key)
}

func (d counting) Swap(ctx context.Context, key cart.Key, revision uint64, value []byte, ends time.Time) (bool, error) {
	d.swaps.Add(1)
	return d.toyStore.Swap(ctx, key, revision, value, ends)
}

// slow is one with a pace of its own.
type slow struct{ counting }

func (slow) Pauses() (shortest, longest time.Duration) {
	return 40 * time.Millisecond, 40 * time.Millisecond
}

func newCounting(d *toy) counting {
	return counting{toyStore{d, make(chan struct{})}, new(atomic.Int64), new(atomic.Int64)}
}

// TestPace: a waiter that nobody wakes looks at the pace of the driver, less often the further back in the queue it is,
// and writes only to renew its place.
func TestPace(t *testing.T) {
	// Each waits for 240 ms, in which a place need not be renewed.
	looks := func(t *testing.T, place int, open func(counting) Swapper) (gets int64) {
		synctest.Test(t, func(t *testing.T) {
			c := newCounting(newToy())
			s := New(Swapping(open(c)))
			defer func() { _ = s.Close() }()
			claim := queueUp(t, s, key, false)
			for i := range place {
				claim.Token = fmt.Sprint("later", i)
				if outs, err := s.Commit(t.Context(), storage.Commit{Key: key, Locks: storage.Locks{Parts: claim.Parts, Claim: &claim}}); err != nil || !outs[0].Claimed.Queued {
					t.Fatalf("Commit: %+v, %v", outs, err)
				}
			}
			c.gets.Store(0)
			c.swaps.Store(0)
			ctx, cancel := context.WithTimeout(t.Context(), storage.Heartbeat-10*time.Millisecond)
			defer cancel()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = s.Acquire(ctx, key, claim, true)
			}()
			<-ctx.Done()
			synctest.Wait()
			gets = c.gets.Load()
			<-done
			if n := c.swaps.Load(); n != 1 { // it left the queue
				t.Errorf("place %d: %d writes", place, n)
			}
		})
		return gets
	}
	usual := func(c counting) Swapper { return c }
	const rounds = 10 // pauses have jitter
	var first, fourth, paced int64
	for range rounds {
		first += looks(t, 0, usual)
		fourth += looks(t, 3, usual)
		paced += looks(t, 0, func(c counting) Swapper { return slow{c} })
	}
	if first < 10*rounds || first > 60*rounds {
		t.Errorf("the first in the queue looked %d times in %d × 240 ms", first, rounds)
	}
	if fourth < 2*rounds || fourth > first*3/4 {
		t.Errorf("the fourth looked %d times, the first %d times", fourth, first)
	}
	if paced < 4*rounds || paced > 12*rounds {
		t.Errorf("at a pace of 40 ms it looked %d times in %d × 240 ms", paced, rounds)
	}
}

// TestGrantIsReadOnce: the look that finds a lock granted brings the cart with it.
func TestGrantIsReadOnce(t *testing.T) {
	d := newToy()
	other, c := d.open(t), newCounting(d)
	s := New(Swapping(c))
	t.Cleanup(func() { _ = s.Close() })
	if _, err := commit(t.Context(), other, key, &cart.Cart{}); err != nil {
		t.Fatal(err)
	}
	queueUp(t, s, key, false)
	claim := storage.Claim{Token: "next", Parts: []cart.Part{cart.PartAll}, Duration: storage.WaiterTTL} // a turn
	if err := other.Abandon(t.Context(), key, "next"); err != nil {
		t.Fatal(err)
	}
	if outs, err := s.Commit(t.Context(), storage.Commit{Key: key, Locks: storage.Locks{Parts: claim.Parts, Claim: &claim}}); err != nil || !outs[0].Claimed.Queued {
		t.Fatalf("Commit: %+v, %v", outs, err)
	}
	if err := other.Abandon(t.Context(), key, "holder"); err != nil {
		t.Fatal(err)
	}
	c.gets.Store(0)
	c.swaps.Store(0)
	g, err := s.Acquire(t.Context(), key, claim, true)
	if err != nil || g.Cart.Version != 1 || string(g.Cart.Items.Object.Bytes()) != `{"a":1}` {
		t.Errorf("Acquire: %+v, %v", g.Cart, err)
	}
	if c.gets.Load() != 1 || c.swaps.Load() != 0 {
		t.Errorf("that took %d reads and %d writes", c.gets.Load(), c.swaps.Load())
	}
}

// alone is a toy whose data no other store has.
type alone struct{ toyStore }

func (alone) Capabilities() storage.Capabilities { return storage.Capabilities{Backend: "Toy"} }

// TestHears: waiters look at the record again and again only where another store may have changed it unheard.
func TestHears(t *testing.T) {
	toy := toyStore{newToy(), make(chan struct{})}
	for name, c := range map[string]struct {
		swapper Swapper
		want    bool
	}{
		"shared, without a notifier": {toy, false},
		"shared, with one":           {quick{toyStore: toy, Notifier: able{toy, new(hub)}}, true},
		"not shared":                 {alone{toy}, true},
	} {
		if got := New(Swapping(c.swapper)).hears(); got != c.want {
			t.Errorf("%s: it hears: %t, want %t", name, got, c.want)
		}
	}
}
