package lock

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// A checkout is made in three steps, each atomic:
//
//  1. The cart's ledger gets an entry: the right to take from this cart, once, what the snapshot has.
//  2. The list of the cart's name gets the checkout.
//  3. The snapshot is stored, as the cart was at step 1. From then on the checkout is there.
//
// So a snapshot never stands without its entry, unless the cart has gone. An entry without a snapshot is one of a
// checkout that nobody was told of: whoever asks for it again goes on behind step 1. See docs/design/0009-checkouts.md.

// Sentinels of checkouts.
var (
	// ErrEmptyCart is returned for a cart without items that was to be checked out.
	ErrEmptyCart = errors.New("the cart has no items to check out")
	// ErrAlreadySettled is returned for a checkout that was settled with the other outcome.
	ErrAlreadySettled = errors.New("the checkout was settled already")
)

const (
	// MaxOpenCheckouts is how many checkouts of one cart may be open. Where two carts become one there may be more.
	MaxOpenCheckouts = 16
	// mostEntries bounds the entries of a cart, open ones apart: of those that expired, the oldest lose the right to
	// take.
	mostEntries = 64
)

// CheckoutRequest asks for a checkout.
type CheckoutRequest struct {
	// ID is what the client calls it; "" lets one be made, the same for the same Request.
	ID string
	// ExpiresIn is how long it is open.
	ExpiresIn time.Duration
	// Attributes are the client's own, a JSON object; nil for none.
	Attributes []byte
	// Change has what must hold at the instant of the snapshot, a lease and an idempotency key, as in every change. Its
	// Verb and Scope are not looked at.
	Change Change
}

// CheckoutResult is the answer to a checkout or a settlement.
type CheckoutResult struct {
	Checkout *Checkout
	// Key and Cart are the cart as it is now. It is under another name where it was handed over.
	Key  cart.Key
	Cart *cart.Cart
	// Settled says that this call settled the checkout, or the call that it repeats.
	Settled bool
	Repeat  Repeat
}

// Checkout takes a snapshot of a cart, which goes on. The same id again answers with the same snapshot. It needs no
// lock. A cart without items is ErrEmptyCart, and too many open checkouts are a [cart.ErrTooLarge].
func (c *Coordinator) Checkout(ctx context.Context, key cart.Key, r CheckoutRequest) (CheckoutResult, error) {
	if err := c.canLease(r.Change); err != nil {
		return CheckoutResult{}, err
	}
	if err := c.enter(); err != nil {
		return CheckoutResult{}, err
	}
	defer c.inFlight.Done()
	switch {
	case r.ID != "":
	case r.Change.Request.Key != "":
		r.ID = hashed("", r.Change.Request.Key, string(r.Change.Request.Sum[:]))
	default:
		r.ID = storage.NewID()
	}
	for {
		res, again, err := c.tryCheckout(ctx, key, &r)
		if err != nil || !again {
			return res, c.noteLease(key, r.Change, err)
		}
		if err := ctx.Err(); err != nil {
			return CheckoutResult{}, err
		}
	}
}

// tryCheckout makes one attempt. again says that somebody else was at the cart.
func (c *Coordinator) tryCheckout(ctx context.Context, key cart.Key, r *CheckoutRequest) (res CheckoutResult, again bool, err error) {
	k, err := c.loadFinished(ctx, key)
	if err != nil {
		return res, false, err
	}
	o := c.opts.Load()
	repeat, _, err := o.repeated(k, r.Change.Request)
	if err != nil {
		return res, false, err
	}
	found, err := c.find(ctx, key, k, r.ID, c.belongs)
	if err != nil {
		return res, false, err
	}
	if found != nil {
		if repeat.Repeat == (Repeat{}) {
			if err := c.ifLeased(ctx, key, r.Change); err != nil {
				return res, false, err
			}
			if k, err = c.remember(ctx, key, k, r.Change.Request, false); err != nil {
				return res, false, err
			}
		}
		return CheckoutResult{Checkout: found, Key: key, Cart: k, Repeat: repeat.Repeat}, false, nil
	}
	entries, err := checkoutsOf(k)
	if err != nil {
		return res, false, err
	}
	name := snapshotName(key, r.ID)
	after := k
	i := slices.IndexFunc(entries, func(e cart.CheckoutEntry) bool {
		return e.Snapshot == name && time.Now().Before(o.until(e.ExpiresAt, e.SettledAt))
	})
	switch {
	case i < 0:
		if err := r.Change.If.Check(k, cart.PartAll); err != nil {
			return res, false, err
		}
		if k.Items.Object.Len() == 0 {
			return res, false, ErrEmptyCart
		}
		now := time.Now().UTC().Truncate(time.Millisecond)
		for j := range entries { // each has a time of its own, since lists are in the order of times
			if last := entries[j].CreatedAt; !now.After(last) {
				now = last.Add(time.Millisecond)
			}
		}
		entry := cart.CheckoutEntry{ID: r.ID, Snapshot: name, Nonce: storage.NewID(), CreatedAt: now, ExpiresAt: now.Add(r.ExpiresIn)}
		if entries, err = c.room(ctx, key, entries, now); err != nil {
			return res, false, err
		}
		entries, i = append(entries, entry), len(entries)
		if after, err = c.enterCheckout(ctx, key, k, entries, r); err != nil || after == nil {
			return res, after == nil, err
		}
	case entries[i].Outcome != "": // the backend has lost its snapshot, and a settled id never opens again
		return res, false, noCheckout(r.ID)
	case k.Items.Object.Len() == 0: // the entry is of an attempt that nobody was told of
		return res, false, ErrEmptyCart
	}
	e := &entries[i]
	checkout := &Checkout{
		ID: e.ID, Home: key, CartID: k.ID, Cart: k, Attributes: r.Attributes, CreatedAt: e.CreatedAt, ExpiresAt: e.ExpiresAt,
		name: name, nonce: e.Nonce,
	}
	if err := c.enlist(ctx, key, checkout); err != nil {
		return res, false, err
	}
	if checkout, err = c.makeSnapshot(ctx, checkout); err != nil {
		if errors.Is(err, storage.ErrTooLarge) {
			c.withdraw(ctx, key, e.Nonce)
		}
		return res, false, err
	}
	if checkout.nonce != e.Nonce { // that of another attempt, which began in another cart of this name
		c.withdraw(ctx, key, e.Nonce)
	}
	return CheckoutResult{Checkout: checkout, Key: key, Cart: after, Repeat: repeat.Repeat}, false, nil
}

// enterCheckout is step 1. It returns the cart as it left it, nil where somebody else was quicker.
func (c *Coordinator) enterCheckout(ctx context.Context, key cart.Key, k *cart.Cart, entries []cart.CheckoutEntry, r *CheckoutRequest) (*cart.Cart, error) {
	commit, after, err := c.writeEntries(k, entries, r.Change.Request, false)
	if err != nil {
		return nil, err
	}
	// The snapshot is of the instant at which the cart was read. What came since is no part of it, and stays.
	return c.commitEntries(ctx, key, commit, after, r.Change)
}

// loadFinished reads a cart from the backend. It first finishes the hand-over that the cart is the source of, if any.
func (c *Coordinator) loadFinished(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	for {
		k, err := c.store.Load(ctx, key)
		if err != nil || k.Transfer == nil {
			return k, err
		}
		if err := c.resume(ctx, key, k); err != nil {
			return nil, err
		}
	}
}

// find looks for a checkout of the cart k of that name: one that came with the cart, one that was made under the name,
// or one that the name's list has, if it counts. It is nil where there is none.
func (c *Coordinator) find(ctx context.Context, key cart.Key, k *cart.Cart, id string, counts func(context.Context, cart.Key, *Checkout) (bool, error)) (*Checkout, error) {
	entries, err := checkoutsOf(k)
	if err != nil {
		return nil, err
	}
	home := snapshotName(key, id)
	names := []string{home}
	for i := range entries {
		if e := &entries[i]; e.ID == id && e.Snapshot != home {
			names = append(names, e.Snapshot)
		}
	}
	for _, name := range names {
		s, err := c.loadSnapshot(ctx, name)
		if err != nil {
			return nil, err
		}
		if s != nil && (name == home || hasEntry(entries, s)) {
			return s, nil
		}
	}
	list, err := c.listed(ctx, key)
	if err != nil {
		return nil, err
	}
	for name, r := range list.Checkouts {
		if r.ID != id || slices.Contains(names, name) {
			continue
		}
		s, err := c.loadSnapshot(ctx, name)
		if err != nil {
			return nil, err
		}
		if s == nil {
			continue
		}
		if ok, err := counts(ctx, key, s); ok || err != nil {
			return s, err
		}
	}
	return nil, nil
}

// anywhere lets every checkout count: who asks for it by its id finds it, wherever its cart has gone.
func anywhere(context.Context, cart.Key, *Checkout) (bool, error) { return true, nil }

func hasEntry(entries []cart.CheckoutEntry, s *Checkout) bool { return entryOf(entries, s) != nil }

func entryOf(entries []cart.CheckoutEntry, s *Checkout) *cart.CheckoutEntry {
	for i := range entries {
		if entries[i].Nonce == s.nonce {
			return &entries[i]
		}
	}
	return nil
}

// belongs reports whether a checkout is one of the cart of that name, or of its last one: lists have those too that
// would have come with a hand-over which was not made, and those that have gone with one.
func (c *Coordinator) belongs(ctx context.Context, name cart.Key, s *Checkout) (bool, error) {
	if s.Outcome != "" && s.settledIn != (cart.Key{}) {
		return s.settledIn == name, nil
	}
	at, err := c.locate(ctx, s, name, c.read)
	if err != nil || at.entry == nil {
		return true, err
	}
	return at.key == name, nil
}

// located is the cart that has the entry of a checkout; entry is nil where none has.
type located struct {
	key   cart.Key
	cart  *cart.Cart
	entry *cart.CheckoutEntry
}

// locate looks for the cart that has the entry of s: under the name where it was made, under that which was asked for,
// which a cache that has lost its list does not know any more, and then under the names to which carts have gone from
// there. Each move is written down before the cart goes. So a search that does not find the cart has passed it on its
// way only where a move was written meanwhile, and then it begins anew.
func (c *Coordinator) locate(ctx context.Context, s *Checkout, asked cart.Key, load func(context.Context, cart.Key) (*cart.Cart, error)) (located, error) {
	var before map[cart.Key]uint64
	for {
		seen, names := map[cart.Key]uint64{}, []cart.Key{s.Home, asked}
		for len(names) > 0 {
			name := names[0]
			if names = names[1:]; seen[name] > 0 {
				continue
			}
			k, err := load(ctx, name)
			if err != nil {
				return located{}, err
			}
			entries, err := checkoutsOf(k)
			if err != nil {
				return located{}, err
			}
			if e := entryOf(entries, s); e != nil {
				return located{name, k, e}, nil
			}
			l, err := c.beside().list(ctx, name)
			if err != nil {
				return located{}, err
			}
			seen[name] = l.stored.Version + 1
			for _, m := range l.Moves {
				names = append(names, m.To)
			}
		}
		if maps.Equal(before, seen) {
			return located{}, nil
		}
		before = seen
	}
}

// GetCheckout returns a checkout of a cart's name, or a [cart.ErrNotFound].
func (c *Coordinator) GetCheckout(ctx context.Context, key cart.Key, id string) (*Checkout, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.inFlight.Done()
	k, err := c.read(ctx, key)
	if err != nil {
		return nil, err
	}
	s, err := c.find(ctx, key, k, id, anywhere)
	if err == nil && s == nil {
		err = noCheckout(id)
	}
	return s, err
}

func noCheckout(id string) error { return &cart.NotFoundError{What: "checkout", Name: id} }

// ListCheckouts calls visit with the checkouts of a cart's name, the newest first. They are read one by one.
func (c *Coordinator) ListCheckouts(ctx context.Context, key cart.Key, visit func(*Checkout) error) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.inFlight.Done()
	k, err := c.read(ctx, key)
	if err != nil {
		return err
	}
	entries, err := checkoutsOf(k)
	if err != nil {
		return err
	}
	list, err := c.listed(ctx, key)
	if err != nil {
		return err
	}
	o := c.opts.Load()
	for i := range entries {
		e := &entries[i]
		list.add(e.Snapshot, ref{e.ID, e.CreatedAt, o.until(e.ExpiresAt, e.SettledAt)})
	}
	for _, name := range list.names(time.Now()) {
		s, err := c.loadSnapshot(ctx, name)
		if err != nil {
			return err
		}
		if s == nil {
			continue
		}
		here := hasEntry(entries, s)
		if !here {
			if here, err = c.belongs(ctx, key, s); err != nil {
				return err
			}
		}
		if here {
			if err := visit(s); err != nil {
				return err
			}
		}
	}
	return nil
}
