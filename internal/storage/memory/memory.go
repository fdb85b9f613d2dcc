package memory

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// New makes an empty store.
func New() *cell.Store { return cell.New(newDriver()) }

var (
	_ cell.Driver     = (*driver)(nil)
	_ cell.Pairer     = (*driver)(nil)
	_ cell.Lister     = (*driver)(nil)
	_ cell.Counter    = (*driver)(nil)
	_ cell.Walker     = (*driver)(nil)
	_ cell.Flusher    = (*driver)(nil)
	_ storage.Advisor = (*driver)(nil)
)

// driver keeps states as they are: nothing is encoded.
type driver struct {
	mu     sync.Mutex
	states map[cart.Key]storage.State
}

func newDriver() *driver { return &driver{states: map[cart.Key]storage.State{}} }

// Load implements [cell.Driver].
func (d *driver) Load(_ context.Context, key cart.Key, _ bool) (cell.Record, time.Time, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.states[key]
	return cell.Record{State: s.Clone()}, time.Now(), nil
}

// Update implements [cell.Driver].
func (d *driver) Update(_ context.Context, keys []cart.Key, change cell.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	records := make([]*cell.Record, len(keys))
	for i, key := range keys {
		s := d.states[key]
		records[i] = &cell.Record{State: s.Clone()}
	}
	if err := change(now, records); err != nil {
		return err
	}
	for i, key := range keys {
		switch r := records[i]; {
		case r.Save && r.State.Empty():
			delete(d.states, key)
		case r.Save:
			d.states[key] = r.State
		}
	}
	d.sweep(now)
	return nil
}

// sweep drops a few of the states that have ended. Each update adds at most two states and looks at eight, so that
// ended ones stay a fraction of the map, whatever its size, and no update pays for all of them. Go starts the range of
// a map at a random place.
func (d *driver) sweep(now time.Time) {
	looks := 8
	for key, s := range d.states {
		if end := s.Ends(); !end.IsZero() && !now.Before(end) {
			delete(d.states, key)
		}
		if looks--; looks == 0 {
			return
		}
	}
}

// Pairs implements [cell.Pairer]: one mutex guards all carts.
func (d *driver) Pairs(_, _ cart.Key) bool { return true }

// Instances implements [cell.Lister]. It looks at every cart there is.
func (d *driver) Instances(_ context.Context, identifier string) (instances []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for key, s := range d.states {
		if key.Identifier == identifier && s.Exists(now) {
			instances = append(instances, key.Instance)
		}
	}
	return instances, nil
}

// Count implements [cell.Counter].
func (d *driver) Count(_ context.Context, most int) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for key, s := range d.states {
		if n < most && !key.Reserved() && s.Exists(now) {
			n++
		}
	}
	return n, nil
}

// Page implements [cell.Walker], in the order of the names. Each page looks at every cart there is.
func (d *driver) Page(_ context.Context, after string, limit int) (keys []cart.Key, next string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key := range d.states {
		if cell.Place(key) > after {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b cart.Key) int { return cmp.Compare(cell.Place(a), cell.Place(b)) })
	if len(keys) > limit {
		keys = keys[:limit:limit]
		next = cell.Place(keys[limit-1])
	}
	return keys, next, nil
}

// Flush implements [cell.Flusher].
func (d *driver) Flush(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.states)
	return nil
}

// Advice implements [storage.Advisor].
func (d *driver) Advice(context.Context) ([]storage.Advice, error) {
	return []storage.Advice{{
		Code:    storage.AdviceNotDurable,
		Message: "Carts are in the memory of the sidecar: they end with it, and no other pod sees them.",
	}}, nil
}

// Capabilities implements [cell.Driver].
func (d *driver) Capabilities() storage.Capabilities { return storage.Capabilities{Backend: "Memory"} }

// Close implements [cell.Driver]. The carts end with the store.
func (d *driver) Close() error { return nil }
