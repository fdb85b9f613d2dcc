package lock

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// checkoutList lists the checkouts of one cart name, whichever cart has that name. If checkouts have a store of their
// own, each name has two lists: one in that store, of the checkouts, and one beside the carts, of the moves. So carts
// can move while the store of checkouts is down.
type checkoutList struct {
	// Checkouts are keyed by the names of their records.
	Checkouts map[string]ref `json:"checkouts"`
	// Moves are the names to which carts with checkouts went from this one. Each is written before the cart goes, so
	// that a search which does not find the cart here knows where to look.
	Moves []move `json:"moves,omitempty"`

	stored *cart.Cart
}

// ref is a checkout in a list.
type ref struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Until is when its record may be removed.
	Until time.Time `json:"until"`
}

// move is where a cart went, and until when the move is kept.
type move struct {
	To    cart.Key  `json:"to"`
	Until time.Time `json:"until"`
}

// The bounds of a list. Beyond them the oldest are dropped.
const (
	mostListed = 256
	mostMoves  = 64
)

// listed are the checkouts in all lists of a name.
func (c *Coordinator) listed(ctx context.Context, of cart.Key) (*checkoutList, error) {
	all := &checkoutList{Checkouts: map[string]ref{}}
	for _, in := range c.everywhere() {
		l, err := in.list(ctx, of)
		if err != nil {
			return nil, err
		}
		for name, r := range l.Checkouts {
			all.add(name, r)
		}
	}
	return all, nil
}

// list reads the list of a name.
func (r records) list(ctx context.Context, of cart.Key) (*checkoutList, error) {
	k, err := r.load(ctx, listName(of))
	if err != nil {
		return nil, err
	}
	return readList(of, k)
}

func readList(of cart.Key, k *cart.Cart) (*checkoutList, error) {
	l := &checkoutList{stored: k}
	if k.Exists() {
		if err := json.Unmarshal(k.Items.Object.Bytes(), l); err != nil {
			return nil, fmt.Errorf("list of checkouts of %s: %w: %w", of, storage.ErrCorrupt, err)
		}
	}
	if l.Checkouts == nil {
		l.Checkouts = map[string]ref{}
	}
	return l, nil
}

// changeList lets alter change the list of a name, and stores the result if alter changed anything.
func (r records) changeList(ctx context.Context, of cart.Key, alter func(l *checkoutList) bool) error {
	l, err := r.list(ctx, of)
	for err == nil && alter(l) {
		var next *cart.Cart
		until := l.trim(time.Now())
		if next, err = l.encode(); err != nil {
			return err
		}
		var out storage.Outcome
		out, err = r.commit(ctx, storage.Commit{
			Key: reserved(listName(of)), Expect: storage.Expect{ID: l.stored.ID, Version: l.stored.Version},
			Change: storage.Change{Place: next, TTL: life(until)},
		})
		if err != nil || out.Status == storage.Committed {
			return err
		}
		if out.Cart == nil {
			return fmt.Errorf("list of checkouts of %s: %w: it cannot be written", of, storage.ErrUnavailable)
		}
		l, err = readList(of, out.Cart)
	}
	return err
}

// encode is the record of the list.
func (l *checkoutList) encode() (*cart.Cart, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	items, err := cart.TrustedObject(text)
	if err != nil {
		return nil, err
	}
	k := &cart.Cart{ID: l.stored.ID, Version: l.stored.Version + 1, CreatedAt: l.stored.CreatedAt}
	if !l.stored.Exists() {
		k.ID, k.CreatedAt = storage.NewID(), time.Now()
	}
	k.Items = cart.Document{Object: items, Version: k.Version}
	return k, nil
}

// add puts a checkout into the list, or lets it stay there for longer.
func (l *checkoutList) add(name string, r ref) (changed bool) {
	if known, ok := l.Checkouts[name]; ok && !known.Until.Before(r.Until) {
		return false
	}
	l.Checkouts[name] = r
	return true
}

// trim drops what is out of date, and returns until when the rest must be kept.
func (l *checkoutList) trim(now time.Time) (until time.Time) {
	l.Moves = slices.DeleteFunc(l.Moves, func(m move) bool { return !now.Before(m.Until) })
	l.Moves = l.Moves[max(0, len(l.Moves)-mostMoves):]
	for _, m := range l.Moves {
		if m.Until.After(until) {
			until = m.Until
		}
	}
	names := l.names(now)
	kept := make(map[string]ref, len(names))
	for _, n := range names {
		if kept[n] = l.Checkouts[n]; kept[n].Until.After(until) {
			until = kept[n].Until
		}
	}
	l.Checkouts = kept
	return until
}

// names returns the names of the records, newest checkouts first.
func (l *checkoutList) names(now time.Time) (names []string) {
	for n, r := range l.Checkouts {
		if now.Before(r.Until) {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(l.Checkouts[b].Created.Compare(l.Checkouts[a].Created), cmp.Compare(a, b))
	})
	return names[:min(len(names), mostListed)]
}

// enlist puts a checkout into the list of a name.
func (c *Coordinator) enlist(ctx context.Context, of cart.Key, k *Checkout) error {
	r := ref{k.ID, k.CreatedAt, c.opts.Load().until(k.ExpiresAt, k.SettledAt)}
	return c.snapshots.changeList(ctx, of, func(l *checkoutList) bool { return l.add(k.name, r) })
}

// announce records that a cart with checkouts is about to go to another name. It does no harm if the cart then stays.
//
// A cart may go while the store of checkouts is down. The list of the new name then lacks the checkouts in the cart's
// ledger until they are settled.
func (c *Coordinator) announce(ctx context.Context, from, to cart.Key, source *cart.Cart) error {
	entries, err := checkoutsOf(source)
	if err != nil || len(entries) == 0 {
		return err
	}
	o, last := c.opts.Load(), time.Time{}
	refs := make(map[string]ref, len(entries))
	for i := range entries {
		e := &entries[i]
		r := ref{e.ID, e.CreatedAt, o.until(e.ExpiresAt, e.SettledAt)}
		if refs[e.Snapshot] = r; r.Until.After(last) {
			last = r.Until
		}
	}
	err = c.beside().changeList(ctx, from, func(l *checkoutList) bool {
		l.Moves = slices.DeleteFunc(l.Moves, func(m move) bool { return m.To == to })
		l.Moves = append(l.Moves, move{to, last})
		return true // even if the move is recorded already: see locate
	})
	if err != nil {
		return err
	}
	err = c.snapshots.changeList(ctx, to, func(l *checkoutList) (changed bool) {
		for name, r := range refs {
			changed = l.add(name, r) || changed
		}
		return changed
	})
	if errors.Is(err, ErrNoCheckouts) {
		return ctx.Err()
	}
	return err
}
