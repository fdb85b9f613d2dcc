package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// A change with an idempotency key is made once. The cart remembers its last requests (in cart.PartLedger). A commit
// stores the request in the same step as the change, and fails if the memory has changed since the key was looked up.
// So two attempts of one request cannot both be made, wherever they run.

// Request identifies a change, so that the client can send it again. The zero value is a change without a key.
type Request struct {
	// Key is the idempotency key; "" for none.
	Key string
	// Sum distinguishes requests with the same key.
	Sum cart.Sum
}

// ErrKeyReused is returned for an idempotency key that was given with another request.
var ErrKeyReused = errors.New("idempotency key of another request")

// Repeat says what the first attempt of a request did. The zero value is not a repeat.
type Repeat struct {
	// Version is the cart's version after it; 0 if this is the first attempt.
	Version uint64
}

// since is the time before which requests are forgotten.
func (o *Options) since() time.Time {
	if o.IdempotencyWindow <= 0 {
		return time.Time{} // for the cart's life
	}
	return time.Now().Add(-o.IdempotencyWindow)
}

// find looks for r among the requests that a cart remembers. It returns ErrKeyReused if the key belongs to another
// request.
func (r Request) find(known []cart.Request) (first cart.Request, found bool, err error) {
	i := slices.IndexFunc(known, func(k cart.Request) bool { return k.Key == r.Key })
	switch {
	case r.Key == "" || i < 0:
		return cart.Request{}, false, nil
	case known[i].Sum != r.Sum:
		return cart.Request{}, false, fmt.Errorf("%w: %q came before, with the one that left the cart at version %d; a new request needs a new key",
			ErrKeyReused, r.Key, known[i].Version)
	}
	return known[i], true, nil
}

// made returns r as a cart remembers it.
func (r Request) made(version uint64, changed bool) cart.Request {
	return cart.Request{Key: r.Key, Sum: r.Sum, Version: version, Changed: changed, At: time.Now()}
}

// recall reads what a stored cart remembers.
func (o *Options) recall(k *cart.Cart) ([]cart.Request, error) {
	known, err := k.Remembered(o.since())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	}
	return known, nil
}

// repeated answers a request that k remembers. ok is false if k does not remember it.
func (o *Options) repeated(k *cart.Cart, r Request) (res Result, ok bool, err error) {
	if r.Key == "" {
		return Result{}, false, nil
	}
	known, err := o.recall(k)
	if err != nil {
		return Result{}, false, err
	}
	first, ok, err := r.find(known)
	return Result{Cart: k, Changed: first.Changed, Repeat: Repeat{first.Version}}, ok, err
}

// lookUp answers a request that was made before, from the cart in the backend.
func (c *Coordinator) lookUp(ctx context.Context, key cart.Key, r Request) (res Result, ok bool, err error) {
	if r.Key == "" {
		return Result{}, false, nil
	}
	k, err := c.read(ctx, key)
	if err != nil {
		return Result{}, false, err
	}
	return c.opts.Load().repeated(k, r)
}

// answerRepeats answers the ops that were made before, because they need no lock, and returns the others. It also
// answers such ops that still wait in the queue.
func (c *Coordinator) answerRepeats(ctx context.Context, q *queue, ops []*op) []*op {
	sh := c.shard(q.key)
	keyed := func(o *op) bool { return o.Request.Key != "" }
	sh.mu.Lock()
	some := slices.ContainsFunc(ops, keyed) || slices.ContainsFunc(q.pending, keyed)
	sh.mu.Unlock()
	if !some {
		return ops
	}
	k, err := c.read(ctx, q.key)
	if err != nil {
		return ops // they can wait for the lock
	}
	o := c.opts.Load()
	answered := func(op *op) bool {
		res, ok, err := o.repeated(k, op.Request)
		if ok = ok || errors.Is(err, ErrKeyReused); ok {
			op.running = true
			op.answer(res, err)
		}
		return ok
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	q.pending = slices.DeleteFunc(q.pending, answered)
	return slices.DeleteFunc(ops, answered)
}

// lockAwaited reports whether changes of a cart wait for a lock in this sidecar.
func (c *Coordinator) lockAwaited(key cart.Key) bool {
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	q := sh.queues[key]
	return q != nil && len(q.waiters) > 0
}

// heldUp reports whether an error is due to a lock. An earlier attempt may have succeeded: it may have had the lock, or
// given back the lease.
func heldUp(err error) bool {
	for _, e := range []error{storage.ErrLockTimeout, storage.ErrLockLost, storage.ErrLockUnknown, errHeld} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// remember stores a request that alters nothing of k, or whose change is made already. It does nothing if there is no
// cart. It returns the cart after that. It renews the cart's life, as every change does.
func (c *Coordinator) remember(ctx context.Context, key cart.Key, k *cart.Cart, r Request, changed bool) (*cart.Cart, error) {
	o := c.opts.Load()
	for r.Key != "" && k.Exists() {
		known, err := o.recall(k)
		if err != nil {
			return nil, err
		}
		if _, found, err := r.find(known); found || err != nil {
			return k, err
		}
		d := cart.NewDraft(k, o.Limits, "")
		if err := d.Remember(append(known, r.made(k.Version, changed))); err != nil {
			return nil, err
		}
		outs, err := c.store.Commit(ctx, storage.Commit{
			Key: key, Expect: expectLedger(k),
			Change: storage.Change{Writes: writes(d, k.Version), TTL: o.TTL},
		})
		c.cache.drop(key)
		if err != nil {
			return nil, err
		}
		if out := outs[0]; out.Status == storage.Committed {
			k = d.Cart()
			k.ExpiresAt = out.ExpiresAt
			return k, nil
		}
		if k = outs[0].Cart; k.Transfer != nil {
			if err = c.resume(ctx, key, k); err == nil {
				k, err = c.read(ctx, key)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return k, nil
}

// expectLedger expects the cart k, with the ledger that it has.
func expectLedger(k *cart.Cart) storage.Expect {
	return storage.Expect{ID: k.ID, Version: k.Version, Parts: map[cart.Part]uint64{cart.PartLedger: k.Ledger.Version}}
}

// memory is what the cart of a plan remembers.
type memory struct {
	known []cart.Request
	read  bool
	added bool
}

// repeat answers an op if its request is remembered. Otherwise ok is false, and the op must be made.
func (p *plan) repeat(o *op, window time.Time, now *cart.Cart) (a answer, ok bool) {
	if o.Request.Key == "" {
		return answer{}, false
	}
	e := &p.commit.Expect
	e.Version, e.Parts[cart.PartLedger] = p.view.Version, p.view.Ledger.Version
	if m := &p.memory; !m.read {
		known, err := p.view.Remembered(window)
		if err != nil {
			return answer{err: fmt.Errorf("%w: %w", storage.ErrCorrupt, err)}, true
		}
		m.known, m.read = known, true
	}
	first, found, err := o.Request.find(p.memory.known)
	return answer{cart: now, changed: first.Changed, err: err, repeat: Repeat{first.Version}}, found || err != nil
}

// note remembers an op that was made. A cart that does not exist remembers nothing.
func (p *plan) note(o *op, a *answer, now *cart.Cart) {
	if o.Request.Key != "" && a.err == nil && now.Exists() {
		_, settles := o.Verb.(cart.Settle) // a checkout is settled even if nothing is left to take
		p.memory.known = append(p.memory.known, o.Request.made(now.Version, a.changed || settles))
		p.memory.added = true
	}
}
