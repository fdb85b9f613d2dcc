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

// serving is one batch that is being committed.
type serving struct {
	batch
	c *Coordinator
	q *queue
	// own says that view is this sidecar's own last change, so that a conflict means another writer.
	own bool
	// fresh says that view was read from the backend after the changes came.
	fresh bool
}

// serve answers every op of the batch, or lets it wait for a lock. It computes the changes from the last known state
// and commits them on the condition that the state is still the same. A conflict returns the current state. A store
// whose step runs in this process computes the changes again within the step, and then nothing conflicts.
//
// In locked mode a commit that conflicts claims a turn in the same round trip. If the turn is granted, the next attempt
// cannot conflict; otherwise the claim is queued. Without this, the sidecar that wrote last would win every race,
// because its state is the newest.
func (c *Coordinator) serve(ctx context.Context, q *queue, b batch) {
	if run := b.ops[0].exclusive; run != nil {
		run(ctx)
		return
	}
	s := &serving{batch: b, c: c, q: q, own: b.view != nil, fresh: b.view != nil}
	if s.view == nil {
		s.view, s.own = c.cache.get(q.key)
		s.own = s.own && !b.beside
	}
	for s.try(ctx) {
	}
}

// try makes one attempt and reports whether there must be another one.
func (s *serving) try(ctx context.Context) (again bool) {
	if s.ops = s.c.expire(s.ops); len(s.ops) == 0 {
		s.c.release(s.q.key, s.token)
		return false
	}
	if !s.called {
		ctx = callers(ctx, s.ops)
	}
	p, err := s.plan(ctx)
	if err != nil {
		return s.fail(nil, err)
	}
	if s.fresh && s.token == "" && p.idle() {
		s.c.cache.used(s.q.key)
		v := s.view
		p.answer(s.c, storage.Outcome{Base: v.Version, ID: v.ID, CreatedAt: v.CreatedAt, UpdatedAt: v.UpdatedAt, ExpiresAt: v.ExpiresAt})
		return false
	}
	if err := spent(ctx); err != nil { // a commit sent now would fail, and look like a fault of the backend
		return s.fail(nil, err)
	}
	var anew *plan
	if !s.ops[0].forget { // a forget may have to finish a hand-over first
		p.commit.Anew = func(view *cart.Cart) storage.Commit {
			anew = s.computeAnew(p, view)
			return anew.commit
		}
	}
	s.c.cache.begin(s.q.key)
	outs, err := s.c.store.Commit(ctx, p.commit)
	if errors.Is(err, storage.ErrTooLarge) && len(s.ops) > 1 {
		return s.split(ctx, singly(s.ops))
	}
	if err != nil {
		return s.fail(p.commit.Locks.Claim, err)
	}
	if outs[0].Anew {
		p = s.adopt(anew)
	}
	switch out := outs[0]; out.Status {
	case storage.Committed:
		return s.committed(p, out)
	case storage.LockLost:
		return s.fail(nil, storage.ErrLockLost)
	case storage.LockUnknown:
		return s.fail(nil, storage.ErrLockUnknown)
	case storage.Locked:
		return s.locked(ctx, p, out)
	default:
		return s.conflicted(ctx, p, out)
	}
}

// plan computes the commit and the turns that it asks for.
func (s *serving) plan(ctx context.Context) (*plan, error) {
	o := s.c.opts.Load()
	known := s.view != nil
	if !known {
		s.view = &cart.Cart{}
	}
	if s.ops[0].forget {
		if err := s.c.settleReceived(ctx, s.view); err != nil {
			return nil, err
		}
	}
	p := s.c.compute(o, s.q.key, &s.batch, s.view)
	if l := &p.commit.Locks; known && s.c.locker != nil && s.c.mode.locking.Load() && !l.MustHold && len(l.Parts) > 0 {
		l.Claim = o.claim(l.Parts, s.token)
		if s.token != "" && s.c.cache.takesTurns(s.q.key) && !s.c.closing.Load() {
			l.Again = o.claim(l.Parts, "")
		}
	}
	return p, nil
}

// computeAnew computes p again from another view, under the same claim. It does not change s, and may run concurrently
// with it.
func (s *serving) computeAnew(p *plan, view *cart.Cart) *plan {
	b := s.batch
	anew := s.c.compute(s.c.opts.Load(), s.q.key, &b, view)
	if claim := p.commit.Locks.Claim; claim != nil && len(anew.commit.Locks.Parts) > 0 {
		again := *claim
		again.Parts = anew.commit.Locks.Parts
		anew.commit.Locks.Claim = &again
	}
	return anew
}

// adopt continues with a plan that was computed again within the step of the commit.
func (s *serving) adopt(p *plan) *plan {
	if s.own && p.view.Exists() && (p.view.ID != s.view.ID || p.view.Version > s.view.Version) {
		s.c.foreignWriter(s.q.key)
	}
	s.view, s.own, s.fresh = p.view, !s.beside, true
	return p
}

// committed answers the ops.
func (s *serving) committed(p *plan, out storage.Outcome) (again bool) {
	if s.own && out.Base != s.view.Version {
		s.c.foreignWriter(s.q.key)
	}
	after := p.answer(s.c, out)
	s.c.cache.remember(s.q.key, after, out.Base == s.view.Version && !s.beside)
	if next := p.commit.Locks.Again; out.Claimed.Queued {
		s.c.awaitTurn(s.q, nil, *next, true) // for changes that arrive until then
	} else if out.Claimed.Granted {
		s.c.release(s.q.key, next.Token)
	}
	return false
}

// conflicted continues from the state that the conflict returned.
func (s *serving) conflicted(ctx context.Context, p *plan, out storage.Outcome) (again bool) {
	if s.own && out.Cart.Exists() && (out.Cart.ID != s.view.ID || out.Cart.Version > s.view.Version) {
		s.c.foreignWriter(s.q.key)
	}
	if out.Claimed.Queued {
		s.c.awaitTurn(s.q, s.ops, *p.commit.Locks.Claim, true)
		return false
	}
	if out.Claimed.Granted {
		s.token = p.commit.Locks.Claim.Token
	}
	s.view, s.own, s.fresh = out.Cart, !s.beside, true
	s.c.cache.set(s.q.key, s.view)
	if s.view.Transfer != nil {
		if err := s.c.resume(ctx, s.q.key, s.view); err != nil {
			return s.fail(nil, err)
		}
		s.view, s.own = nil, false
	}
	return true
}

// locked lets the changes wait for the lock that their commit met. Each set of parts waits separately, so that a lock
// over the items does not block a change of the conditions.
func (s *serving) locked(ctx context.Context, p *plan, out storage.Outcome) (again bool) {
	if p.commit.Locks.MustHold {
		s.ops[0].answer(Result{}, errHeld)
		return false
	}
	if s.c.locker == nil {
		return s.fail(nil, fmt.Errorf("a lock is held that this store cannot wait for: %w", storage.ErrUnsupported))
	}
	claim := p.commit.Locks.Claim
	if s.ops = s.c.answerRepeats(ctx, s.q, s.ops); len(s.ops) == 0 {
		if out.Claimed.Queued {
			s.c.release(s.q.key, claim.Token)
		}
		return false
	}
	if sets := byParts(s.ops, p.view); len(sets) > 1 {
		if out.Claimed.Queued {
			s.c.release(s.q.key, claim.Token)
		}
		return s.split(ctx, sets)
	}
	if claim == nil {
		claim = s.c.opts.Load().claim(p.commit.Locks.Parts, s.token)
	}
	s.c.awaitTurn(s.q, s.ops, *claim, out.Claimed.Queued)
	return false
}

// split serves the ops in several batches.
func (s *serving) split(ctx context.Context, sets [][]*op) (again bool) {
	s.c.release(s.q.key, s.token)
	for _, ops := range sets {
		s.c.serve(ctx, s.q, batch{ops: ops})
	}
	return false
}

// fail answers all ops with err. The state of the backend is then unknown, so the cache drops the cart. fail gives back
// a lock that may have been granted: the one of claim if the commit had one, and otherwise the turn.
func (s *serving) fail(claim *storage.Claim, err error) (again bool) {
	s.c.cache.drop(s.q.key)
	if claim != nil {
		s.c.release(s.q.key, claim.Token)
	} else {
		s.c.release(s.q.key, s.token)
	}
	for _, o := range s.ops {
		o.answer(Result{}, err)
	}
	return false
}

func singly(ops []*op) (sets [][]*op) {
	for _, o := range ops {
		sets = append(sets, []*op{o})
	}
	return sets
}

// byParts groups ops that need the same locks.
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

func (c *Coordinator) release(key cart.Key, token string) {
	if token != "" {
		c.abandon(key, token)
	}
}

// claim asks for one turn over parts, by token or, if that is "", by a new one.
func (o *Options) claim(parts []cart.Part, token string) *storage.Claim {
	if token == "" {
		token = storage.NewToken()
	}
	return &storage.Claim{Token: token, Holder: o.Holder, Parts: parts, Duration: min(o.LeaseDuration, turnTTL)}
}
