package proxy

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage/memory"
)

// The number of carts is told to whoever asks, without a name, and is that of the backend.
func TestCountOfCarts(t *testing.T) {
	store := memory.New()
	t.Cleanup(func() { _ = store.Close() })
	b := realBackend(t)
	b.Count = store.Count
	w := start(t, b)
	r := admin(t, w, "/statusz/carts", "")
	if r.http != http.StatusOK || r.body != `{"generation":7,"carts":0,"more":false}`+"\n" {
		t.Errorf("%d %s", r.http, r.body)
	}
	b.Generation, b.Count = 8, func(context.Context, int) (int, bool, error) { return 12, true, nil }
	w.Swap(b)
	if r = admin(t, w, "/statusz/carts", ""); r.body != `{"generation":8,"carts":12,"more":true}`+"\n" {
		t.Errorf("after a change of the configuration: %d %s", r.http, r.body)
	}
	b.Generation, b.Count = 9, func(context.Context, int) (int, bool, error) { return 0, false, errors.New("hush") }
	w.Swap(b)
	if r = admin(t, w, "/statusz/carts", ""); r.http != http.StatusServiceUnavailable || r.body != "the backend did not say how many carts it has in time\n" {
		t.Errorf("of a backend that fails: %d %s", r.http, r.body)
	}
	b.Generation, b.Count = 10, nil
	w.Swap(b)
	if r = admin(t, w, "/statusz/carts", ""); r.http != http.StatusNotImplemented {
		t.Errorf("of a backend that cannot count: %d %s", r.http, r.body)
	}
}

// However many ask, one walk is under way, and none begins within the life of the last.
func TestCountIsBounded(t *testing.T) {
	var calls atomic.Int64
	now := time.Now()
	var clock atomic.Int64
	c := &cartCount{
		count: func(ctx context.Context) (countAnswer, int, string) {
			if d, ok := ctx.Deadline(); !ok || time.Until(d) > countWithin {
				t.Errorf("a count may take until %v", d)
			}
			return countAnswer{Carts: int(calls.Add(1))}, http.StatusOK, ""
		},
		generation: func() int64 { return 1 },
		now:        func() time.Time { return now.Add(time.Duration(clock.Load())) },
	}
	all := func(want int) {
		t.Helper()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				gone, cancel := context.WithCancel(t.Context())
				cancel() // who asked has gone
				if answer, _, _ := c.get(gone); answer.Carts != want {
					t.Errorf("count %d, want that of walk %d", answer.Carts, want)
				}
			})
		}
		wg.Wait()
	}
	all(1)
	clock.Store(int64(countLife - 1))
	all(1)
	clock.Store(int64(countLife))
	all(2)
}
