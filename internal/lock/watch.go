package lock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Sight is what a reader of events saw last. It outlives the call, so that the next call continues from there.
type Sight struct {
	// ETag is the cart's etag when it was last shown; "" if the reader has seen nothing.
	ETag string
	// ID is the cart's id; "" if there was no cart, or its id is not known.
	ID string
	// Open says that a read has succeeded, so that the reader knows that it is served.
	Open bool
}

// Sighting is one state of a cart that is watched.
type Sighting struct {
	Cart *cart.Cart
	// Gone says that the cart shown before is gone. Cart is then the zero cart.
	Gone bool
}

// WatchRequest asks to be shown a cart as it changes.
type WatchRequest struct {
	// Seen is what the reader has seen. Watch keeps it up to date. Required.
	Seen *Sight
	// Began is called when the call is under way. From then on [Coordinator.Close] waits for it. Required.
	Began func()
	// Admit waits until there is memory to read the cart. release gives it back once the events of that read were
	// shown. nil does not wait.
	Admit func(ctx context.Context) (release func(), err error)
	// Timeout bounds one read of the cart.
	Timeout time.Duration
	// Show shows a state to the reader and may take its time. States that come meanwhile are skipped. An error ends the
	// call, except ErrBusy: then the state is shown later. Required.
	Show func(Sighting) error
	// Beat is called if nothing was shown for [BeatInterval], and if the first read has nothing to show. It may be nil.
	Beat func() error
}

// BeatInterval is the longest silence for a reader of events.
const BeatInterval = 15 * time.Second

// Watch shows the current cart, unless the reader has seen it, and then each change, until ctx ends or Show fails. It
// returns ErrDraining when the coordinator closes. It returns an error of the first read. After that it retries, unless
// the error is permanent.
//
// A slow reader may miss states, but always gets the latest. If one cart follows another of the same name between two
// reads, the reader is first told that the old one is gone.
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

// patience is how long to wait before a failed read is tried again.
const patience = time.Second

// errShow is an error of Show.
type errShow struct{ error }

func (e errShow) Unwrap() error { return e.error }

// passes reports whether a failed read may succeed later.
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
		r.Seen.ID = k.ID // a reader that comes back does not send it
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
