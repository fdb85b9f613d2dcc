package lock

import (
	"context"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// trail is the audit trail's record of a change that one call makes to parts. It is empty if the store keeps no trail.
func (c *Coordinator) trail(ctx context.Context, kind storage.ChangeKind, step uint64, parts ...cart.Part) []storage.Trace {
	if !c.audits || len(parts) == 0 {
		return nil
	}
	t := storage.Trace{Kind: kind, Parts: parts, Step: step}
	if callOf := c.opts.Load().CallOf; callOf != nil {
		t.Call = callOf(ctx)
	}
	return []storage.Trace{t}
}

// audits reports whether a store keeps an audit trail.
func audits(s storage.Store) bool {
	a, ok := storage.As[storage.Auditor](s)
	return ok && a.Audits()
}

// trailOf is the audit trail's record, in a store of checkouts, of a checkout that is made or settled.
func (c *Coordinator) trailOf(ctx context.Context, in records, k *Checkout) []storage.Trace {
	if !in.audits {
		return nil
	}
	t := storage.Trace{Kind: storage.ChangeCheckedOut, Checkout: &storage.TracedCheckout{
		Key: k.Home, CartID: k.CartID, Version: k.Cart.Version, ID: k.ID, Attributes: string(k.Attributes),
	}}
	switch k.Outcome {
	case cart.Ordered:
		t.Kind = storage.ChangeOrdered
	case cart.Cancelled:
		t.Kind = storage.ChangeCancelled
	}
	if callOf := c.opts.Load().CallOf; callOf != nil {
		t.Call = callOf(ctx)
	}
	return []storage.Trace{t}
}

// traceOf is the audit trail's record of an op that has just altered d, a draft of a cart at version base.
func (c *Coordinator) traceOf(o *op, d *cart.Draft, base uint64) []storage.Trace {
	if o.forget {
		return c.trail(o.ctx, storage.ChangeForgotten, 0, cart.PartAll)
	}
	return c.trail(o.ctx, storage.ChangeAltered, d.Cart().Version-base, d.Altered()...)
}

// kindOf is the kind of the changes of a hand-over.
func kindOf(s cart.Strategy) storage.ChangeKind {
	if s == cart.StrategySwap {
		return storage.ChangeSwapped
	}
	return storage.ChangeMerged
}
