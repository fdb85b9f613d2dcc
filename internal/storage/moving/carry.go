package moving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

const (
	// turnTTL is how long a mover that died holds up the next.
	turnTTL = 2 * time.Second
	// stayLocked is after how long a change tries again to move a cart that was locked, stayTooLarge one that the new
	// store cannot hold.
	stayLocked   = time.Second
	stayTooLarge = time.Minute
	// cleanUp bounds what is given back for a caller that may have gone.
	cleanUp = 500 * time.Millisecond
)

// stay is why a cart stays in the old store, and until when that is believed.
type stay struct {
	why   error
	until time.Time
}

// errLocked says that a lock in the old store keeps a cart there; errHandOver that a hand-over does, which the layer
// above finishes in the store where it began.
var (
	errLocked   = errors.New("a lock is held in the old backend")
	errHandOver = errors.New("a hand-over is not finished in the old backend")
)

// place is the store where a cart counts for a change that is about to be made. The cart is moved first, unless
// something keeps it where it is.
func (s *Store) place(ctx context.Context, key cart.Key) (backend, error) {
	if s.moved.has(key) {
		return s.new, nil
	}
	if st, ok := s.staying.get(key); ok && time.Now().Before(st.until) {
		return s.old, nil
	}
	staying, err := s.carry(ctx, key, 0)
	if err != nil {
		return nil, err
	}
	if staying == nil {
		return s.new, nil
	}
	st := stay{staying, time.Now().Add(stayLocked)}
	if errors.Is(staying, storage.ErrTooLarge) {
		st.until = time.Now().Add(stayTooLarge)
	}
	s.staying.add(key, st)
	return s.old, nil
}

// lookAgain forgets where a cart was, since it is no longer there, and waits a moment: another mover may be moving it.
func (s *Store) lookAgain(ctx context.Context, key cart.Key, attempt int) error {
	s.moved.drop(key)
	s.staying.drop(key)
	if attempt == 0 {
		return ctx.Err()
	}
	pause := time.Millisecond << min(attempt, 5)
	return wait(ctx, pause/2+rand.N(pause))
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// carry moves a cart, unless that was done before. staying says why the cart stays in the old store; if it is nil, the
// cart counts in the new store from now on. carry waits for a lock in the old store for as long as patience.
func (s *Store) carry(ctx context.Context, key cart.Key, patience time.Duration) (staying, err error) {
	k, err := s.old.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	m, marked, err := storage.ParseMarker(k.Transfer)
	switch {
	case err != nil:
		return nil, err
	case marked && m.Done:
		s.moved.add(key, time.Now())
		return nil, nil
	case !marked && k.Transfer != nil:
		return errHandOver, nil
	}
	c := &carriage{Store: s, key: key}
	c.turns()
	defer c.leave(ctx)
	if marked { // a mover has begun it, and nobody can use the cart before it is done
		patience = max(patience, 2*turnTTL)
	}
	staying, err = c.run(ctx, patience)
	if staying == nil && err == nil {
		s.moved.add(key, time.Now())
		s.staying.drop(key)
	}
	return staying, err
}

// movers is the part that movers lock in the new store: a metadata key that is longer than a client's can be.
var movers = []cart.Part{cart.PartMetadata(strings.Repeat("move", 64))}

// carriage is one attempt to move one cart. Each step is made under the turn of the store that it writes to, so that a
// mover which slept writes nothing: the cart may have been moved by another, and forgotten or even moved back since.
type carriage struct {
	*Store
	key cart.Key
	// here is the turn in the old store, over the whole cart. there is the turn in the new one, which is held all the
	// while. It is over a part that no client can name, so it holds off other movers, but not the clients that change
	// the cart there as soon as it counts.
	here, there         storage.Claim
	heldHere, heldThere bool
	cart                *cart.Cart // in the old store
	target              *cart.Cart // in the new store
	marker              storage.Marker
}

// turns makes new turns.
func (c *carriage) turns() {
	c.here, c.there, c.heldHere, c.heldThere = c.newTurn(), c.newTurn(), false, false
	c.there.Parts = movers
}

// leave gives back the turns that no step gave back.
func (c *carriage) leave(ctx context.Context) {
	if c.heldHere {
		giveBack(ctx, c.old, c.key, c.here.Token)
	}
	if c.heldThere {
		giveBack(ctx, c.new, c.key, c.there.Token)
	}
}

func giveBack(ctx context.Context, at backend, key cart.Key, token string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	_ = at.Abandon(ctx, key, token) // else it ends by itself
}

func (c *carriage) run(ctx context.Context, patience time.Duration) (staying, err error) {
	for attempt := 0; ; attempt++ {
		again, staying, err := c.try(ctx, patience)
		if !again || err != nil {
			return staying, err
		}
		c.leave(ctx)
		c.turns()
		if err := c.lookAgain(ctx, c.key, attempt); err != nil {
			return nil, err
		}
	}
}

// try makes the steps that remain. again says that another mover or a client interfered.
func (c *carriage) try(ctx context.Context, patience time.Duration) (again bool, staying, err error) {
	g, err := c.new.Acquire(ctx, c.key, c.there, false)
	if err != nil {
		return false, nil, err
	}
	c.heldThere, c.target = true, g.Cart
	if staying, err := c.takeOld(ctx, patience); staying != nil || err != nil {
		return false, staying, err
	}
	m, marked, err := storage.ParseMarker(c.cart.Transfer)
	c.marker = m
	switch {
	case err != nil:
		return false, nil, err
	case marked && m.Done:
		return false, nil, nil
	case !marked && c.cart.Transfer != nil:
		return false, errHandOver, nil
	}
	if ok, err := c.clear(ctx); !ok || err != nil {
		return !ok, nil, err
	}
	if !marked {
		if err := c.passFence(ctx); err != nil {
			return false, nil, err
		}
		if !c.cart.Exists() {
			ok, err := c.close(ctx)
			return !ok, nil, err
		}
		if ok, err := c.begin(ctx); !ok || err != nil {
			return !ok, nil, err
		}
	}
	ok, err := c.put(ctx)
	if errors.Is(err, storage.ErrTooLarge) {
		ok, undone := c.undo(ctx)
		return !ok, err, undone
	}
	if !ok || err != nil {
		return !ok, nil, err
	}
	if ok, err = c.finish(ctx); ok {
		c.walk.note(func(p *storage.Progress) { p.Carried++ })
	}
	return !ok, nil, err
}

// takeOld takes the turn in the old store and reads the cart under it, in one step. It makes a commit that cannot
// succeed, since no cart has that id; such a commit is granted its claim.
func (c *carriage) takeOld(ctx context.Context, patience time.Duration) (staying, err error) {
	outs, err := c.old.Commit(ctx, storage.Commit{
		Key: c.key, Expect: storage.Expect{ID: "none"},
		Locks: storage.Locks{Parts: wholeCart, Claim: &c.here},
	})
	c.heldHere = true // perhaps
	if err != nil {
		return nil, err
	}
	out := outs[0]
	if out.Claimed.Granted && out.Cart != nil {
		c.cart = out.Cart
		return nil, nil
	}
	if patience == 0 {
		return errLocked, nil
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	g, err := c.old.Acquire(wait, c.key, c.here, out.Claimed.Queued)
	switch {
	case errors.Is(err, storage.ErrLockTimeout) && ctx.Err() == nil:
		return errLocked, nil
	case err != nil:
		return nil, err
	}
	c.cart = g.Cart
	return nil, nil
}

// clear removes what the new store has under the name and does not count: the marker of a move the other way, or what
// is in the way of the cart that comes, such as the intent of a hand-over.
func (c *carriage) clear(ctx context.Context) (ok bool, err error) {
	if c.target.Transfer == nil || !isMarked(c.target) && !c.cart.Exists() {
		return true, nil
	}
	ok, err = c.commit(ctx, c.new, storage.Commit{
		Expect: storage.Expect{ID: c.target.ID, Version: c.target.Version},
		Change: storage.Change{Writes: []storage.Write{{Part: cart.PartTransfer}}, Forget: true},
		Locks:  storage.Locks{Parts: wholeCart, Token: c.there.Token, MustHold: true},
	})
	if ok {
		c.target = &cart.Cart{}
	}
	return ok, err
}

// passFence lets the fences of the new store go on where those of the old one end. From here on the old store grants no
// lease: first the turn prevents that, and then the marker.
func (c *carriage) passFence(ctx context.Context) error {
	last, err := c.old.LastFence(ctx, c.key)
	if err != nil {
		return err
	}
	now, err := c.new.LastFence(ctx, c.key)
	if err != nil || now >= last {
		return err
	}
	return c.new.RaiseFence(ctx, c.key, last)
}

// close leaves a marker where there is no cart to move.
func (c *carriage) close(ctx context.Context) (ok bool, err error) {
	ok, err = c.commit(ctx, c.old, storage.Commit{
		Change: storage.Change{
			Writes: []storage.Write{{Part: cart.PartTransfer, Value: encode(storage.Marker{Move: storage.NewID(), Done: true})}},
			Steps:  1, NewID: storage.NewID(),
		},
		Locks: storage.Locks{Parts: wholeCart, Token: c.here.Token, MustHold: true, Release: true},
	})
	c.heldHere = !ok
	return ok, err
}

// begin freezes the cart. Its expiry goes into the marker, which must not expire. Nobody changes the expiry in between,
// since the turn is held.
func (c *carriage) begin(ctx context.Context) (ok bool, err error) {
	c.marker = storage.Marker{Move: storage.NewID()}
	if at := c.cart.ExpiresAt; !at.IsZero() {
		c.marker.Expires = at.UnixMilli()
	}
	return c.commit(ctx, c.old, storage.Commit{
		Expect: storage.Expect{ID: c.cart.ID, Version: c.cart.Version},
		Change: storage.Change{Writes: []storage.Write{{Part: cart.PartTransfer, Value: encode(c.marker)}}},
		Locks:  storage.Locks{Parts: wholeCart, Token: c.here.Token, MustHold: true},
	})
}

// put stores the frozen cart in the new store, unless it is there.
func (c *carriage) put(ctx context.Context) (ok bool, err error) {
	if c.target.ID == c.cart.ID {
		return true, nil
	}
	var ttl time.Duration
	if c.marker.Expires != 0 {
		if ttl = left(&c.marker); ttl <= 0 {
			return true, nil // it has expired
		}
	}
	whole := *c.cart
	whole.Transfer, whole.ExpiresAt = nil, c.marker.ExpiresAt()
	return c.commit(ctx, c.new, storage.Commit{
		Expect: storage.Expect{ID: c.target.ID, Version: c.target.Version},
		Change: storage.Change{Place: &whole, Keep: true, TTL: ttl, Trail: trail},
		Locks:  storage.Locks{Parts: wholeCart, Token: c.there.Token, MustHold: true},
	})
}

// trail is what the audit trails of both stores say.
var trail = []storage.Trace{{Call: "Move", Kind: storage.ChangeMoved, Parts: wholeCart}}

// left is how long a cart that expires has still to live. Its clock is that of the old store.
func left(m *storage.Marker) time.Duration { return time.Until(m.ExpiresAt()) }

// finish says in the old store that the cart counts in the new one, and removes all of it there but the marker.
func (c *carriage) finish(ctx context.Context) (ok bool, err error) {
	done := c.marker
	done.Done, done.Expires = true, 0
	writes := []storage.Write{
		{Part: cart.PartTransfer, Value: encode(done)},
		{Part: cart.PartReceived},
		{Part: cart.PartLedger},
		{Part: cart.PartItems, Value: []byte("{}"), Step: 1},
		{Part: cart.PartConditions, Value: []byte("{}"), Step: 1},
	}
	for i := range c.cart.Metadata {
		writes = append(writes, storage.Write{Part: cart.PartMetadata(c.cart.Metadata[i].Key), Step: 1})
	}
	ok, err = c.commit(ctx, c.old, storage.Commit{
		Expect: storage.Expect{ID: c.cart.ID, Version: c.cart.Version},
		Change: storage.Change{Writes: writes, Steps: 1, Trail: trail},
		Locks:  storage.Locks{Parts: wholeCart, Token: c.here.Token, MustHold: true, Release: true},
	})
	c.heldHere = !ok
	return ok, err
}

// undo opens the cart again in the old store, since the new one cannot hold it.
func (c *carriage) undo(ctx context.Context) (ok bool, err error) {
	var ttl time.Duration
	if c.marker.Expires != 0 {
		ttl = max(left(&c.marker), time.Millisecond)
	}
	ok, err = c.commit(ctx, c.old, storage.Commit{
		Expect: storage.Expect{ID: c.cart.ID, Version: c.cart.Version},
		Change: storage.Change{Writes: []storage.Write{{Part: cart.PartTransfer}}, TTL: ttl},
		Locks:  storage.Locks{Parts: wholeCart, Token: c.here.Token, MustHold: true, Release: true},
	})
	c.heldHere = !ok
	return ok, err
}

// commit makes one step, and reports whether it was made. If not, another mover or a client interfered.
func (c *carriage) commit(ctx context.Context, at backend, step storage.Commit) (ok bool, err error) {
	step.Key = c.key
	outs, err := at.Commit(ctx, step)
	if err != nil {
		return false, fmt.Errorf("move: %w", err)
	}
	return outs[0].Status == storage.Committed, nil
}

func encode(m storage.Marker) []byte {
	m.Format = storage.MarkerFormat
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // it is text and numbers
	}
	return text
}
