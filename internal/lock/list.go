package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Listed is a cart that a list found, as it was then.
type Listed struct {
	Key                  cart.Key
	Version              uint64
	UpdatedAt, ExpiresAt time.Time
}

// ListPlace is where a list continues: with the names in Pending, and then after After. The zero value is the
// beginning.
type ListPlace struct {
	// After is the place in the walk of the store; see [storage.Walker].
	After string
	// Last says that the walk is over: only Pending is left.
	Last bool
	// Pending are names that the walk found and the list has not looked at.
	Pending []cart.Key
}

const (
	// firstNames and mostNames are how many names the store is asked for at once. They are few, because names that do
	// not fit into a page go into its token. At first they are very few, so that a page of a slow backend has some
	// carts.
	firstNames = 4
	mostNames  = 24
	// mostPending bounds the bytes of the names in a token, which clients may send in a URL. It holds more than
	// mostNames of the longest names.
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
	// Idle leaves out carts that were changed less than this long ago.
	Idle time.Duration
	// Admit waits until there is memory to read a cart; release gives that memory back. nil does not wait.
	Admit func(ctx context.Context, key cart.Key) (release func(), err error)
}

// List finds carts, and returns the place of the next page; nil is the end. A cart that exists from the first page to
// the last is on at least one page. A cart is left out if its stored form is damaged. A page may have fewer carts than
// r.Most, or none, because it ends when half of ctx's time is over.
//
// It hardly slows other calls: one list is made at a time, it reads one cart at a time, and after each it rests for as
// long as the read took. Stores that cannot list their carts return storage.ErrUnsupported.
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

// listing is a page that is being made.
type listing struct {
	*Coordinator
	ListRequest
	walker storage.Walker
	until  time.Time // when to end; zero for never
	names  int       // to ask for next
	met    map[cart.Key]bool
	found  []Listed
}

// goOn looks at the pending names of place, or at the next names of the walk, and returns the place after them. more is
// false at the end of the page.
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
			// The store found too many names at one place. That happens while Redis shrinks its tables. The next page
			// asks for this place again.
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

// look reads a cart without caching it. A damaged cart counts as missing: a call that reads it reports the damage.
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

// rest waits for as long as has passed since began.
func rest(ctx context.Context, began time.Time) error {
	const least = 100 * time.Microsecond // timers are no more precise than this
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
