package moving

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var (
	_ storage.Locker  = (*Store)(nil)
	_ storage.Beater  = (*Store)(nil)
	_ storage.Advisor = (*Store)(nil)
	_ storage.Auditor = (*Store)(nil)
	_ storage.Counter = (*Store)(nil)
	_ storage.Mover   = (*Store)(nil)
)

// backend is what a store must be to move from or to.
type backend interface {
	storage.Locker
	storage.Fencer
}

// Store shows the carts of two stores as those of one. Several Stores may move the same carts, in one process or in
// many.
type Store struct {
	old, new backend
	holder   string

	// moved are carts that count in the new store, and the time when that was found.
	moved memory[time.Time]
	// staying are carts that were found locked in the old store, or cannot move for another reason.
	staying memory[stay]
	queued  waiting
	walk    walk
}

// New makes a store of two others, which it closes when it is closed. holder is shown to people who look at its locks.
// Both stores must be a [storage.Fencer] and a [storage.Locker] whose locks hold.
func New(from, to storage.Store, holder string) (*Store, error) {
	s := &Store{holder: holder}
	for _, b := range []struct {
		store storage.Store
		into  *backend
	}{{from, &s.old}, {to, &s.new}} {
		var ok bool
		if *b.into, ok = b.store.(backend); !ok || !b.store.Capabilities().Locks {
			return nil, fmt.Errorf("%w: carts cannot move from or to %s, since its locks do not hold", storage.ErrUnsupported, b.store.Capabilities().Backend)
		}
	}
	return s, nil
}

// Load implements [storage.Store]. It moves nothing.
func (s *Store) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	if s.moved.has(key) {
		k, err := s.loadNew(ctx, key)
		if err != nil || k != nil {
			return k, err
		}
	}
	k, err := s.old.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	m, marked, err := storage.ParseMarker(k.Transfer)
	switch {
	case err != nil:
		return nil, err
	case marked && !m.Done:
		return frozen(k, &m), nil
	case marked:
		s.moved.add(key, time.Now())
	case k.Exists():
		return k, nil
	}
	// If the old store has nothing, not even a marker, the new one may have the cart: carts were moved that way before.
	if k, err = s.loadNew(ctx, key); k == nil && err == nil {
		k = &cart.Cart{}
	}
	return k, err
}

// loadNew returns the cart in the new store. It is nil if there is a marker, which says that the cart has moved the
// other way. Such a marker is not a cart.
func (s *Store) loadNew(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	k, err := s.new.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	_, marked, err := storage.ParseMarker(k.Transfer)
	if marked {
		s.moved.drop(key)
		return nil, err
	}
	return k, nil
}

// Commit implements [storage.Store]. The cart moves first, if it can.
func (s *Store) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	if len(commits) != 1 {
		return nil, fmt.Errorf("%w: no two carts share a step while carts move", storage.ErrUnsupported)
	}
	c := &commits[0]
	for attempt := 0; ; attempt++ {
		at, err := s.place(ctx, c.Key)
		if err != nil {
			return nil, fmt.Errorf("commit %q: %w", c.Key, err)
		}
		outs, err := at.Commit(ctx, commits...)
		if err != nil {
			return nil, err
		}
		out := &outs[0]
		if out.Status == storage.LockUnknown && at == s.new {
			if _, err := s.old.Lease(ctx, c.Key, c.Locks.Token); errors.Is(err, storage.ErrLockLost) {
				out.Status = storage.LockLost // it expired before the cart moved
			}
		}
		if out.Status == storage.Locked && c.Locks.Claim == nil && attempt < mostPasses {
			if again, err := s.passMovers(ctx, c.Key, at); err != nil {
				return nil, fmt.Errorf("commit %q: %w", c.Key, err)
			} else if again {
				continue
			}
		}
		if out.Status != storage.Conflict || !isMarked(out.Cart) {
			if out.Claimed.Queued {
				s.queued.add(claimOf(c, out).Token, at)
			}
			return outs, nil
		}
		if out.Claimed != (storage.Claimed{}) {
			giveBack(ctx, at, c.Key, c.Locks.Claim.Token)
		}
		if err := s.lookAgain(ctx, c.Key, attempt); err != nil {
			return nil, fmt.Errorf("commit %q: %w", c.Key, err)
		}
	}
}

// mostPasses bounds how often a commit lets movers pass.
const mostPasses = 3

// passMovers waits until no mover holds the cart whose lock a commit met, and reports whether one may have held it. A
// commit that asks for no lock does not expect to meet one.
func (s *Store) passMovers(ctx context.Context, key cart.Key, at backend) (bool, error) {
	if at == s.old {
		st, _ := s.staying.get(key)
		if errors.Is(st.why, errLocked) && time.Until(st.until) < stayLocked-storage.Heartbeat { // known, but not from just now
			s.staying.drop(key)
			return true, nil
		}
		return false, nil
	}
	since, ok := s.moved.get(key)
	if !ok || time.Since(since) > 2*turnTTL {
		return false, nil
	}
	turn := s.newTurn()
	turn.Parts = movers
	// It waits no longer than a mover takes, since the lock may as well be a client's lease of the whole cart.
	wait, cancel := context.WithTimeout(ctx, storage.Heartbeat)
	defer cancel()
	_, err := s.new.Acquire(wait, key, turn, false)
	giveBack(ctx, s.new, key, turn.Token)
	if errors.Is(err, storage.ErrLockTimeout) && ctx.Err() == nil {
		return false, nil
	}
	return true, err
}

// claimOf is the claim that an outcome is about.
func claimOf(c *storage.Commit, out *storage.Outcome) *storage.Claim {
	if out.Status == storage.Committed {
		return c.Locks.Again
	}
	return c.Locks.Claim
}

// Atomic implements [storage.Store]: two carts may be in two stores.
func (s *Store) Atomic(a, b cart.Key) bool { return false }

// Instances implements [storage.Store]. It reads each cart, since a marker is not a cart.
func (s *Store) Instances(ctx context.Context, identifier string) ([]string, error) {
	// The old store first: a cart that moves meanwhile is in one of the lists at least.
	old, err := s.old.Instances(ctx, identifier)
	if err != nil {
		return nil, err
	}
	all, err := s.new.Instances(ctx, identifier)
	if err != nil {
		return nil, err
	}
	all = append(all, old...)
	slices.Sort(all)
	all = slices.Compact(all)
	var there []string
	for _, instance := range all {
		k, err := s.Load(ctx, cart.Key{Identifier: identifier, Instance: instance})
		if err != nil {
			return nil, err
		}
		if k.Exists() {
			there = append(there, instance)
		}
	}
	return there, nil
}

// Count implements [storage.Counter]. In the old store it reads each cart, since a marker is not a cart. For the new
// one it takes that store's count, which is too high by the markers of an earlier move away from it.
func (s *Store) Count(ctx context.Context, most int) (n int, more bool, err error) {
	c, ok := s.new.(storage.Counter)
	if !ok {
		return 0, false, fmt.Errorf("count carts: %w: the new backend cannot find all carts", storage.ErrUnsupported)
	}
	if n, more, err = c.Count(ctx, most); err != nil || more {
		return n, more, err
	}
	err = s.pages(ctx, func(keys []cart.Key) error {
		for _, key := range keys {
			if key.Reserved() {
				continue
			}
			k, err := s.old.Load(ctx, key)
			if err != nil {
				return err
			}
			if m, marked, _ := storage.ParseMarker(k.Transfer); k.Exists() && !(marked && m.Done) {
				n++
			}
			if n > most {
				return errEnough
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return most, true, nil
	case err != nil && n > 0 && ctx.Err() != nil:
		return n, true, nil //nolint:nilerr // so many were counted in the time that there was
	case err != nil:
		return 0, false, fmt.Errorf("count carts: %w", err)
	}
	return n, false, nil
}

var errEnough = errors.New("enough")

// Flush implements [storage.Store]. It removes the markers of the old store too, which keep out sidecars that do not
// know of the move. So there must be no such sidecar any more.
func (s *Store) Flush(ctx context.Context) error {
	err := errors.Join(s.new.Flush(ctx), s.old.Flush(ctx))
	s.moved.clear()
	s.staying.clear()
	return err
}

// Ping implements [storage.Store].
func (s *Store) Ping(ctx context.Context) error { return s.both(ctx, storage.Store.Ping) }

// Beat implements [storage.Beater].
func (s *Store) Beat(ctx context.Context) error {
	return s.both(ctx, func(store storage.Store, ctx context.Context) error {
		if b, ok := store.(storage.Beater); ok {
			return b.Beat(ctx)
		}
		return store.Ping(ctx)
	})
}

func (s *Store) both(ctx context.Context, ask func(storage.Store, context.Context) error) error {
	if err := ask(s.new, ctx); err != nil {
		return err
	}
	if err := ask(s.old, ctx); err != nil {
		return fmt.Errorf("the backend that carts move from: %w", err)
	}
	return nil
}

// Advice implements [storage.Advisor].
func (s *Store) Advice(ctx context.Context) ([]storage.Advice, error) {
	var all []storage.Advice
	for _, store := range []storage.Store{s.new, s.old} {
		a, ok := store.(storage.Advisor)
		if !ok {
			continue
		}
		list, err := a.Advice(ctx)
		if err != nil {
			return nil, err
		}
		for _, advice := range list {
			if store == s.old {
				advice.Message = "The backend that carts move from: " + advice.Message
			}
			all = append(all, advice)
		}
	}
	return all, nil
}

// Audits implements [storage.Auditor]: a change is made in one of the two stores, and that one may keep an audit trail.
func (s *Store) Audits() bool {
	for _, store := range []storage.Store{s.new, s.old} {
		if a, ok := store.(storage.Auditor); ok && a.Audits() {
			return true
		}
	}
	return false
}

// OutsideHeap is the memory of both that Go's collector does not know of, in bytes.
func (s *Store) OutsideHeap() (n int64) {
	for _, store := range []storage.Store{s.new, s.old} {
		if o, ok := store.(interface{ OutsideHeap() int64 }); ok {
			n += o.OutsideHeap()
		}
	}
	return n
}

// Capabilities implements [storage.Store]: what both can do, under the name of the new one.
func (s *Store) Capabilities() storage.Capabilities {
	c, old := s.new.Capabilities(), s.old.Capabilities()
	c.Shared, c.Locks, c.Durable = c.Shared && old.Shared, c.Locks && old.Locks, c.Durable && old.Durable
	return c
}

// Close implements [storage.Store].
func (s *Store) Close() error {
	s.walk.end()
	return errors.Join(s.new.Close(), s.old.Close())
}

// frozen is the cart that a marker keeps as it is, as a reader sees it.
func frozen(k *cart.Cart, m *storage.Marker) *cart.Cart {
	if m.Expires != 0 && left(m) <= 0 {
		return &cart.Cart{}
	}
	c := *k
	c.Transfer, c.ExpiresAt = nil, m.ExpiresAt()
	return &c
}

// isMarked reports whether there is a marker instead of a cart, also one that this release cannot read.
func isMarked(k *cart.Cart) bool {
	if k == nil {
		return false
	}
	_, marked, _ := storage.ParseMarker(k.Transfer)
	return marked
}
