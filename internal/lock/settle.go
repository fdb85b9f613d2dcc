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
//  1. In the cart, one commit takes what was ordered and notes that in the ledger's entry.
//  2. The snapshot says how it was settled.
//
// The entry decides: it can be used once. A call that finds the entry settled and the snapshot unsettled does step 2.
// If the cart has gone, there is no entry and nothing to take, and the snapshot decides. So of all answers to
// settlements of a checkout, one at most says that it was settled by this call, also where the cart went between the
// steps.

// Settle settles a checkout with an outcome. ch.If, ch.Lease and ch.Request are as in every change; ch.Verb is nil. An
// order waits for other holders' locks on items and conditions; a cancellation does not. Settle returns
// ErrAlreadySettled if the checkout was settled with the other outcome, and [cart.ErrNotFound] if there is none.
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
		if s.left != nil {
			err = afterStep(err)
		}
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
	// settled says that this call made step 1, or that it repeats the call that did.
	settled bool
	// at and left are the name and the cart after step 1 of this call.
	at   cart.Key
	left *cart.Cart
}

// try makes one attempt. again says that somebody else changed the cart or the snapshot meanwhile.
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

// inCart does steps 1 and 2 if a cart has the entry.
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

// cancel is step 1 of a cancellation. It returns the cart after it, or nil if somebody else changed the cart first.
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

// withoutCart settles a checkout after its cart has gone. k is the current cart of the name: another cart or none.
func (s *settling) withoutCart(ctx context.Context, found *Checkout, k *cart.Cart) (res CheckoutResult, again bool, err error) {
	if s.left == nil { // otherwise step 1 was made, and the cart has gone since
		if err := s.change.If.Check(k, cart.PartAll); err != nil {
			return res, false, err
		}
		if err := s.ifLeased(ctx, s.key, s.change); err != nil {
			return res, false, err
		}
		s.change.Lease = "" // the lease was given back, if that was asked for
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	settled, ok, err := s.recordSettled(ctx, found, s.outcome, now, s.at)
	if err != nil || !ok {
		return res, err == nil, err
	}
	return CheckoutResult{Checkout: settled, Key: s.key, Cart: k, Settled: true}, false, nil
}

// recordSettled is step 2. It writes the outcome into the snapshot, unless somebody else has written to the snapshot
// since it was read.
func (c *Coordinator) recordSettled(ctx context.Context, k *Checkout, outcome cart.Outcome, at time.Time, in cart.Key) (*Checkout, bool, error) {
	var names []cart.Key
	late := *k
	if at.After(k.ExpiresAt) { // it must be kept for longer than the lists say
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

// done returns the answer for a settled checkout. k is the cart of the name that was asked for.
func (s *settling) done(ctx context.Context, found *Checkout, k *cart.Cart) (res CheckoutResult, again bool, err error) {
	res = CheckoutResult{Checkout: found, Key: s.key, Cart: k, Settled: s.settled, Repeat: s.repeat}
	switch {
	case found.Outcome != s.outcome:
		return CheckoutResult{}, false, ErrAlreadySettled
	case s.left != nil:
		res.Key, res.Cart = s.at, s.left
		if found.settledIn == (cart.Key{}) {
			// The cart went after step 1, and another call settled the checkout without it. That call has said so.
			res.Settled = false
		}
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
