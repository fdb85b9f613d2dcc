package sql

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// Transaction is a transaction of a server over the rows of some carts. It is for one goroutine. Its errors match those
// of package storage, and ErrAgain or cell.ErrOutcomeUnknown where they say so.
type Transaction interface {
	// Lock begins, locks the rows of keys, one after the other, and reads them without their documents. The time is
	// that of the server when it has the locks. A row that is not there cannot be locked: Commit finds out whether
	// somebody else was quicker to insert it.
	Lock(ctx context.Context, keys []cart.Key) ([]Scan, time.Time, error)
	// Documents reads the documents of a row that is locked.
	Documents(ctx context.Context, key cart.Key) (items, conditions []byte, err error)
	// NextFence draws a fence from the counter of the database.
	NextFence(ctx context.Context) (uint64, error)
	// Commit makes the changes, in the order of the keys, and ends the transaction.
	Commit(ctx context.Context, changes []Change) error
	// Rollback ends the transaction, whatever happened before. After Commit it does nothing.
	Rollback()
}

// Change is one row to store, to insert where it was not Found, or to delete where Record's State is empty.
type Change struct {
	Key    cart.Key
	Record *cell.Record
	Found  bool
}

// Update is that of a [cell.Driver], by transactions that begin makes. Keys are locked in their order, so that no two
// updates wait for each other.
func Update(ctx context.Context, keys []cart.Key, change cell.Change, begin func(ctx context.Context) (Transaction, error)) error {
	ordered, swapped := keys, false
	if len(keys) == 2 && less(keys[1], keys[0]) {
		ordered, swapped = []cart.Key{keys[1], keys[0]}, true
	}
	return Retry(ctx, func() error {
		tx, err := begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		return once(ctx, tx, ordered, func(now time.Time, records []*cell.Record) error {
			if swapped {
				records = []*cell.Record{records[1], records[0]}
			}
			return change(now, records)
		})
	})
}

func less(a, b cart.Key) bool {
	return a.Identifier < b.Identifier || a.Identifier == b.Identifier && a.Instance < b.Instance
}

// once is one try.
func once(ctx context.Context, tx Transaction, keys []cart.Key, change cell.Change) error {
	rows, now, err := tx.Lock(ctx, keys)
	if err != nil {
		return err
	}
	records := make([]*cell.Record, len(rows))
	for i := range rows {
		r, err := rows[i].Record(false)
		if err != nil {
			return err
		}
		r.Documents = func(into *cart.Cart) error {
			items, conditions, err := tx.Documents(ctx, keys[i])
			if err != nil {
				return err
			}
			return Documents(items, conditions, into)
		}
		r.NextFence = func() (uint64, error) { return tx.NextFence(ctx) }
		records[i] = &r
	}
	if err := change(now, records); err != nil {
		return err
	}
	changes := make([]Change, 0, len(records))
	for i, r := range records {
		if r.Save && (rows[i].Found() || !r.State.Empty()) {
			changes = append(changes, Change{keys[i], r, rows[i].Found()})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return tx.Commit(ctx, changes)
}
