package cell

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var (
	_ storage.Locker      = (*Store)(nil)
	_ storage.Beater      = (*Store)(nil)
	_ storage.Advisor     = (*Store)(nil)
	_ storage.Auditor     = (*Store)(nil)
	_ storage.Counter     = (*Store)(nil)
	_ storage.OutsideHeap = (*Store)(nil)
	_ storage.Watcher     = (*Store)(nil)
)

// Store is a [storage.Locker] over a driver.
type Store struct {
	driver Driver
	powers any // where to look for them
	closed chan struct{}
	close  func() error
	// notifier is nil where waiters must poll.
	notifier Notifier
	// announcer is nil where others' changes are not heard of.
	announcer Announcer
	watches   storage.Watches

	mu sync.Mutex
	// waiting has a channel for each Acquire of this process, by token.
	waiting map[string]chan struct{}
}

// New makes a store of a driver, which it closes when it is closed.
func New(d Driver) *Store {
	s := &Store{driver: d, powers: d, closed: make(chan struct{}), waiting: map[string]chan struct{}{}}
	if v, ok := d.(*swapping); ok {
		s.powers = v.Swapper
	}
	s.close = sync.OnceValue(func() error {
		close(s.closed)
		return d.Close()
	})
	if n, ok := s.powers.(Notifier); ok {
		s.notifier = n
		n.Listen(s.wakeHere)
	}
	if a, ok := s.powers.(Announcer); ok {
		s.announcer = a
		a.Follow(&s.watches)
	}
	return s
}

// enter fails if the store is closed or ctx has ended.
func (s *Store) enter(ctx context.Context) error {
	select {
	case <-s.closed:
		return storage.ErrClosed
	default:
		return ctx.Err()
	}
}

// Load implements [storage.Store].
func (s *Store) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	c, err := s.load(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("load %q: %w", key, err)
	}
	return c, nil
}

func (s *Store) load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	r, now, err := s.driver.Load(ctx, key, true)
	if err != nil {
		return nil, err
	}
	r.Documents = nil // it has them
	return r.living(now)
}

// Commit implements [storage.Store].
func (s *Store) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	keys := make([]cart.Key, len(commits))
	for i := range commits {
		keys[i] = commits[i].Key
	}
	var outs []storage.Outcome
	tries := 0
	err := s.update(ctx, keys, func(now time.Time, records []*Record) (granted []string, err error) {
		made, anew := commits, false
		if tries++; len(commits) == 1 && tries <= mostRaces && records[0].State.Outdates(&commits[0]) {
			made = make([]storage.Commit, 1)
			if made[0], err = records[0].anew(&commits[0]); err != nil {
				return nil, err
			}
			anew = true
		}
		outs, granted, err = apply(records, made, now)
		if err == nil {
			outs[0].Anew = anew
		}
		return granted, err
	})
	if err != nil {
		return nil, fmt.Errorf("commit %q: %w", keys, err)
	}
	return outs, nil
}

// mostRaces is how often a change may be computed anew before it ends in a conflict. Its caller then takes a turn, so
// that a store far from the backend is not always outrun by nearer ones. If five writers race for one value and learn
// at once which value they met, each loses this often in one of forty changes.
const mostRaces = 16

// anew computes the commit again from the cart in the record.
func (r *Record) anew(c *storage.Commit) (storage.Commit, error) {
	k := r.State.Cart
	if err := r.fill(&k); err != nil {
		return storage.Commit{}, err
	}
	return c.Anew(&k), nil
}

// apply makes the commits on their records and marks those to save.
func apply(records []*Record, commits []storage.Commit, now time.Time) ([]storage.Outcome, []string, error) {
	states := make([]*storage.State, len(records))
	for i, r := range records {
		states[i] = &r.State
	}
	trails := make([][]storage.Audited, len(records))
	for i, r := range records {
		if c := &commits[i].Change; len(c.Trail) > 0 {
			trails[i] = c.Audit(&r.State.Cart) // as it is now
		}
	}
	outs, granted := storage.Apply(states, commits, now)
	for i, r := range records {
		c := &commits[i]
		if err := r.fill(outs[i].Cart); err != nil {
			return nil, nil, err
		}
		if outs[i].Status != storage.Committed {
			r.Save = outs[i].Claimed != storage.Claimed{}
			continue
		}
		r.Save = c.Change.Any() || c.Locks.Release
		r.Changed = c.Change.Alters()
		r.write(&c.Change)
		r.Audited = trails[i]
	}
	return outs, granted, nil
}

// update calls the driver's Update with settled records. It wakes the waiters that were granted a lock: those that
// change returns, and those that were next when a lock ended by itself.
func (s *Store) update(ctx context.Context, keys []cart.Key, change func(now time.Time, records []*Record) (granted []string, err error)) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	if len(keys) == 2 && (keys[0] == keys[1] || !s.Atomic(keys[0], keys[1])) || len(keys) > 2 {
		return fmt.Errorf("%w: these carts do not share an atomic step", storage.ErrUnsupported)
	}
	var granted [2][]string
	var changed [2]bool
	err := s.driver.Update(ctx, keys, func(now time.Time, records []*Record) error {
		for i, r := range records {
			granted[i] = r.begin(now)
		}
		let, err := change(now, records)
		for _, r := range records {
			if err == nil {
				err = r.finish(now)
			}
		}
		granted[0] = append(granted[0], let...)
		for i, r := range records {
			r.Granted, changed[i] = granted[i], r.Changed
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range keys {
		s.wake(keys[i], granted[i])
		if changed[i] {
			s.watches.Tell(keys[i])
		}
	}
	return nil
}

// Atomic implements [storage.Store].
func (s *Store) Atomic(a, b cart.Key) bool {
	p, ok := s.driver.(Pairer)
	return a == b || ok && p.Pairs(a, b)
}

// Instances implements [storage.Store].
func (s *Store) Instances(ctx context.Context, identifier string) ([]string, error) {
	instances, err := s.instances(ctx, identifier)
	if err != nil {
		return nil, fmt.Errorf("instances of %q: %w", identifier, err)
	}
	instances = slices.DeleteFunc(instances, func(i string) bool { return cart.Key{Identifier: identifier, Instance: i}.Reserved() })
	slices.Sort(instances)
	return instances, nil
}

func (s *Store) instances(ctx context.Context, identifier string) ([]string, error) {
	l, ok := s.powers.(Lister)
	if !ok {
		return nil, fmt.Errorf("%w: it cannot list carts", storage.ErrUnsupported)
	}
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	return l.Instances(ctx, identifier)
}

// Count implements [storage.Counter].
func (s *Store) Count(ctx context.Context, most int) (n int, more bool, err error) {
	c, ok := s.powers.(Counter)
	if !ok {
		return 0, false, fmt.Errorf("count carts: %w: it cannot find all carts", storage.ErrUnsupported)
	}
	if err = s.enter(ctx); err == nil {
		n, err = c.Count(ctx, most+1)
	}
	if err != nil {
		return 0, false, fmt.Errorf("count carts: %w", err)
	}
	return min(n, most), n > most, nil
}

// Flush implements [storage.Store].
func (s *Store) Flush(ctx context.Context) error {
	if err := s.flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	s.wakeAll() // the waiters' places in the queue are gone
	for _, key := range s.watches.Keys() {
		s.watches.Tell(key)
	}
	return nil
}

func (s *Store) flush(ctx context.Context) error {
	f, ok := s.powers.(Flusher)
	if !ok {
		return fmt.Errorf("%w: it cannot find all carts", storage.ErrUnsupported)
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	return f.Flush(ctx)
}

// Ping implements [storage.Store].
func (s *Store) Ping(ctx context.Context) error {
	if err := s.ping(ctx); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

func (s *Store) ping(ctx context.Context) error {
	if p, ok := s.powers.(Prober); ok {
		if err := s.enter(ctx); err != nil {
			return err
		}
		return p.Probe(ctx)
	}
	// No client can name a cart with an empty identifier. The token keeps probes apart that run at the same time.
	key := cart.Key{Instance: "probe-" + rand.Text()}
	turn := storage.Claim{Token: "probe", Parts: []cart.Part{cart.PartAll}, Duration: storage.WaiterTTL}
	err := s.change(ctx, key, func(state *storage.State, now time.Time) ([]string, error) {
		state.Acquire(turn, now)
		return nil, nil
	})
	if err == nil {
		err = s.abandon(ctx, key, turn.Token)
	}
	if p, ok := s.powers.(Prover); ok && err == nil {
		err = p.Prove(ctx)
	}
	return err
}

// Beat implements [storage.Beater].
func (s *Store) Beat(ctx context.Context) error {
	b, ok := s.powers.(storage.Beater)
	if !ok {
		return s.Ping(ctx)
	}
	err := s.enter(ctx)
	if err == nil {
		err = b.Beat(ctx)
	}
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// Advice implements [storage.Advisor].
func (s *Store) Advice(ctx context.Context) ([]storage.Advice, error) {
	if a, ok := s.powers.(storage.Advisor); ok {
		return a.Advice(ctx)
	}
	return nil, nil
}

// Audits implements [storage.Auditor].
func (s *Store) Audits() bool {
	a, ok := s.powers.(storage.Auditor)
	return ok && a.Audits()
}

// OutsideHeap implements [storage.OutsideHeap].
func (s *Store) OutsideHeap() int64 {
	if o, ok := s.powers.(OutsideHeap); ok {
		return o.OutsideHeap()
	}
	return 0
}

// Capabilities implements [storage.Store].
func (s *Store) Capabilities() storage.Capabilities {
	c := s.driver.Capabilities()
	c.Locks = true
	return c
}

// Close implements [storage.Store].
func (s *Store) Close() error {
	if err := s.close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
