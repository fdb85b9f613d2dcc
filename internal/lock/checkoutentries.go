package lock

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// The records of checkouts in a cart's ledger. See checkout.go.

// commitEntries commits a change of the ledger alone, which waits for no lock. It returns the cart after the commit, or
// nil if somebody else changed it first. The version of the cart matters only for a precondition.
func (c *Coordinator) commitEntries(ctx context.Context, key cart.Key, commit storage.Commit, after *cart.Cart, ch Change) (*cart.Cart, error) {
	commit.Key = key
	if len(ch.If.IfMatch) == 0 && !ch.If.IfNoneMatch {
		commit.Expect.Version = 0
	}
	if ch.Lease != "" {
		commit.Locks = storage.Locks{Token: ch.Lease, MustHold: true, Release: ch.Release}
	}
	outs, err := c.store.Commit(ctx, commit)
	c.cache.drop(key)
	if err != nil {
		return nil, err
	}
	switch outs[0].Status {
	case storage.Committed:
		return c.asCommitted(ctx, key, after, outs[0])
	case storage.LockLost:
		return nil, storage.ErrLockLost
	case storage.LockUnknown:
		return nil, storage.ErrLockUnknown
	}
	return nil, nil
}

// asCommitted is the cart after a commit that did not raise its version.
func (c *Coordinator) asCommitted(ctx context.Context, key cart.Key, after *cart.Cart, out storage.Outcome) (*cart.Cart, error) {
	if out.Base != after.Version {
		return c.read(ctx, key)
	}
	stamp(after, out)
	return after, nil
}

// writeEntries returns the commit that stores entries in the ledger of a cart, and the request if it has a key. The
// commit fails if the cart is not as k any more.
func (c *Coordinator) writeEntries(k *cart.Cart, entries []cart.CheckoutEntry, r Request, changed bool) (storage.Commit, *cart.Cart, error) {
	o := c.opts.Load()
	d := cart.NewDraft(k, o.Limits, "")
	if err := d.SetCheckouts(entries); err != nil {
		return storage.Commit{}, nil, fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	}
	if r.Key != "" {
		known, err := o.recall(k)
		if err == nil {
			err = d.Remember(append(known, r.made(k.Version, changed)))
		}
		if err != nil {
			return storage.Commit{}, nil, err
		}
	}
	return storage.Commit{Expect: expectLedger(k), Change: storage.Change{Writes: writes(d, k.Version), TTL: o.TTL}}, d.Cart(), nil
}

// room drops entries that are not needed any more, so that there is room for one more. It drops a settled entry once
// the snapshot says so too, and an entry once its snapshot may be removed.
func (c *Coordinator) room(ctx context.Context, key cart.Key, entries []cart.CheckoutEntry, now time.Time) (kept []cart.CheckoutEntry, err error) {
	o, open, closed := c.opts.Load(), 0, 0
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Open(now):
			open++
		case !now.Before(o.until(e.ExpiresAt, e.SettledAt)):
			continue
		case e.Outcome != "":
			if err := c.finishSettled(ctx, key, e); err != nil {
				return nil, err
			}
			continue
		default:
			closed++
		}
		kept = append(kept, *e)
	}
	if open >= MaxOpenCheckouts {
		return nil, cart.TooLargef("checkouts", MaxOpenCheckouts, int64(open)+1,
			"%d are open, which is the most that a cart may have: settle one, or let it expire", open)
	}
	for i := 0; closed > mostEntries-MaxOpenCheckouts-1; closed-- {
		for kept[i].Open(now) {
			i++
		}
		kept = slices.Delete(kept, i, i+1)
	}
	return kept, nil
}

// finishSettled records in the snapshot what the entry in the cart says.
func (c *Coordinator) finishSettled(ctx context.Context, key cart.Key, e *cart.CheckoutEntry) error {
	for {
		s, err := c.loadSnapshot(ctx, e.Snapshot)
		if err != nil || s == nil || s.nonce != e.Nonce || s.Outcome != "" {
			return err
		}
		if _, ok, err := c.recordSettled(ctx, s, e.Outcome, e.SettledAt, key); ok || err != nil {
			return err
		}
	}
}

// withdraw removes the entry of a checkout that was not made. If that fails, the entry expires.
func (c *Coordinator) withdraw(ctx context.Context, key cart.Key, nonce string) {
	for ctx.Err() == nil {
		k, err := c.store.Load(ctx, key)
		if err != nil || k.Transfer != nil {
			return
		}
		entries, err := checkoutsOf(k)
		without := slices.DeleteFunc(slices.Clone(entries), func(e cart.CheckoutEntry) bool { return e.Nonce == nonce })
		if err != nil || len(without) == len(entries) {
			return
		}
		commit, _, err := c.writeEntries(k, without, Request{}, false)
		if err != nil {
			return
		}
		commit.Key, commit.Expect.Version = key, 0
		outs, err := c.store.Commit(ctx, commit)
		c.cache.drop(key)
		if err != nil || outs[0].Status == storage.Committed {
			return
		}
	}
}

func checkoutsOf(k *cart.Cart) ([]cart.CheckoutEntry, error) {
	entries, err := k.Checkouts()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	}
	return entries, nil
}
