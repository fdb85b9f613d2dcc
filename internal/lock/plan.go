package lock

import (
	"slices"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// plan is what a batch would do to a cart as it was last seen: one commit, and an answer for each op. The answers are
// right if the commit succeeds.
type plan struct {
	view    *cart.Cart
	ops     []*op
	answers []answer
	commit  storage.Commit
	locked  cart.PartSet // the same as commit.Locks.Parts, once there are many
	after   *cart.Cart
	memory  memory
}

type answer struct {
	cart    *cart.Cart
	changed bool
	err     error
	repeat  Repeat
}

// compute applies the ops of b to view, one after the other.
func (c *Coordinator) compute(o *Options, key cart.Key, b *batch, view *cart.Cart) *plan {
	p := &plan{view: view, ops: b.ops, answers: make([]answer, len(b.ops))}
	k := &p.commit
	*k = storage.Commit{Key: key, Change: storage.Change{TTL: o.TTL}, Locks: storage.Locks{Token: b.token, Release: b.token != ""}}
	k.Expect = storage.Expect{ID: view.ID, Parts: make(map[cart.Part]uint64, 1)}
	if !view.Exists() {
		k.Change.NewID = storage.NewID()
	}
	since := o.since()
	d := cart.NewDraft(view, o.Limits, k.Change.NewID)
	for i, o := range b.ops {
		if a, ok := p.repeat(o, since, d.Cart()); ok {
			p.answers[i] = a
			continue
		}
		if o.Lease != "" { // then it is the only op
			k.Locks.Token, k.Locks.MustHold, k.Locks.Release = o.Lease, true, o.Release
		}
		p.depend(o, d.Cart())
		p.answers[i] = p.apply(o, d)
		if c.audits && p.answers[i].changed {
			k.Change.Trail = append(k.Change.Trail, c.traceOf(o, d, view.Version)...)
		}
		p.note(o, &p.answers[i], d.Cart())
		if p.answers[i].err != nil && o.Lease != "" {
			k.Locks.Release = false // only a successful change gives its lease back
		}
	}
	if p.memory.added {
		_ = d.Remember(p.memory.known) // this cannot fail: the ledger was read before
	}
	if p.after = d.Cart(); k.Change.Forget {
		p.after = &cart.Cart{}
		return p
	}
	k.Change.Steps = p.after.Version - view.Version
	k.Change.Writes = writes(d, view.Version)
	return p
}

// writes returns what d has altered since the cart was at version base.
func writes(d *cart.Draft, base uint64) (ws []storage.Write) {
	for _, w := range d.Written() {
		write := storage.Write{Part: w.Part, Value: w.Value, Step: w.Version - base}
		switch w.Part {
		case cart.PartReceived:
			write.Step = 0
		case cart.PartLedger:
			write.Step = w.Version // its version is independent of the cart's
		}
		ws = append(ws, write)
	}
	return ws
}

// depend notes which locks an op needs and which versions its answer depends on. A missing part has version 0.
func (p *plan) depend(o *op, now *cart.Cart) {
	c := &p.commit
	locks := o.lockParts(now)
	for _, part := range locks {
		p.lock(part)
	}
	// The etag of the whole cart is accepted for any part. So an op with an If-Match depends on the whole cart.
	whole := len(o.If.IfMatch) > 0
	parts := make([]cart.Part, 0, len(locks)+1)
	for _, part := range append(locks, o.Scope) {
		if _, metadata := part.MetadataKey(); part == cart.PartItems || part == cart.PartConditions || metadata {
			parts = append(parts, part)
		} else if part != "" {
			whole = true
		}
	}
	if _, settles := o.Verb.(cart.Settle); settles { // it uses up an entry of the ledger
		parts = append(parts, cart.PartLedger)
	}
	for i, version := range p.view.PartVersions(parts) {
		c.Expect.Parts[parts[i]] = version
	}
	if whole {
		c.Expect.Version = p.view.Version
	}
}

// lock notes a part that must be free of other holders' locks.
func (p *plan) lock(part cart.Part) {
	const few = 16
	l := &p.commit.Locks
	switch {
	case len(l.Parts) == 1 && l.Parts[0] == cart.PartAll:
	case part == cart.PartAll:
		l.Parts = []cart.Part{cart.PartAll}
	case len(l.Parts) < few:
		if !slices.Contains(l.Parts, part) {
			l.Parts = append(l.Parts, part)
		}
	default:
		if p.locked.Len() == 0 {
			p.locked.Add(l.Parts...)
		}
		if !p.locked.Has(part) {
			p.locked.Add(part)
			l.Parts = append(l.Parts, part)
		}
	}
}

// lockParts are the parts that must be free of other holders' locks.
func (o *op) lockParts(c *cart.Cart) []cart.Part {
	if o.forget {
		return []cart.Part{cart.PartAll}
	}
	return slices.Clip(o.Verb.Parts(c))
}

func (p *plan) apply(o *op, d *cart.Draft) answer {
	if err := o.If.Check(d.Cart(), o.Scope); err != nil {
		return answer{err: err}
	}
	if o.forget {
		p.commit.Change.Forget = p.view.Exists()
		return answer{cart: &cart.Cart{}, changed: p.view.Exists()}
	}
	changed, err := d.Change(o.Verb)
	if err != nil {
		return answer{err: err}
	}
	// A change that alters nothing still renews the cart's life.
	p.commit.Change.Touch = p.commit.Change.Touch || !changed && p.view.Exists()
	return answer{cart: d.Cart(), changed: changed}
}

// idle reports whether the commit would neither write nor touch nor release.
func (p *plan) idle() bool {
	c := &p.commit
	return !c.Change.Any() && !c.Locks.Release && !c.Locks.MustHold
}

// answer answers the ops of a plan that was committed, and returns the cart as it is now.
func (p *plan) answer(c *Coordinator, out storage.Outcome) *cart.Cart {
	// Changes of other parts may have raised the version in between.
	shift := out.Base - p.view.Version
	seen := map[*cart.Cart]*cart.Cart{}
	stamp := func(k *cart.Cart) *cart.Cart {
		if !k.Exists() {
			return k
		}
		s, ok := seen[k]
		if !ok {
			s = k.Shifted(p.view.Version, shift)
			s.CreatedAt, s.UpdatedAt, s.ExpiresAt = out.CreatedAt, out.UpdatedAt, out.ExpiresAt
			seen[k] = s
		}
		return s
	}
	for i, o := range p.ops {
		a := &p.answers[i]
		if a.err != nil {
			o.answer(Result{}, a.err)
			continue
		}
		c.stats.changes.Add(1)
		o.answer(Result{Cart: stamp(a.cart), Changed: a.changed, Repeat: a.repeat}, nil)
	}
	return stamp(p.after)
}
