package lock

import (
	"context"
	"errors"
	"fmt"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// ErrNoCheckouts is the [storage.ErrUnavailable] of a separate store for checkouts. The store of the carts may well
// answer.
var ErrNoCheckouts = fmt.Errorf("%w: that of the checkouts", storage.ErrUnavailable)

// records is a store for the records of checkouts. It does not use locks.
type records struct {
	store storage.Store
	// apart says that it is separate from the store of the carts.
	apart bool
	// audits says that it keeps an audit trail.
	audits bool
}

// beside is the store of the carts.
func (c *Coordinator) beside() records { return records{store: c.store, audits: c.audits} }

// everywhere returns the stores in which the record of a checkout may be. It is beside the carts if it was made before
// checkouts had a store of their own, or by a sidecar that had not heard of that store yet.
func (c *Coordinator) everywhere() []records {
	if c.snapshots.apart {
		return []records{c.snapshots, c.beside()}
	}
	return []records{c.snapshots}
}

func (r records) load(ctx context.Context, name string) (*cart.Cart, error) {
	k, err := r.store.Load(ctx, reserved(name))
	if err == nil {
		err = hasMoved(reserved(name), k)
	}
	return k, r.named(err)
}

func (r records) commit(ctx context.Context, commit storage.Commit) (storage.Outcome, error) {
	outs, err := r.store.Commit(ctx, commit)
	if err == nil && outs[0].Status != storage.Committed {
		err = hasMoved(commit.Key, outs[0].Cart)
	}
	if err != nil {
		return storage.Outcome{}, r.named(err)
	}
	return outs[0], nil
}

// hasMoved is the [storage.ErrMoved] of a record that went to another backend while this sidecar has not been told.
// What stands in its place looks like an empty record. No record is ever handed over, so nothing else closes one.
func hasMoved(key cart.Key, k *cart.Cart) error {
	if k == nil || k.Transfer == nil {
		return nil
	}
	_, err := intentOf(key, k)
	return err
}

// afterStep is the error of a call that had made one of its steps before. An ErrMoved says that nothing was changed, so
// it becomes another ErrUnavailable.
func afterStep(err error) error {
	if errors.Is(err, storage.ErrMoved) {
		return fmt.Errorf("%w: after the first step: %v", storage.ErrUnavailable, err)
	}
	return err
}

func (r records) flush(ctx context.Context) error { return r.named(r.store.Flush(ctx)) }

// named marks an error of the separate store for checkouts, if that store does not answer.
func (r records) named(err error) error {
	if !r.apart || !errors.Is(err, storage.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoCheckouts, err)
}
