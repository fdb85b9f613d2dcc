package cell

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Swapper keeps one value for each cart and replaces it only if it is still the one that was read. What [Driver] says
// of all of its methods holds here too.
type Swapper interface {
	// Get returns the value of key and its revision, a number other than 0 that no value of this key has had before.
	// Without a value both are zero.
	Get(ctx context.Context, key cart.Key) (value []byte, revision uint64, err error)

	// Swap replaces the value that has revision, 0 meaning that there is none, and reports whether it did. A nil value
	// deletes. The backend may delete the value by itself from ends on; zero means never. After an error the value may
	// have been replaced or not, unless the error is ErrTooLarge or ErrClosed or has a [storage.Refusal]: then it was
	// not.
	Swap(ctx context.Context, key cart.Key, revision uint64, value []byte, ends time.Time) (swapped bool, err error)

	// Capabilities and Close are those of a [Driver].
	Capabilities() storage.Capabilities
	Close() error
}

// Clock is the power of a Swapper that knows a better clock than that of the process, such as its server's. The
// fallback is the clock of the process. The clocks of all processes that share the data must then agree, or locks and
// carts end early for some.
type Clock interface {
	Now() time.Time
}

// Recaller is the power of a Swapper that remembers what it read or stored a moment ago, or the value that a failed
// Swap met; a [Recent] does. An update then begins with that value instead of a Get. It counts only if the Swap proves
// that the value is still there. The fallback is a Get.
type Recaller interface {
	// Recall returns the value of key and its revision as this process knows them. Another process may have replaced it
	// since. ok is false if nothing is known.
	Recall(key cart.Key) (value []byte, revision uint64, ok bool)
}

// Swapping makes a driver of a compare-and-swap: an update starts over when somebody else was quicker. Its values are
// those of [storage.EncodeState].
func Swapping(s Swapper) Driver {
	d := &swapping{Swapper: s, now: time.Now}
	if c, ok := s.(Clock); ok {
		d.now = c.Now
	}
	return d
}

type swapping struct {
	Swapper
	now func() time.Time
}

// Load implements [Driver].
func (d *swapping) Load(ctx context.Context, key cart.Key, documents bool) (Record, time.Time, error) {
	value, _, err := d.Get(ctx, key)
	if err != nil {
		return Record{}, time.Time{}, err
	}
	r, err := DecodeRecord(value)
	if err == nil && documents {
		err = r.Documents(&r.State.Cart)
	}
	return r, d.now(), err
}

// DecodeRecord returns the record of a value that [Record.Encode] made. No value gives the zero Record. The errors are
// those of [storage.DecodeState].
func DecodeRecord(value []byte) (r Record, err error) {
	r.State, r.text.items, r.text.conditions, err = storage.DecodeState(value)
	r.Documents = r.text.parse
	return r, err
}

// Encode returns the record as one value, or nil if nothing is left to store. The record must be one that
// [DecodeRecord] made.
func (r *Record) Encode() []byte {
	if r.State.Empty() {
		return nil
	}
	t := r.text
	if r.Items != nil {
		t.items = r.Items
	}
	if r.Conditions != nil {
		t.conditions = r.Conditions
	}
	return storage.EncodeState(&r.State, t.items, t.conditions)
}

// text is the text of the stored documents.
type text struct{ items, conditions []byte }

// parse is Record.Documents.
func (t text) parse(into *cart.Cart) (err error) {
	if !into.Exists() {
		return nil
	}
	if into.Items.Object, err = cart.TrustedObject(t.items); err != nil {
		return fmt.Errorf("%w: items: %w", storage.ErrCorrupt, err)
	}
	if into.Conditions.Object, err = cart.TrustedObject(t.conditions); err != nil {
		return fmt.Errorf("%w: conditions: %w", storage.ErrCorrupt, err)
	}
	return nil
}

// shortestRetry is about how long an update pauses after it lost a race for the first time.
const shortestRetry = 100 * time.Microsecond

// Update implements [Driver]. If a failed swap has told which value it met, the next swap follows at once, since that
// value is outdated soon. Otherwise there is a pause, so that several stores do not come back at the same time.
func (d *swapping) Update(ctx context.Context, keys []cart.Key, change Change) error {
	key := keys[0]
	value, revision, known := d.recall(key)
	for pause := shortestRetry; ; pause = min(pause*2, longestPause) {
		if !known {
			var err error
			if value, revision, err = d.Get(ctx, key); err != nil {
				return err
			}
		}
		swapped, tried, err := d.try(ctx, key, value, revision, change)
		switch {
		case tried && (swapped || err != nil):
			return err
		case !tried && known: // it must not end by what is merely recalled
			known = false
			continue
		case !tried:
			return err
		}
		if value, revision, known = d.recall(key); known {
			continue
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (d *swapping) recall(key cart.Key) (value []byte, revision uint64, known bool) {
	if r, ok := d.Swapper.(Recaller); ok {
		return r.Recall(key)
	}
	return nil, 0, false
}

// try makes the change of a value. If it is tried and not swapped, somebody else was quicker. If it is not tried, there
// is nothing to store.
func (d *swapping) try(ctx context.Context, key cart.Key, value []byte, revision uint64, change Change) (swapped, tried bool, err error) {
	r, err := DecodeRecord(value)
	if err != nil {
		return false, false, err
	}
	if err := change(d.now(), []*Record{&r}); err != nil || !r.Save {
		return false, false, err
	}
	value = r.Encode()
	if value == nil && revision == 0 {
		return false, false, nil
	}
	swapped, err = d.Swap(ctx, key, revision, value, r.State.Ends())
	_, refused := storage.RefusalOf(err)
	if err != nil && !refused && !errors.Is(err, storage.ErrTooLarge) && !errors.Is(err, storage.ErrClosed) {
		err = fmt.Errorf("%w: %w", err, ErrOutcomeUnknown)
	}
	return swapped, true, err
}
