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
	return k, r.named(err)
}

func (r records) commit(ctx context.Context, commit storage.Commit) (storage.Outcome, error) {
	outs, err := r.store.Commit(ctx, commit)
	if err != nil {
		return storage.Outcome{}, r.named(err)
	}
	return outs[0], nil
}

func (r records) flush(ctx context.Context) error { return r.named(r.store.Flush(ctx)) }

// named marks an error of the separate store for checkouts, if that store does not answer.
func (r records) named(err error) error {
	if !r.apart || !errors.Is(err, storage.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoCheckouts, err)
}
