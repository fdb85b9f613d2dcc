package lock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Sight is what a reader of events has seen last. It outlives the call, so that the next one goes on from there.
type Sight struct {
	// ETag is that of the cart as it was shown last; "" for a reader who has seen nothing.
	ETag string
	// ID is that of the cart; "" where there was none, and where it is not known.
	ID string
	// Open says that a reading has succeeded, so that the reader knows that it is served.
	Open bool
}

// Sighting is one state of a cart that is watched.
type Sighting struct {
	Cart *cart.Cart
	// Gone says that the cart which was shown before is gone. Cart is the zero cart then.
	Gone bool
}

// WatchRequest asks to be shown a cart as it changes.
type WatchRequest struct {
	// Seen is what the reader has seen; it is kept up to date. Required.
	Seen *Sight
	// Began is told that the call is under way: from then on [Coordinator.Close] waits for it. Required.
	Began func()
	// Admit waits until there is memory to read the cart, which release gives back when the events of that reading were
	// shown. nil does not wait.
	Admit func(ctx context.Context) (release func(), err error)
	// Timeout bounds one reading of the cart.
	Timeout time.Duration
	// Show shows a state to the reader, for as long as that takes. Meanwhile states are passed over. An error ends the
	// call, but for ErrBusy: then the state is shown later. Required.
	Show func(Sighting) error
	// Beat is called where nothing was shown for [BeatInterval], and where the first reading has nothing to show; nil
	// is not called.
	Beat func() error
}

// BeatInterval is how long a reader of events hears nothing at most.
const BeatInterval = 15 * time.Second

// Watch shows a cart as it is now, unless the reader has seen just that, and then as it changes, until ctx ends or Show
// fails. It returns ErrDraining when the coordinator closes. An error of the first reading is returned; later ones are
// waited out, but for those that do not pass.
//
// A reader is shown the states that it is quick enough to see, and always the latest. Where one cart follows another of
// the same name between two readings, the reader is first shown that the one is gone.
func (c *Coordinator) Watch(ctx context.Context, key cart.Key, r WatchRequest) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.inFlight.Done()
	r.Began()
	v := c.views.join(key)
	defer v.leave()
	beat := time.NewTicker(BeatInterval)
	defer beat.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		shown, err := c.show(ctx, v, &r)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && (!r.Seen.Open || !passes(err)):
			return err
		case err != nil:
			again.Reset(patience/2 + rand.N(patience/2))
		case shown:
			beat.Reset(BeatInterval)
		case !r.Seen.Open && r.Beat != nil:
			if err := r.Beat(); err != nil {
				return err
			}
		}
		r.Seen.Open = true
		for waiting := true; waiting; {
			select {
			case <-v.news:
				waiting = false
			case <-again.C:
				waiting = false
			case <-beat.C:
				if r.Beat != nil {
					if err := r.Beat(); err != nil {
						return err
					}
				}
			case <-c.ending:
				return ErrDraining
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// patience is how long to wait before a cart is read again that could not be read.
const patience = time.Second

// errShow is what showing failed with.
type errShow struct{ error }

func (e errShow) Unwrap() error { return e.error }

// passes reports whether a reading that failed may succeed later.
func passes(err error) bool {
	if _, ok := errors.AsType[errShow](err); ok {
		return errors.Is(err, ErrBusy)
	}
	for _, lasting := range []error{storage.ErrCorrupt, storage.ErrUnsupported, cart.ErrInvalid} {
		if errors.Is(err, lasting) {
			return false
		}
	}
	return true
}

// show reads the cart and shows what the reader has not seen, and reports whether there was anything.
func (c *Coordinator) show(ctx context.Context, v *view, r *WatchRequest) (shown bool, err error) {
	if r.Admit != nil {
		release, err := r.Admit(ctx)
		if err != nil {
			return false, err
		}
		defer release()
	}
	k, err := v.read(ctx, r.Timeout)
	if err != nil {
		return false, err
	}
	etag := k.ETag()
	if etag == r.Seen.ETag {
		r.Seen.ID = k.ID // which a reader that comes back does not say
		return false, nil
	}
	if r.Seen.ID != "" && k.ID != r.Seen.ID {
		none := &cart.Cart{}
		if err := r.Show(Sighting{Cart: none, Gone: true}); err != nil {
			return true, errShow{err}
		}
		*r.Seen = Sight{ETag: none.ETag(), Open: true}
		if !k.Exists() {
			return true, nil
		}
	}
	if err := r.Show(Sighting{Cart: k}); err != nil {
		return true, errShow{err}
	}
	*r.Seen = Sight{ETag: etag, ID: k.ID, Open: true}
	return true, nil
}
