package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// The steps of a hand-over that does not fit in one commit. Any call that finds them unfinished finishes them: see
// transfer.go.

// life is the TTL of a source once its hand-over has begun. The source must not expire before its contents have moved,
// and the steps may have to wait for a lock on the target.
func (t *transfer) life() time.Duration {
	if t.o.TTL == 0 {
		return 0
	}
	return max(t.o.TTL, 2*(t.o.WaitTimeout+turnTTL))
}

// declare is step 1.
func (t *transfer) declare(ctx context.Context, source *cart.Cart, in intent) (storage.Status, error) {
	value, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}
	token := t.tokens[in.From]
	if t.under.Lease != "" {
		token = t.under.Lease
	}
	outs, err := t.c.store.Commit(ctx, storage.Commit{
		Key: in.From, Expect: expectLedger(source),
		Change: storage.Change{Writes: []storage.Write{{Part: cart.PartTransfer, Value: value}}, TTL: t.life()},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartAll}, Token: token, MustHold: token != ""},
	})
	if err != nil {
		return 0, err
	}
	t.sees(in.From, source, outs[0])
	return outs[0].Status, nil
}

// inSteps hands over between two carts that it has just read and whose turns it holds. The steps use the carts that the
// turns returned, so each step is one commit. If somebody else intervenes, finish does the rest.
func (t *transfer) inSteps(ctx context.Context, in intent, source, target *cart.Cart) (Result, storage.Status, error) {
	status, err := t.declare(ctx, source, in)
	if err != nil || status != storage.Committed {
		return Result{}, status, err
	}
	defer t.c.cache.drop(in.From)
	defer t.c.cache.drop(in.To)
	if err := t.c.settleReceived(ctx, target); err != nil {
		return Result{}, 0, err
	}
	arrived, status, err := t.take(ctx, in, source, target)
	if err != nil {
		return Result{}, 0, err
	}
	if status == storage.Committed {
		err = t.leave(ctx, in, source)
	} else if err = t.finish(ctx, in); err == nil {
		arrived, err = t.c.store.Load(ctx, in.To)
	}
	if err != nil {
		return Result{}, 0, err
	}
	if t.under.Release {
		_ = t.c.locker.Release(ctx, in.From, t.under.Lease) // if this fails, the lease ends by itself
	}
	return Result{Cart: arrived, Changed: true, Capped: t.capped}, storage.Committed, nil
}

// finish does steps 2 and 3 of a hand-over that has declared its intent, unless somebody else has done them.
func (t *transfer) finish(ctx context.Context, in intent) error {
	err := t.receive(ctx, in)
	if err == nil {
		err = t.c.giveUp(ctx, in)
	}
	t.c.cache.drop(in.From)
	t.c.cache.drop(in.To)
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// receive is step 2.
func (t *transfer) receive(ctx context.Context, in intent) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		target, _, err := t.load(ctx, in.To) // before the source: see above
		t.capped = nil
		if err != nil {
			return err
		}
		if got, ok := parseIntent(target.Received); ok && got.ID == in.ID {
			return nil
		}
		if err := t.c.settleReceived(ctx, target); err != nil {
			return err
		}
		source, err := t.c.store.Load(ctx, in.From)
		if err != nil {
			return err
		}
		if got, ok := parseIntent(source.Transfer); !ok || got.ID != in.ID {
			return errGone
		}
		switch _, status, err := t.take(ctx, in, source, target); {
		case err != nil:
			return err
		case status == storage.Committed:
			return nil
		case status == storage.Locked:
			if err := t.takeTurns(ctx, time.Now().Add(t.o.WaitTimeout), in.To); err != nil {
				return err
			}
		}
	}
}

// take makes the commit of step 2. It returns the target after it.
func (t *transfer) take(ctx context.Context, in intent, source, target *cart.Cart) (*cart.Cart, storage.Status, error) {
	value, err := json.Marshal(in)
	if err != nil {
		return nil, 0, err
	}
	// The limits were checked before the intent was declared; now nothing may be lost.
	take, arrived, err := t.arrival(ctx, source, target, in, value, t.o.Limits.Unrefusing())
	if err != nil {
		return nil, 0, err
	}
	own := t.depth == 0 // otherwise the turn is for what follows this hand-over
	take.Locks.Release = own && take.Locks.Token != ""
	outs, err := t.c.store.Commit(ctx, take)
	if err != nil {
		return nil, 0, err
	}
	if take.Locks.Release && outs[0].Status == storage.Committed {
		delete(t.tokens, in.To)
	}
	stamp(arrived, outs[0])
	return arrived, outs[0].Status, nil
}

// giveUp is step 3: it forgets the source, if the intent is still there.
func (c *Coordinator) giveUp(ctx context.Context, in intent) error {
	source, err := c.store.Load(ctx, in.From)
	if err != nil {
		return err
	}
	if got, ok := parseIntent(source.Transfer); !ok || got.ID != in.ID {
		return errGone
	}
	_, err = c.store.Commit(ctx, c.goodbye(ctx, in, source))
	c.cache.drop(in.From)
	return err // a conflict means that somebody else did it
}

// goodbye is the commit of step 3.
func (c *Coordinator) goodbye(ctx context.Context, in intent, source *cart.Cart) storage.Commit {
	return storage.Commit{
		Key: in.From, Expect: storage.Expect{ID: source.ID, Version: source.Version},
		Change: storage.Change{
			Writes: []storage.Write{{Part: cart.PartTransfer}}, Forget: true,
			Trail: c.trail(ctx, kindOf(in.Strategy), 0, cart.PartAll),
		},
	}
}

// leave is step 3 if this run has declared the intent. The intent kept the source unchanged, so a check of its id and
// version is enough. In the same step it gives back the turn or, if that was asked for, the lease.
func (t *transfer) leave(ctx context.Context, in intent, source *cart.Cart) error {
	commit := t.c.goodbye(ctx, in, source)
	commit.Locks.Token = t.tokens[in.From]
	if t.under.Release {
		commit.Locks.Token = t.under.Lease
	}
	commit.Locks.Release = commit.Locks.Token != ""
	outs, err := t.c.store.Commit(ctx, commit)
	if err == nil && outs[0].Status == storage.Committed { // a conflict means that somebody else did it
		delete(t.tokens, in.From)
		t.under.Release = false
	}
	return err
}

// resume finishes a hand-over that was found on its source.
func (t *transfer) resume(ctx context.Context, key cart.Key, source *cart.Cart) (intent, error) {
	in, err := intentOf(key, source)
	if err != nil {
		return in, err
	}
	if t.depth >= maxDepth {
		return in, fmt.Errorf("%s: intents of hand-overs: %w", key, storage.ErrCorrupt)
	}
	t.depth++
	defer func() { t.depth-- }()
	return in, t.finish(ctx, in)
}

// resume finishes a hand-over that a change found on its source.
func (c *Coordinator) resume(ctx context.Context, key cart.Key, source *cart.Cart) error {
	t := c.newTransfer()
	defer t.abandon()
	_, err := t.resume(ctx, key, source)
	return err
}

// readInTransfer answers a read of a source in an unfinished hand-over. The source reads as empty once the target has
// its contents, and as unchanged before. A read never finishes the hand-over, because that may have to wait for a lock.
func (c *Coordinator) readInTransfer(ctx context.Context, key cart.Key, source *cart.Cart) (*cart.Cart, error) {
	in, err := intentOf(key, source)
	if err != nil {
		return nil, err
	}
	target, err := c.store.Load(ctx, in.To)
	if err != nil {
		return nil, err
	}
	if got, ok := parseIntent(target.Received); ok && got.ID == in.ID {
		return &cart.Cart{}, nil
	}
	// The target does not have the id: not yet, or, if the intent is gone by now, no longer.
	k, err := c.store.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	if still, ok := parseIntent(k.Transfer); !ok || still.ID != in.ID {
		return c.read(ctx, key)
	}
	k.Transfer = nil
	return k, nil
}

// settleReceived finishes the hand-over that k has received, if any, before k is removed. The id of a hand-over must
// stay until the hand-over's source has gone.
func (c *Coordinator) settleReceived(ctx context.Context, k *cart.Cart) error {
	in, ok := parseIntent(k.Received)
	if !ok {
		return nil
	}
	if err := c.giveUp(ctx, in); err != nil && !errors.Is(err, errGone) {
		return err
	}
	return nil
}

// intentOf is the intent that closes a source. The error says what else closes it: storage.ErrMoved means that the cart
// has moved to another backend, and this sidecar has not been told.
func intentOf(key cart.Key, source *cart.Cart) (intent, error) {
	if in, ok := parseIntent(source.Transfer); ok {
		return in, nil
	}
	_, moved, err := storage.ParseMarker(source.Transfer)
	switch {
	case err != nil:
		return intent{}, fmt.Errorf("%s: %w", key, err)
	case moved:
		return intent{}, fmt.Errorf("%s: %w", key, storage.ErrMoved)
	}
	return intent{}, fmt.Errorf("%s: intent of a hand-over: %w", key, storage.ErrCorrupt)
}

func parseIntent(value []byte) (intent, bool) {
	var in intent
	if value == nil {
		return in, false
	}
	err := json.Unmarshal(value, &in)
	return in, err == nil && in.ID != ""
}
