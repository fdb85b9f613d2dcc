package lock

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// serve answers every op of the batch, or parks it. It computes the changes from the
// last known state and commits them on the condition that this is still the state; a
// conflict brings the true one.
//
// In locked mode a commit that fails takes its turn in the same round trip: either
// the lock is granted, and the next attempt cannot fail, or the claim is queued. That
// is what keeps one sidecar, whose state is fresh because it wrote last, from winning
// every race.
func (c *Coordinator) serve(ctx context.Context, l *line, b batch) {
	if b.ops[0].exclusive != nil {
		b.ops[0].exclusive(ctx)
		return
	}
	view, own := b.view, b.view != nil
	fresh := b.view != nil // read from the backend after the ops came
	if view == nil {
		view, own = c.cache.get(l.key)
		own = own && !b.beside
	}
	for {
		if b.ops = c.expire(b.ops); len(b.ops) == 0 {
			c.release(l.key, b.token)
			return
		}
		o := c.opts.Load()
		known := view != nil
		if !known {
			view = &cart.Cart{}
		}
		if b.ops[0].forget {
			if err := c.settleReceived(ctx, view); err != nil {
				c.fail(l.key, &b, nil, err)
				return
			}
		}
		p := compute(o, l.key, &b, view)
		if fresh && b.token == "" && p.idle() {
			c.cache.used(l.key)
			p.answer(c, storage.Outcome{Base: view.Version, ID: view.ID, CreatedAt: view.CreatedAt, UpdatedAt: view.UpdatedAt, ExpiresAt: view.ExpiresAt})
			return
		}
		if known && c.locker != nil && c.mode.locking.Load() && !p.commit.Lease {
			p.commit.Claim = o.claim(p.commit.Parts, b.token)
			if b.token != "" && c.cache.takesTurns(l.key) && !c.closing.Load() {
				p.commit.Again = o.claim(p.commit.Parts, "")
			}
		}

		if err := spent(ctx); err != nil { // a commit that is sent now would be told as the backend's fault
			c.fail(l.key, &b, nil, err)
			return
		}
		c.cache.begin(l.key)
		outs, err := c.store.Commit(ctx, p.commit)
		c.stats.commits.Add(1)
		if err != nil {
			if errors.Is(err, storage.ErrTooLarge) && len(b.ops) > 1 {
				c.split(ctx, l, &b, singly(b.ops))
				return
			}
			c.fail(l.key, &b, p.commit.Claim, err)
			return
		}
		switch out := outs[0]; out.Status {
		case storage.Committed:
			if own && out.Base != view.Version {
				c.foreignWriter(l.key)
			}
			after := p.answer(c, out)
			c.cache.remember(l.key, after, out.Base == view.Version && !b.beside)
			if again := p.commit.Again; out.Claimed.Queued {
				c.park(l, nil, *again, true) // for what comes meanwhile
			} else if out.Claimed.Granted {
				c.release(l.key, again.Token)
			}
			return
		case storage.LockLost:
			c.fail(l.key, &b, nil, storage.ErrLockLost)
			return
		case storage.LockUnknown:
			c.fail(l.key, &b, nil, storage.ErrLockUnknown)
			return
		case storage.Locked:
			c.stats.locked.Add(1)
			if p.commit.Lease {
				b.ops[0].answer(Result{}, errHeld)
				return
			}
			c.wait(ctx, l, &b, p, out)
			return
		default:
			c.stats.conflicts.Add(1)
			if own && out.Cart.Exists() && (out.Cart.ID != view.ID || out.Cart.Version > view.Version) {
				c.foreignWriter(l.key)
			}
			if out.Claimed.Queued {
				c.park(l, b.ops, *p.commit.Claim, true)
				return
			}
			if out.Claimed.Granted {
				b.token = p.commit.Claim.Token
			}
			view, own, fresh = out.Cart, !b.beside, true
			c.cache.set(l.key, view)
			if view.Transfer != nil {
				if err := c.resume(ctx, l.key, view); err != nil {
					c.fail(l.key, &b, nil, err)
					return
				}
				view, own = nil, false
			}
		}
	}
}

// wait lets the changes of a commit that met a held lock wait for it, each set of
// parts by itself: a lock over the items does not hold up a change of the
// conditions.
func (c *Coordinator) wait(ctx context.Context, l *line, b *batch, p *plan, out storage.Outcome) {
	if c.locker == nil {
		c.fail(l.key, b, nil, fmt.Errorf("a lock is held that this store cannot wait for: %w", storage.ErrUnsupported))
		return
	}
	claim := p.commit.Claim
	if sets := byParts(b.ops, p.view); len(sets) > 1 {
		if out.Claimed.Queued {
			c.release(l.key, claim.Token)
		}
		c.split(ctx, l, b, sets)
		return
	}
	if claim == nil {
		claim = c.opts.Load().claim(p.commit.Parts, b.token)
	}
	c.park(l, b.ops, *claim, out.Claimed.Queued)
}

// split serves the ops of a batch in several.
func (c *Coordinator) split(ctx context.Context, l *line, b *batch, sets [][]*op) {
	c.release(l.key, b.token)
	for _, ops := range sets {
		c.serve(ctx, l, batch{ops: ops})
	}
}

func singly(ops []*op) (sets [][]*op) {
	for _, o := range ops {
		sets = append(sets, []*op{o})
	}
	return sets
}

// byParts puts ops together that need the same locks.
func byParts(ops []*op, view *cart.Cart) (sets [][]*op) {
	var parts [][]cart.Part
	for _, o := range ops {
		want := o.lockParts(view)
		i := slices.IndexFunc(parts, func(p []cart.Part) bool { return cart.Covers(p, want) && cart.Covers(want, p) })
		if i < 0 {
			i, parts, sets = len(parts), append(parts, want), append(sets, nil)
		}
		sets[i] = append(sets[i], o)
	}
	return sets
}

// expire answers the ops whose wait has ended and returns the others.
func (c *Coordinator) expire(ops []*op) []*op {
	now := time.Now()
	return slices.DeleteFunc(ops, func(o *op) bool {
		if now.Before(o.expires) {
			return false
		}
		c.stats.timeouts.Add(1)
		o.answer(Result{}, storage.ErrLockTimeout)
		return true
	})
}

// fail answers all ops with err. What the backend has is in doubt then, and a
// lock that may have been granted meanwhile is given back.
func (c *Coordinator) fail(key cart.Key, b *batch, claim *storage.Claim, err error) {
	c.cache.drop(key)
	if claim != nil {
		c.release(key, claim.Token)
	} else {
		c.release(key, b.token)
	}
	for _, o := range b.ops {
		o.answer(Result{}, err)
	}
}

func (c *Coordinator) release(key cart.Key, token string) {
	if token != "" {
		c.abandon(key, token)
	}
}

// claim is one turn over parts, by a token that is made anew where none is given.
func (o *Options) claim(parts []cart.Part, token string) *storage.Claim {
	if token == "" {
		token = NewToken()
	}
	return &storage.Claim{Token: token, Holder: o.Holder, Parts: parts, Lease: min(o.LeaseDuration, turnLease)}
}

// NewToken makes an unguessable token of 128 random bits in the form of
// bsm/redislock: 22 characters of base64url.
func NewToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// newUUID makes a version 4 UUID (RFC 9562).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
