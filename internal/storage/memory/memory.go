package memory

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Locker = (*Store)(nil)

// Store is a [storage.Locker] in memory.
type Store struct {
	closed chan struct{}

	mu     sync.Mutex
	states map[cart.Key]*storage.State
	fence  uint64 // the last that was given, of any cart
	// waiting has a channel for each Acquire under way, by token.
	waiting map[string]chan struct{}
}

// New makes an empty store.
func New() *Store {
	return &Store{
		closed:  make(chan struct{}),
		states:  map[cart.Key]*storage.State{},
		waiting: map[string]chan struct{}{},
	}
}

// Load implements [storage.Store].
func (s *Store) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if st := s.states[key]; st != nil {
		return s.settle(st, time.Now()), nil
	}
	return &cart.Cart{}, nil
}

// Commit implements [storage.Store].
func (s *Store) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	states := make([]*storage.State, len(commits))
	for i := range commits {
		states[i] = s.state(commits[i].Key, now)
	}
	outs, granted := storage.Apply(states, commits, now)
	for i := range commits {
		s.keep(commits[i].Key, states[i], now)
	}
	s.wake(granted)
	s.sweep(now)
	return outs, nil
}

// Atomic implements [storage.Store].
func (s *Store) Atomic(_, _ cart.Key) bool { return true }

// Instances implements [storage.Store]. It looks at every cart there is.
func (s *Store) Instances(ctx context.Context, identifier string) ([]string, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	var instances []string
	for key, st := range s.states {
		if key.Identifier == identifier && s.settle(st, now).Exists() {
			instances = append(instances, key.Instance)
		}
	}
	slices.Sort(instances)
	return instances, nil
}

// Flush implements [storage.Store].
func (s *Store) Flush(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	clear(s.states)
	for _, ch := range s.waiting {
		signal(ch)
	}
	return nil
}

// Ping implements [storage.Store].
func (s *Store) Ping(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	s.mu.Unlock()
	return nil
}

// Capabilities implements [storage.Store].
func (s *Store) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "Memory", Locks: true}
}

// Close implements [storage.Store]. The carts are gone then.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isClosed() {
		close(s.closed)
		clear(s.states)
	}
	return nil
}

// Acquire implements [storage.Locker].
func (s *Store) Acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool) (storage.Grant, error) {
	wake := make(chan struct{}, 1)
	for first := true; ; first = false {
		g, again, err := s.acquire(ctx, key, claim, wake)
		if g.Cart != nil || err != nil && (first && !queued || errors.Is(err, storage.ErrClosed)) {
			return g, err
		}
		if err == nil {
			timer := time.NewTimer(again)
			select {
			case <-wake:
			case <-timer.C:
			case <-ctx.Done():
			case <-s.closed:
			}
			timer.Stop()
			err = ctx.Err()
		}
		if err != nil {
			s.leave(key, claim.Token)
			if errors.Is(err, context.DeadlineExceeded) {
				return storage.Grant{}, storage.ErrLockTimeout
			}
			return storage.Grant{}, err
		}
	}
}

// acquire is one look at the queue: the cart if the claim is granted, or else
// after how long to look again if nobody wakes us.
func (s *Store) acquire(ctx context.Context, key cart.Key, claim storage.Claim, wake chan struct{}) (storage.Grant, time.Duration, error) {
	if err := s.enter(ctx); err != nil {
		return storage.Grant{}, 0, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	st := s.state(key, now)
	claimed := st.Acquire(claim, now)
	s.keep(key, st, now)
	if !claimed.Granted && !claimed.Queued {
		return storage.Grant{}, 0, storage.ErrTooLate
	}
	if claimed.Granted {
		delete(s.waiting, claim.Token)
		c := st.Cart
		lease, _ := st.Lease(claim.Token) // none for a turn
		return storage.Grant{Cart: &c, Fence: lease.Fence, Expires: lease.Expires}, 0, nil
	}
	s.waiting[claim.Token] = wake
	// A lock that ends by itself, or a waiter that dies, wakes nobody.
	again := storage.Heartbeat
	for _, h := range st.Held {
		again = min(again, h.Expires.Sub(now))
	}
	for _, w := range st.Queue {
		again = min(again, w.Alive.Sub(now))
	}
	return storage.Grant{}, again, nil
}

// leave gives up the claim of an Acquire that ends without a lock.
func (s *Store) leave(key cart.Key, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, token)
	s.abandon(key, token)
}

// Abandon implements [storage.Locker].
func (s *Store) Abandon(ctx context.Context, key cart.Key, token string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.abandon(key, token)
	return nil
}

func (s *Store) abandon(key cart.Key, token string) {
	st := s.states[key]
	if st == nil {
		return
	}
	now := time.Now()
	s.settle(st, now)
	s.wake(st.Abandon(token, now))
	s.keep(key, st, now)
}

// Lease implements [storage.Locker].
func (s *Store) Lease(ctx context.Context, key cart.Key, token string) (storage.Lease, error) {
	if err := s.enter(ctx); err != nil {
		return storage.Lease{}, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	st := s.state(key, now)
	s.keep(key, st, now) // what was granted just now has its fence by that
	return st.Lease(token)
}

// Renew implements [storage.Locker].
func (s *Store) Renew(ctx context.Context, key cart.Key, token string, lease time.Duration) (storage.Lease, error) {
	if err := s.enter(ctx); err != nil {
		return storage.Lease{}, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	st := s.state(key, now)
	s.keep(key, st, now) // as in Lease
	return st.Renew(token, lease, now)
}

// Release implements [storage.Locker].
func (s *Store) Release(ctx context.Context, key cart.Key, token string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	now := time.Now()
	st := s.state(key, now)
	granted, err := st.Release(token, now)
	s.wake(granted)
	s.keep(key, st, now)
	return err
}

// enter takes the mutex for a call, unless the store is closed or ctx has ended.
func (s *Store) enter(ctx context.Context) error {
	s.mu.Lock()
	err := ctx.Err()
	if s.isClosed() {
		err = storage.ErrClosed
	}
	if err != nil {
		s.mu.Unlock()
	}
	return err
}

func (s *Store) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// state is that of key, brought up to now; a fresh one where there is none.
func (s *Store) state(key cart.Key, now time.Time) *storage.State {
	st := s.states[key]
	if st == nil {
		return &storage.State{}
	}
	s.settle(st, now)
	return st
}

// settle brings st up to now and returns a copy of its cart.
func (s *Store) settle(st *storage.State, now time.Time) *cart.Cart {
	s.wake(st.Settle(now))
	c := st.Cart
	return &c
}

// giveFences gives numbers that rise with the clock, so that they rise from one process to the
// next as well, and by themselves where the clock does not.
func (s *Store) giveFences(st *storage.State, now time.Time) {
	st.GiveFences(func() uint64 {
		s.fence = max(s.fence+1, uint64(now.UnixMicro()))
		return s.fence
	})
}

// keep stores st, or forgets the key where there is nothing to store.
func (s *Store) keep(key cart.Key, st *storage.State, now time.Time) {
	s.giveFences(st, now)
	if st.Cart.Exists() || len(st.Held) > 0 || len(st.Queue) > 0 || len(st.Lost) > 0 {
		s.states[key] = st
	} else {
		delete(s.states, key)
	}
}

// sweep drops a few of the states that have ended. Each commit leaves at most two
// behind and looks at more, so that the dead stay a fraction of the map
// whatever its size, and no commit pays for all of them. Go starts the range of a map at a random place.
func (s *Store) sweep(now time.Time) {
	looks := 8
	for key, st := range s.states {
		s.settle(st, now)
		s.keep(key, st, now)
		if looks--; looks == 0 {
			return
		}
	}
}

func (s *Store) wake(tokens []string) {
	for _, token := range tokens {
		if ch := s.waiting[token]; ch != nil {
			signal(ch)
		}
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
