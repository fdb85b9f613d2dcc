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
//  1. The cart's ledger gets an entry: the right to take the contents of the snapshot from this cart, once.
//  2. The list of the cart's name gets the checkout.
//  3. The snapshot is stored, as the cart was at step 1. From then on the checkout is there.
//
// So a snapshot always has its entry, unless the cart has gone. An entry without a snapshot belongs to a checkout that
// no client was told of. A client that asks for it again continues after step 1. See docs/design/0009-checkouts.md.

// Sentinels of checkouts.
var (
	// ErrEmptyCart is returned for a checkout of a cart without items.
	ErrEmptyCart = errors.New("the cart has no items to check out")
	// ErrAlreadySettled is returned for a checkout that was settled already with the other outcome.
	ErrAlreadySettled = errors.New("the checkout was settled already")
)

const (
	// MaxOpenCheckouts is how many checkouts of one cart may be open. After a merge of two carts there may be more.
	MaxOpenCheckouts = 16
	// mostEntries bounds the entries of a cart that are not open. Beyond it, the oldest expired entries are dropped,
	// and with them the right to take.
	mostEntries = 64
)

// CheckoutRequest asks for a checkout.
type CheckoutRequest struct {
	// ID is the client's name for it. For "" the sidecar makes one, the same for the same Request.
	ID string
	// ExpiresIn is how long it is open.
	ExpiresIn time.Duration
	// Attributes are the client's own, a JSON object; nil for none.
	Attributes []byte
	// Change has the precondition at the instant of the snapshot, a lease and an idempotency key, as in every change.
	// Its Verb and Scope are ignored.
	Change Change
}

// CheckoutResult is the answer to a checkout or a settlement.
type CheckoutResult struct {
	Checkout *Checkout
	// Key and Cart are the cart as it is now. After a hand-over Key is its new name.
	Key  cart.Key
	Cart *cart.Cart
	// Settled says that this call settled the checkout, or that it repeats the call that did.
	Settled bool
	Repeat  Repeat
}

// Checkout takes a snapshot of a cart. The cart stays in use. A second call with the same id returns the same snapshot.
// Checkout needs no lock. It returns ErrEmptyCart for a cart without items, and [cart.ErrTooLarge] if too many
// checkouts are open.
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

// tryCheckout makes one attempt. again says that somebody else changed the cart meanwhile.
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
		for j := range entries { // each has a different time, since lists are ordered by time
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
	case entries[i].Outcome != "": // the backend lost its snapshot, and a settled id never opens again
		return res, false, noCheckout(r.ID)
	case k.Items.Object.Len() == 0: // the entry is from an attempt that no client was told of
		return res, false, ErrEmptyCart
	}
	e := &entries[i]
	checkout := &Checkout{
		ID: e.ID, Home: key, CartID: k.ID, Cart: k, Attributes: r.Attributes, CreatedAt: e.CreatedAt, ExpiresAt: e.ExpiresAt,
		name: name, nonce: e.Nonce,
	}
	if err := c.enlist(ctx, key, checkout); err != nil {
		return res, false, afterStep(err)
	}
	if checkout, err = c.makeSnapshot(ctx, checkout); err != nil {
		if errors.Is(err, storage.ErrTooLarge) {
			c.withdraw(ctx, key, e.Nonce)
		}
		return res, false, afterStep(err)
	}
	if checkout.nonce != e.Nonce { // it is from another attempt, in another cart of this name
		c.withdraw(ctx, key, e.Nonce)
	}
	return CheckoutResult{Checkout: checkout, Key: key, Cart: after, Repeat: repeat.Repeat}, false, nil
}

// enterCheckout is step 1. It returns the cart as it wrote it, or nil if somebody else changed the cart first.
func (c *Coordinator) enterCheckout(ctx context.Context, key cart.Key, k *cart.Cart, entries []cart.CheckoutEntry, r *CheckoutRequest) (*cart.Cart, error) {
	commit, after, err := c.writeEntries(k, entries, r.Change.Request, false)
	if err != nil {
		return nil, err
	}
	// The snapshot is of the instant at which the cart was read. Later changes are not part of it, and stay in the
	// cart.
	return c.commitEntries(ctx, key, commit, after, r.Change)
}

// loadFinished reads a cart from the backend. If the cart is the source of a hand-over, it first finishes that.
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

// find looks for a checkout of the cart k under the name key. It looks under the name, then among those that came with
// the cart, then in the name's list, where counts must accept it. It returns nil if there is none.
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

// anywhere accepts every checkout: a client that asks by id finds it, wherever its cart has gone.
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

// belongs reports whether a checkout belongs to the current cart of that name, or to the last one. Lists also have
// checkouts of hand-overs that were announced and not made, and checkouts that left with a hand-over.
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

// located is the cart that has the entry of a checkout; entry is nil if no cart has it.
type located struct {
	key   cart.Key
	cart  *cart.Cart
	entry *cart.CheckoutEntry
}

// locate looks for the cart that has the entry of s. It begins with the name under which s was made and the name that
// was asked for, because a cache server may have lost the list that leads from the one to the other. Then it follows
// the names to which carts have gone from there. Each move is recorded before the cart goes. So the search can miss a
// moving cart only if a move was recorded meanwhile, and then it begins again.
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

// ListCheckouts calls visit with the checkouts of a cart's name, newest first. It reads them one by one.
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
