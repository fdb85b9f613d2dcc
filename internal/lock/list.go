package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Listed is a cart that a list found, as it stood then.
type Listed struct {
	Key                  cart.Key
	Version              uint64
	UpdatedAt, ExpiresAt time.Time
}

// ListPlace is where a list goes on: with the names of Pending, and then behind After. The zero value is its beginning.
type ListPlace struct {
	// After is the place in the walk of the store; see [storage.Walker].
	After string
	// Last says that the walk is over: only Pending is left.
	Last bool
	// Pending are names that the walk has met already.
	Pending []cart.Key
}

const (
	// firstNames and mostNames are how many names the store is asked for at once. They are few, since those that do not
	// fit into a page any more go into its token. They are very few at first, so that a page of a slow backend has
	// some.
	firstNames = 4
	mostNames  = 24
	// mostPending bounds the bytes of the names in a token, which clients may send in a URL. It is more than mostNames
	// of the longest names.
	mostPending = 14 << 10
	// mostRest is the longest pause of a list between two carts.
	mostRest = 100 * time.Millisecond
)

// ListRequest asks for a page of the list of all carts.
type ListRequest struct {
	// Place is where to go on.
	Place ListPlace
	// Most is how many carts the page may have.
	Most int
	// Idle leaves out carts that were changed since.
	Idle time.Duration
	// Admit waits until there is memory to read a cart, which release gives back. nil does not wait.
	Admit func(ctx context.Context, key cart.Key) (release func(), err error)
}

// List finds carts, and where to go on; nil is the end. A cart that exists from the first page to the last is on one
// page at least; one whose stored form is damaged is left out. A page may have fewer carts than r.Most, or none, since
// it ends when half of ctx's time is over.
//
// It slows nobody: one list is made at a time, one cart is read at a time, and between two it rests for as long as the
// last one took. Stores that cannot find their carts return storage.ErrUnsupported.
func (c *Coordinator) List(ctx context.Context, r ListRequest) (found []Listed, next *ListPlace, err error) {
	if err := c.enter(); err != nil {
		return nil, nil, err
	}
	defer c.inFlight.Done()
	walker, ok := storage.As[storage.Walker](c.store)
	if !ok {
		return nil, nil, fmt.Errorf("list: %w: it cannot find all carts", storage.ErrUnsupported)
	}
	select {
	case c.listing <- struct{}{}:
		defer func() { <-c.listing }()
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("%w: another list is made", ErrBusy)
	}
	l := &listing{Coordinator: c, ListRequest: r, walker: walker, names: firstNames, met: map[cart.Key]bool{}}
	if end, ok := ctx.Deadline(); ok {
		l.until = time.Now().Add(time.Until(end) / 2)
	}
	for place := r.Place; ; {
		behind, more, err := l.goOn(ctx, place)
		if err != nil {
			return nil, nil, err
		}
		place = behind
		switch {
		case place.Last && len(place.Pending) == 0:
			return l.found, nil, nil
		case !more:
			return l.found, &place, nil
		}
	}
}

// listing is a page that is made.
type listing struct {
	*Coordinator
	ListRequest
	walker storage.Walker
	until  time.Time // when to end; zero for never
	names  int       // to ask for next
	met    map[cart.Key]bool
	found  []Listed
}

// goOn looks at the names of place, or at those that come next, and returns the place behind them. more is false where
// the page ends.
func (l *listing) goOn(ctx context.Context, place ListPlace) (behind ListPlace, more bool, err error) {
	names, behind := place.Pending, ListPlace{After: place.After, Last: place.Last}
	if len(names) == 0 {
		began := time.Now()
		names, behind.After, err = l.walker.Page(ctx, place.After, min(l.names, l.Most-len(l.found)))
		if err != nil {
			return place, false, err
		}
		behind.Last, l.names = behind.After == "", min(2*l.names, mostNames)
		if err := rest(ctx, began); err != nil {
			return place, false, err
		}
	}
	looked := 0
	for i, key := range names {
		if l.met[key] || key.Reserved() {
			continue
		}
		if len(l.found) == l.Most || looked > 0 && l.late() {
			if behind.Pending = names[i:]; nameBytes(behind.Pending) <= mostPending {
				return behind, false, nil
			}
			// The store found so many at one place, which happens where a Redis makes its tables smaller. It is asked
			// again for what is there.
			return place, false, nil
		}
		began := time.Now()
		k, err := l.look(ctx, key)
		if err != nil {
			return place, false, err
		}
		looked++
		if l.met[key] = true; k.Exists() && time.Since(k.UpdatedAt) >= l.Idle {
			l.found = append(l.found, Listed{key, k.Version, k.UpdatedAt, k.ExpiresAt})
		}
		if err := rest(ctx, began); err != nil {
			return place, false, err
		}
	}
	return behind, len(l.found) < l.Most && !l.late(), nil
}

func (l *listing) late() bool { return !l.until.IsZero() && time.Now().After(l.until) }

// look reads a cart, and keeps nothing of it. One that is damaged is as none: whoever reads it is told.
func (l *listing) look(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	if l.Admit != nil {
		release, err := l.Admit(ctx, key)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	k, err := l.store.Load(ctx, key)
	if err == nil && k.Transfer != nil {
		k, err = l.readInTransfer(ctx, key, k)
	}
	if errors.Is(err, storage.ErrCorrupt) {
		return &cart.Cart{}, nil
	}
	return k, err
}

// rest waits for as long as what began then took.
func rest(ctx context.Context, began time.Time) error {
	const least = 100 * time.Microsecond // a timer is not more exact
	took := min(time.Since(began), mostRest)
	if took < least {
		return ctx.Err()
	}
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nameBytes is the bytes of names.
func nameBytes(names []cart.Key) (n int) {
	for i := range names {
		n += len(names[i].Identifier) + len(names[i].Instance)
	}
	return n
}
