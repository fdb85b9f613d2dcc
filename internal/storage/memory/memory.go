package memory

import (
	"context"
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
	_ cell.Flusher    = (*driver)(nil)
	_ cell.Notifier   = (*driver)(nil)
	_ storage.Advisor = (*driver)(nil)
)

// driver keeps states as they are: nothing is encoded.
type driver struct {
	mu     sync.Mutex
	states map[cart.Key]*storage.State // nil once it is closed
	fence  uint64                      // the last that was given, of any cart

	// What an update works on, under the mutex: a commit need not allocate it.
	records  [2]cell.Record
	pointers [2]*cell.Record
	draw     func() (uint64, error)
}

func newDriver() *driver {
	d := &driver{states: map[cart.Key]*storage.State{}}
	d.pointers = [2]*cell.Record{&d.records[0], &d.records[1]}
	d.draw = d.nextFence
	return d
}

// enter takes the mutex for a call, unless the store is closed.
func (d *driver) enter() error {
	d.mu.Lock()
	if d.states == nil {
		d.mu.Unlock()
		return storage.ErrClosed
	}
	return nil
}

// Load implements [cell.Driver].
func (d *driver) Load(_ context.Context, key cart.Key, _ bool) (r cell.Record, now time.Time, err error) {
	if err := d.enter(); err != nil {
		return r, now, err
	}
	defer d.mu.Unlock()
	if s := d.states[key]; s != nil {
		r.State = s.Clone()
	}
	return r, time.Now(), nil
}

// Update implements [cell.Driver].
func (d *driver) Update(_ context.Context, keys []cart.Key, change cell.Change) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	now := time.Now()
	for i, key := range keys {
		d.records[i] = cell.Record{NextFence: d.draw}
		if s := d.states[key]; s != nil {
			d.records[i].State = s.Clone()
		}
	}
	defer clear(d.records[:])
	if err := change(now, d.pointers[:len(keys)]); err != nil {
		return err
	}
	for i, key := range keys {
		if d.records[i].Save {
			d.keep(key, &d.records[i].State)
		}
	}
	d.sweep(now)
	return nil
}

// keep stores a copy of s, or forgets the key where nothing is left to store.
func (d *driver) keep(key cart.Key, s *storage.State) {
	if s.Empty() {
		delete(d.states, key)
		return
	}
	stored := d.states[key]
	if stored == nil {
		stored = new(storage.State)
		d.states[key] = stored
	}
	*stored = *s
}

// sweep drops a few of the states that have ended. Each update leaves at most two behind and looks at more, so that the
// dead stay a fraction of the map whatever its size, and no update pays for all of them. Go starts the range of a map
// at a random place.
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

// nextFence gives numbers that rise with the clock, so that they rise from one process to the next as well, and by
// themselves where the clock does not.
func (d *driver) nextFence() (uint64, error) {
	d.fence = max(d.fence+1, uint64(time.Now().UnixMicro()))
	return d.fence, nil
}

// Pairs implements [cell.Pairer]: one mutex guards all carts.
func (d *driver) Pairs(_, _ cart.Key) bool { return true }

// Instances implements [cell.Lister]. It looks at every cart there is.
func (d *driver) Instances(_ context.Context, identifier string) (instances []string, err error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	now := time.Now()
	for key, s := range d.states {
		if key.Identifier == identifier && exists(s, now) {
			instances = append(instances, key.Instance)
		}
	}
	return instances, nil
}

// Count implements [cell.Counter].
func (d *driver) Count(_ context.Context, most int) (n int, err error) {
	if err := d.enter(); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	now := time.Now()
	for _, s := range d.states {
		if n < most && exists(s, now) {
			n++
		}
	}
	return n, nil
}

// exists reports whether there is a cart that has not expired.
func exists(s *storage.State, now time.Time) bool {
	return s.Cart.Exists() && (s.Cart.ExpiresAt.IsZero() || now.Before(s.Cart.ExpiresAt))
}

// Flush implements [cell.Flusher].
func (d *driver) Flush(context.Context) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	clear(d.states)
	return nil
}

// Notify and Listen implement [cell.Notifier]: there is no other store to tell.
func (d *driver) Notify(cart.Key, []string) {}

// Listen implements [cell.Notifier].
func (d *driver) Listen(func([]string)) {}

// Advice implements [storage.Advisor].
func (d *driver) Advice(context.Context) ([]storage.Advice, error) {
	return []storage.Advice{{
		Code:    storage.AdviceNotDurable,
		Message: "Carts are in the memory of the sidecar: they end with it, and no other pod sees them.",
	}}, nil
}

// Capabilities implements [cell.Driver].
func (d *driver) Capabilities() storage.Capabilities { return storage.Capabilities{Backend: "Memory"} }

// Close implements [cell.Driver]. The carts are gone then.
func (d *driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.states = nil
	return nil
}
