package cell

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

// toy is the smallest complete driver: a map with compare-and-swap, which several stores share. Revisions are never
// used twice.
type toy struct {
	mu       sync.Mutex
	revision uint64
	values   map[cart.Key]toyValue
}

type toyValue struct {
	value    []byte
	revision uint64
}

// toyStore is the toy as one store has it, until it closes it.
type toyStore struct {
	*toy
	closed chan struct{}
}

func (d *toy) open(t testing.TB) *Store {
	s := New(Swapping(toyStore{d, make(chan struct{})}))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (d toyStore) Get(ctx context.Context, key cart.Key) ([]byte, uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.values[key]
	return v.value, v.revision, d.usable(ctx)
}

func (d toyStore) Swap(ctx context.Context, key cart.Key, revision uint64, value []byte, _ time.Time) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil || d.values[key].revision != revision {
		return false, err
	}
	if d.revision++; value == nil {
		delete(d.values, key)
	} else {
		d.values[key] = toyValue{value, d.revision}
	}
	return true, nil
}

func (d toyStore) usable(ctx context.Context) error {
	select {
	case <-d.closed:
		return storage.ErrClosed
	default:
		return ctx.Err()
	}
}

func (d toyStore) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "Toy", Shared: true}
}

func (d toyStore) Close() error { close(d.closed); return nil }

// TestToyConforms: a driver without one power passes the whole suite, by the fallbacks.
func TestToyConforms(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		d := &toy{values: map[cart.Key]toyValue{}}
		return storagetest.Harness{Store: d.open(t), Second: func(t *testing.T) storage.Store { return d.open(t) }}
	}, storagetest.Caps{
		NoCount: "it cannot find all of its values", NoWalk: "it cannot find all of its values", NoPairs: "one value is swapped at a time", NoInstances: "no Lister", NoFlush: "no Flusher", NoPrefix: "a map per prefix",
	})
}
