package lock_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// trips notes every call of a store, in order: each is a round trip at least.
type trips struct {
	storage.Locker
	apart bool // two carts share no step

	mu    sync.Mutex
	calls []string
}

func (s *trips) note(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

// taken are the calls since it was asked last, once no call is under way.
func (s *trips) taken(t *testing.T, c *lock.Coordinator) string {
	t.Helper()
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := strings.Join(s.calls, " ")
	s.calls = nil
	return calls
}

func (s *trips) Unwrap() storage.Store { return s.Locker }

func (s *trips) Atomic(a, b cart.Key) bool { return a == b || !s.apart }

func (s *trips) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	s.note("load")
	return s.Locker.Load(ctx, key)
}

func (s *trips) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	s.note("commit")
	return s.Locker.Commit(ctx, commits...)
}

func (s *trips) Acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool) (storage.Grant, error) {
	s.note("acquire")
	return s.Locker.Acquire(ctx, key, claim, queued)
}

func (s *trips) Abandon(ctx context.Context, key cart.Key, token string) error {
	s.note("abandon")
	return s.Locker.Abandon(ctx, key, token)
}

func (s *trips) Lease(ctx context.Context, key cart.Key, token string) (storage.Lease, error) {
	s.note("lease")
	return s.Locker.Lease(ctx, key, token)
}

func (s *trips) Renew(ctx context.Context, key cart.Key, token string, d time.Duration) (storage.Lease, error) {
	s.note("renew")
	return s.Locker.Renew(ctx, key, token, d)
}

func (s *trips) Release(ctx context.Context, key cart.Key, token string) error {
	s.note("release")
	return s.Locker.Release(ctx, key, token)
}

// TestTripsOfLeases: what a lease costs in calls of the backend.
func TestTripsOfLeases(t *testing.T) {
	items := []cart.Part{cart.PartItems}
	for name, test := range map[string]struct {
		call func(t *testing.T, here, there *lock.Coordinator, held lock.Lease) error
		held bool // a lease is there, acquired here
		want string
	}{
		"acquired": {func(t *testing.T, here, _ *lock.Coordinator, _ lock.Lease) error {
			_, err := here.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: -1})
			return err
		}, false, "acquire"},
		"acquired, waiting for nobody": {func(t *testing.T, here, _ *lock.Coordinator, _ lock.Lease) error {
			_, err := here.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items})
			return err
		}, false, "commit acquire"},
		"acquired again where it is known": {func(t *testing.T, here, _ *lock.Coordinator, l lock.Lease) error {
			_, err := here.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Token: l.Token})
			return err
		}, true, "renew load"},
		"acquired again where it is not": {func(t *testing.T, _, there *lock.Coordinator, l lock.Lease) error {
			_, err := there.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Token: l.Token})
			return err
		}, true, "lease renew load"},
		"renewed": {func(t *testing.T, here, _ *lock.Coordinator, l lock.Lease) error {
			_, err := here.RenewLease(t.Context(), key, l.Token, 0)
			return err
		}, true, "renew"},
		"used and released by a change": {func(t *testing.T, here, _ *lock.Coordinator, l lock.Lease) error {
			_, err := here.Change(t.Context(), key, lock.Change{Verb: item(t, "y", 1), Scope: cart.PartItems, Lease: l.Token, Release: true})
			return err
		}, true, "commit"},
		"held by a call": {func(t *testing.T, here, _ *lock.Coordinator, _ lock.Lease) error {
			ctx, cancel := context.WithCancel(t.Context())
			err := here.HoldLease(ctx, key, lock.LeaseRequest{Parts: items, Wait: -1}, func(lock.Lease) error { cancel(); return nil })
			if ctx.Err() != nil && t.Context().Err() == nil {
				return nil
			}
			return err
		}, false, "acquire release"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &trips{Locker: openMemory(t)}
			here, there := lock.New(s, options()), lock.New(s, options())
			must(t)(add(t, here, "x"))
			var held lock.Lease
			if test.held {
				l, err := here.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: -1})
				if err != nil {
					t.Fatal(err)
				}
				held = l
			}
			s.calls = nil
			if err := test.call(t, here, there, held); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, s.taken(t, here)); d != "" {
				t.Errorf("calls (-want +got):\n%s", d)
			}
		})
	}
}

// TestTripsOfHandOvers: what a hand-over costs in calls of the backend, where both carts share a step and where they do
// not, by a sidecar that knows them and by one that does not.
func TestTripsOfHandOvers(t *testing.T) {
	const merge, swap = cart.StrategyAddQuantities, cart.StrategySwap
	for _, test := range []struct {
		name     string
		apart    bool
		strategy cart.Strategy
		knows    string // of which carts the sidecar has the last state: "both", "neither", or "an old one of the target"
		under    bool   // a lease of the source, which is given back
		nothing  bool   // the source is empty
		want     string
	}{
		{"a merge of known carts", false, merge, "both", false, false, "commit"},
		{"a merge of unknown carts", false, merge, "neither", false, false, "load load commit"},
		{"a merge into a cart that has changed", false, merge, "an old one of the target", false, false, "commit commit"},
		{"a merge under a lease", false, merge, "both", true, false, "commit"},
		{"a swap of known carts", false, swap, "both", false, false, "load commit"},
		{"a swap of unknown carts", false, swap, "neither", false, false, "load load commit"},
		{"a merge of nothing", false, merge, "neither", false, true, "load load"},
		{"a merge in steps", true, merge, "both", false, false, "acquire acquire commit commit commit"},
		{"a merge in steps of unknown carts", true, merge, "neither", false, false, "acquire acquire commit commit commit"},
		{"a swap in steps", true, swap, "neither", false, false, "acquire acquire commit commit commit"},
		{"a merge in steps under a lease", true, merge, "both", true, false, "acquire load commit commit commit"},
	} {
		run := func(t *testing.T, store storage.Locker) {
			s := &trips{Locker: store, apart: test.apart}
			first, other := lock.New(s, options()), lock.New(s, options())
			one := lock.Change{Verb: item(t, "x", 1), Scope: cart.PartItems}
			if !test.nothing {
				must(t)(first.Change(t.Context(), guest, one))
			}
			must(t)(first.Change(t.Context(), user, one))
			c := first
			switch test.knows {
			case "neither":
				c = other
			case "an old one of the target":
				must(t)(other.Change(t.Context(), user, one))
			}
			var ch lock.Change
			if test.under {
				l, err := c.AcquireLease(t.Context(), guest, lock.LeaseRequest{Parts: []cart.Part{cart.PartItems}, Wait: -1})
				if err != nil {
					t.Fatal(err)
				}
				ch = lock.Change{Lease: l.Token, Release: true}
			}
			before := read(t, lock.New(s.Locker, options()), user)
			s.calls = nil
			r := must(t)(c.HandOver(t.Context(), guest, user, test.strategy, ch))
			if d := cmp.Diff(test.want, s.taken(t, c)); d != "" {
				t.Errorf("calls (-want +got):\n%s", d)
			}

			// It is done all the same, and the answer is what stands there.
			now := lock.New(s.Locker, options())
			want := 1 + quantity(t, before, "x")
			if test.nothing || test.strategy == swap {
				want = 1
			}
			if got := quantity(t, read(t, now, user), "x"); got != want || r.Changed == test.nothing {
				t.Errorf("the user has %d, not %d; changed: %v", got, want, r.Changed)
			}
			if d := cmp.Diff(stands(read(t, now, user)), stands(r.Cart)); d != "" {
				t.Errorf("answer (-stands there +answered):\n%s", d)
			}
			if read(t, now, guest).Exists() {
				t.Error("the source is still there")
			}
			must(t)(now.Change(t.Context(), guest, one)) // no lock is left on either
			must(t)(now.Change(t.Context(), user, one))
			if n := now.Status().Stats.Acquired; n != 0 {
				t.Errorf("%d of the changes after it met a lock", n)
			}
		}
		t.Run(test.name, func(t *testing.T) { run(t, openMemory(t)) })
		t.Run(test.name+", on Redis", func(t *testing.T) { run(t, sharedBackends["redis"](t)().(storage.Locker)) })
	}
}

// stands is all that clients see of a cart.
func stands(k *cart.Cart) string {
	return fmt.Sprint(text(k), k.Version, k.UpdatedAt, k.ExpiresAt)
}

// TestGuessesAreProved: what the sidecar remembers of two carts is not enough to refuse a hand-over or to say that
// there is nothing to move.
func TestGuessesAreProved(t *testing.T) {
	for name, test := range map[string]struct {
		knows, does []lock.Change // of the source: what the sidecar remembers, and what another one did since
		ch          func(k *cart.Cart) lock.Change
	}{
		"nothing to move": {
			[]lock.Change{{Verb: item(t, "x", 1)}, {Verb: cart.RemoveItem{ID: "x"}}}, []lock.Change{{Verb: item(t, "x", 1)}},
			func(*cart.Cart) lock.Change { return lock.Change{} },
		},
		"a condition that does not hold": {
			[]lock.Change{{Verb: item(t, "x", 1)}}, []lock.Change{{Verb: item(t, "x", 1)}},
			func(k *cart.Cart) lock.Change {
				return lock.Change{If: cart.Precondition{IfMatch: []string{k.ETag()}}}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := openMemory(t)
			c, other := lock.New(store, options()), lock.New(store, options())
			for _, ch := range test.knows {
				ch.Scope = cart.PartItems
				must(t)(c.Change(t.Context(), guest, ch))
			}
			must(t)(c.Change(t.Context(), user, lock.Change{Verb: item(t, "y", 1), Scope: cart.PartItems}))
			for _, ch := range test.does {
				ch.Scope = cart.PartItems
				must(t)(other.Change(t.Context(), guest, ch))
			}
			r := must(t)(c.HandOver(t.Context(), guest, user, cart.StrategyAddQuantities, test.ch(read(t, other, guest))))
			if !r.Changed || quantity(t, r.Cart, "x") == 0 {
				t.Errorf("changed: %v, the user has %d", r.Changed, quantity(t, r.Cart, "x"))
			}
		})
	}
}

// TestWhatWasLetInIsFinished: a hand-over takes several queues, and a coordinator that closes meanwhile lets it have
// them all.
func TestWhatWasLetInIsFinished(t *testing.T) {
	gate := newGate(openMemory(t))
	c := lock.New(gate, options())
	must(t)(c.Change(t.Context(), guest, lock.Change{Verb: item(t, "x", 1), Scope: cart.PartItems}))
	gate.close()
	var wg sync.WaitGroup
	wg.Go(func() {
		must(t)(c.Change(t.Context(), guest, lock.Change{Verb: item(t, "x", 1), Scope: cart.PartItems}))
	})
	until(t, "a change is at the backend", func() bool { return gate.waiting.Load() == 1 })
	wg.Go(func() {
		if _, err := c.HandOver(t.Context(), guest, user, cart.StrategySwap, lock.Change{}); err != nil {
			t.Errorf("the hand-over: %v", err)
		}
	})
	until(t, "the hand-over waits", func() bool { return c.Status().Stats.Waiting == 1 })
	wg.Go(func() {
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	until(t, "the coordinator closes", func() bool {
		_, err := c.Instances(t.Context(), "guest")
		return err != nil
	})
	gate.open()
	wg.Wait()
}
