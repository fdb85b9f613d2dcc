package sqlite

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

var (
	_ cell.Driver       = (*driver)(nil)
	_ cell.FenceCounter = (*driver)(nil)
	_ cell.Prober       = (*driver)(nil)
	_ cell.OutsideHeap  = (*driver)(nil)
	_ storage.Beater    = (*driver)(nil)
	_ storage.Advisor   = (*driver)(nil)
)

// driver is a [cell.Driver] over one file.
type driver struct {
	sql.Finder
	connections
	prefix string
}

// Load implements [cell.Driver].
func (d *driver) Load(ctx context.Context, key cart.Key, documents bool) (r cell.Record, now time.Time, err error) {
	err = d.reader(ctx, func(c *connection) error {
		r, err = c.load(key, documents)
		return err
	})
	return r, time.Now(), err
}

// Update implements [cell.Driver].
func (d *driver) Update(ctx context.Context, keys []cart.Key, change cell.Change) error {
	return d.writer(ctx, func(w *writer) error {
		records := make([]*cell.Record, len(keys))
		for i, key := range keys {
			r, err := w.load(key, false)
			if err != nil {
				return err
			}
			r.Documents = func(into *cart.Cart) error { return w.documents(key, into) }
			r.NextFence = w.nextFence
			records[i] = &r
		}
		if err := change(time.Now(), records); err != nil {
			return err
		}
		for i, key := range keys {
			if records[i].Save {
				if err := w.store(key, records[i]); err != nil {
					return err
				}
				w.bytes += len(records[i].Items) + len(records[i].Conditions)
			}
		}
		return nil
	})
}

// LastFence implements [cell.FenceCounter].
func (d *driver) LastFence(ctx context.Context) (fence uint64, err error) {
	err = d.Get(ctx, lastFence, &fence)
	return fence, err
}

// Beat implements [storage.Beater]. It begins a transaction, which takes the write lock.
func (d *driver) Beat(ctx context.Context) error {
	return d.writer(ctx, func(*writer) error { return nil })
}

// Advice implements [storage.Advisor].
func (d *driver) Advice(context.Context) ([]storage.Advice, error) {
	return []storage.Advice{{
		Code: storage.AdviceOneMachine,
		Message: "A SQLite file is shared by the processes of one machine only: a pod elsewhere has carts of its own. " +
			"Run one pod, or use a backend that pods share.",
	}}, nil
}
