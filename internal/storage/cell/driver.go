package cell

import (
	"context"
	"errors"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Driver keeps records and changes them in transactions. All methods are safe for concurrent use, honour the context,
// and return errors that match a sentinel of package storage, or the context's. The engine checks before each call that
// the context has not ended and that the store is not closed. Both may happen at any time after that.
type Driver interface {
	// Load reads the record of key at one instant, and the time by the driver's clock. A record that is not there is
	// the zero Record. If documents is false, the documents may be left out; Record.Documents may read them all the
	// same. Record.NextFence is not called.
	Load(ctx context.Context, key cart.Key, documents bool) (Record, time.Time, error)

	// Update reads the records of keys, calls change, and stores those that have Save set, in one transaction in which
	// nobody else writes these records. There are two keys only where the driver is a [Pairer] that pairs them. If
	// change fails, nothing is stored, and its error is returned as it is. An error after which the change may have
	// been made matches [ErrOutcomeUnknown]; change may then still be running. The records belong to change for as long
	// as it runs.
	Update(ctx context.Context, keys []cart.Key, change Change) error

	// Capabilities say what the store can do; they do not change. Locks is set by the engine.
	Capabilities() storage.Capabilities

	// Close ends calls under way with ErrClosed or their result. It is called once.
	Close() error
}

// Change changes records, at the time of the driver's clock within the transaction. A driver may call it again with
// records that it has read again, so nothing but the last call counts.
type Change func(now time.Time, records []*Record) error

// Record is everything that is stored under one cart's name.
type Record struct {
	// State is what is stored: the zero State where nothing is. A driver that keeps documents apart leaves their text
	// out of it, and sets Documents.
	State storage.State
	// Documents reads the stored documents into a cart; nil means that State has them.
	Documents func(into *cart.Cart) error
	// NextFence gives the next fence of a counter in the backend, which outlives carts and flushes, in the transaction.
	// nil stands for the fallback, [storage.State.NextFence].
	NextFence func() (uint64, error)

	// Save asks to store State, or to delete the record if State is [storage.State.Empty].
	Save bool
	// Items and Conditions are the documents to store beside State; nil keeps the stored ones. A driver whose State has
	// the documents need not look at them.
	Items, Conditions []byte
	// Granted are the tokens of the waiters that are let in when State is stored. A [Notifier] that can tell others in
	// the transaction itself may do so there, instead of in Notify.
	Granted []string
	// Changed says that State has another cart, or none any more. An [Announcer] that can tell others in the
	// transaction itself does so.
	Changed bool
	// Audited are the lines for the audit trail when State is stored. A driver that is a [storage.Auditor] writes them
	// in the same transaction.
	Audited []storage.Audited

	stored string // the id of the stored cart
	text   text   // of the stored documents, where DecodeRecord made the record
}

// ErrOutcomeUnknown is below the error of an Update that may have been made.
var ErrOutcomeUnknown = errors.New("outcome unknown")

// living returns the cart with its documents, or the zero cart if it has expired. It does not settle the locks: a lock
// that Settle would grant now is not stored yet, so it does not lengthen the cart's life.
func (r *Record) living(now time.Time) (*cart.Cart, error) {
	c := new(cart.Cart)
	if r.State.Exists(now) {
		*c = r.State.Cart
	}
	return c, r.fill(c)
}

// begin brings the record up to now, and returns the tokens of the waiters that were granted a lock by that.
func (r *Record) begin(now time.Time) (granted []string) {
	r.stored = r.State.Cart.ID
	granted = r.State.Settle(now)
	if r.State.Cart.ID != r.stored {
		r.stored = "" // the cart has expired, so its documents are written anew, even if its successor has the same id
		r.Items, r.Conditions = emptyDocument, emptyDocument
	}
	return granted
}

var emptyDocument = []byte("{}")

// finish completes what is to be stored.
func (r *Record) finish(now time.Time) error {
	if !r.Save {
		return nil
	}
	if r.State.Cart.ID != r.stored { // the stored documents are those of another cart
		if r.Items == nil {
			r.Items = emptyDocument
		}
		if r.Conditions == nil {
			r.Conditions = emptyDocument
		}
	}
	return r.giveFences(now)
}

// giveFences gives a fence to each lease that has none.
func (r *Record) giveFences(now time.Time) (err error) {
	r.State.GiveFences(func() (fence uint64) {
		switch {
		case err != nil:
		case r.NextFence == nil:
			fence = r.State.NextFence(now)
		default:
			fence, err = r.NextFence()
		}
		return fence
	})
	return err
}

// fill reads the documents of the stored cart into c, a copy of State's cart as it was stored.
func (r *Record) fill(c *cart.Cart) error {
	if r.Documents == nil || c == nil || !c.Exists() {
		return nil
	}
	return r.Documents(c)
}

// write notes the documents that a successful change stores.
func (r *Record) write(c *storage.Change) {
	if c.Place != nil {
		r.Items, r.Conditions = c.Place.Items.Object.Bytes(), c.Place.Conditions.Object.Bytes()
	}
	if c.Forget {
		return
	}
	for i := range c.Writes {
		switch w := &c.Writes[i]; w.Part {
		case cart.PartItems:
			r.Items = w.Value
		case cart.PartConditions:
			r.Conditions = w.Value
		}
	}
}
