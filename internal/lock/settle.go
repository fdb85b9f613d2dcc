package lock

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// A checkout is settled in two steps, each atomic:
//
//  1. The cart: what was ordered is taken, and the entry in the ledger says so, in one commit.
//  2. The snapshot says how it was settled.
//
// The entry decides: it is used up once. Who finds it settled and the snapshot not does step 2. Where the cart has
// gone, there is no entry and nothing to take, and the snapshot decides.

// Settle settles a checkout with an outcome. ch.If, ch.Lease and ch.Request are as in every change; ch.Verb is nil. An
// order waits for locks of others on items and conditions, a cancellation does not. A checkout that was settled with
// the other outcome is ErrAlreadySettled, and one that is not there a [cart.ErrNotFound].
func (c *Coordinator) Settle(ctx context.Context, key cart.Key, id string, outcome cart.Outcome, ch Change) (CheckoutResult, error) {
	if err := c.canLease(ch); err != nil {
		return CheckoutResult{}, err
	}
	if err := c.enter(); err != nil {
		return CheckoutResult{}, err
	}
	defer c.inFlight.Done()
	ch.Scope = cart.PartAll
	s := &settling{Coordinator: c, key: key, id: id, outcome: outcome, change: ch}
	for {
		res, again, err := s.try(ctx)
		if err != nil || !again {
			return res, c.noteLease(key, ch, err)
		}
		if err := ctx.Err(); err != nil {
			return CheckoutResult{}, err
		}
	}
}

// settling is a settlement under way.
type settling struct {
	*Coordinator
	key     cart.Key
	id      string
	outcome cart.Outcome
	change  Change
	// repeat says that the cart remembers the request.
	repeat Repeat
	// settled says that step 1 was made by this call, or by the one that it repeats.
	settled bool
	// at and left are the cart as step 1 of this call left it.
	at   cart.Key
	left *cart.Cart
}

// try makes one attempt. again says that somebody else was at the cart or at the snapshot.
func (s *settling) try(ctx context.Context) (res CheckoutResult, again bool, err error) {
	k, err := s.read(ctx, s.key)
	if err != nil {
		return res, false, err
	}
	if err := s.recognise(s.key, k); err != nil {
		return res, false, err
	}
	found, err := s.find(ctx, s.key, k, s.id, anywhere)
	switch {
	case err != nil:
		return res, false, err
	case found == nil:
		return res, false, noCheckout(s.id)
	case found.Outcome != "":
		return s.done(ctx, found, k)
	}
	at, err := s.locate(ctx, found, s.key, s.loadFinished)
	if err != nil {
		return res, false, err
	}
	if at.entry != nil && at.key != s.key {
		if err := s.recognise(at.key, at.cart); err != nil {
			return res, false, err
		}
	}
	switch {
	case at.entry == nil:
		return s.withoutCart(ctx, found, k)
	case at.entry.Outcome != "":
		_, _, err := s.recordSettled(ctx, found, at.entry.Outcome, at.entry.SettledAt, at.key)
		return res, err == nil, err
	}
	return s.inCart(ctx, found, at)
}

// recognise notes whether a cart remembers the request.
func (s *settling) recognise(key cart.Key, k *cart.Cart) error {
	first, ok, err := s.opts.Load().repeated(k, s.change.Request)
	if ok && err == nil && s.left == nil {
		s.repeat, s.settled, s.at = first.Repeat, first.Changed, key
	}
	return err
}

// inCart is step 1 and step 2 where a cart has the entry.
func (s *settling) inCart(ctx context.Context, found *Checkout, at located) (res CheckoutResult, again bool, err error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	var left *cart.Cart
	if s.outcome == cart.Ordered {
		ch := s.change
		ch.Verb = cart.Settle{Nonce: found.nonce, Snapshot: found.Cart, At: now}
		r, err := s.Coordinator.change(ctx, at.key, ch, false)
		if errors.Is(err, cart.ErrNotOpen) || err == nil && r.Repeat != (Repeat{}) {
			return res, true, nil
		}
		if err != nil {
			return res, false, err
		}
		left = r.Cart
	} else if left, err = s.cancel(ctx, at, now); err != nil || left == nil {
		return res, err == nil, err
	}
	s.at, s.left, s.settled = at.key, left, true
	settled, ok, err := s.recordSettled(ctx, found, s.outcome, now, at.key)
	if err != nil || !ok {
		return res, err == nil, err
	}
	return CheckoutResult{Checkout: settled, Key: at.key, Cart: left, Settled: true}, false, nil
}

// cancel is step 1 of a cancellation. It returns the cart as it is then, nil where somebody else was quicker.
func (s *settling) cancel(ctx context.Context, at located, now time.Time) (*cart.Cart, error) {
	if err := s.change.If.Check(at.cart, cart.PartAll); err != nil {
		return nil, err
	}
	entries, err := checkoutsOf(at.cart)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(entries, func(e cart.CheckoutEntry) bool { return e.Nonce == at.entry.Nonce })
	entries[i].Outcome, entries[i].SettledAt = cart.Cancelled, now
	commit, after, err := s.writeEntries(at.cart, entries, s.change.Request, true)
	if err != nil {
		return nil, err
	}
	return s.commitEntries(ctx, at.key, commit, after, s.change)
}

// withoutCart settles a checkout whose cart has gone. k is the cart of the name now, which is another one or none.
func (s *settling) withoutCart(ctx context.Context, found *Checkout, k *cart.Cart) (res CheckoutResult, again bool, err error) {
	if s.left == nil { // else step 1 was made, and the cart has gone since
		if err := s.change.If.Check(k, cart.PartAll); err != nil {
			return res, false, err
		}
		if err := s.ifLeased(ctx, s.key, s.change); err != nil {
			return res, false, err
		}
		s.change.Lease = "" // which is given back, if that was asked for
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	settled, ok, err := s.recordSettled(ctx, found, s.outcome, now, s.at)
	if err != nil || !ok {
		return res, err == nil, err
	}
	return CheckoutResult{Checkout: settled, Key: s.key, Cart: k, Settled: true}, false, nil
}

// recordSettled is step 2. It writes into the snapshot how a checkout was settled, if nobody else has written to it
// since it was read.
func (c *Coordinator) recordSettled(ctx context.Context, k *Checkout, outcome cart.Outcome, at time.Time, in cart.Key) (*Checkout, bool, error) {
	var names []cart.Key
	late := *k
	if at.After(k.ExpiresAt) { // it is kept for longer than the lists know
		late.SettledAt = at
		names = append(names, k.Home)
	}
	if in != (cart.Key{}) && in != k.Home && (k.in.apart || len(names) > 0) { // see announce
		names = append(names, in)
	}
	for _, name := range names {
		if err := c.enlist(ctx, name, &late); err != nil {
			return nil, false, err
		}
	}
	return c.changeSnapshot(ctx, k, func(k *Checkout) { k.Outcome, k.SettledAt, k.settledIn = outcome, at, in })
}

// done answers for a checkout that is settled. k is the cart of the name that was asked for.
func (s *settling) done(ctx context.Context, found *Checkout, k *cart.Cart) (res CheckoutResult, again bool, err error) {
	res = CheckoutResult{Checkout: found, Key: s.key, Cart: k, Settled: s.settled, Repeat: s.repeat}
	switch {
	case found.Outcome != s.outcome:
		return CheckoutResult{}, false, ErrAlreadySettled
	case s.left != nil:
		res.Key, res.Cart = s.at, s.left
	case s.repeat != (Repeat{}):
		if s.at != s.key {
			res.Key = s.at
			res.Cart, err = s.read(ctx, s.at)
		}
	default:
		if err = s.ifLeased(ctx, s.key, s.change); err == nil {
			res.Cart, err = s.remember(ctx, s.key, k, s.change.Request, false)
		}
	}
	return res, false, err
}
