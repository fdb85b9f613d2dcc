package lock_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// traced is a decorator that notes for whom each call is: a line with the method, the value that its context has, and
// the callers.
type traced struct {
	storage.Locker
	mu    sync.Mutex
	lines []string
}

type callerKey struct{}

// by is a context of a call that has a name.
func by(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

func (s *traced) note(ctx context.Context, method string) {
	var names []string
	for _, caller := range storage.Callers(ctx) {
		names = append(names, fmt.Sprint(caller.Value(callerKey{})))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprint(method, " as ", ctx.Value(callerKey{}), " for ", names))
}

// noted returns the lines since it was last asked.
func (s *traced) noted() (lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, s.lines = s.lines, nil
	return lines
}

func (s *traced) Commit(ctx context.Context, cs ...storage.Commit) ([]storage.Outcome, error) {
	s.note(ctx, "Commit")
	return s.Locker.Commit(ctx, cs...)
}

func (s *traced) Acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool) (storage.Grant, error) {
	s.note(ctx, "Acquire")
	return s.Locker.Acquire(ctx, key, claim, queued)
}

// A commit has the values of the call whose change it carries, also where the change stood in a queue. Where it carries
// several, it has those of the first and knows all.
func TestCommitsKnowTheirCallers(t *testing.T) {
	store := openMemory(t)
	s := &traced{Locker: store}
	gate := newGate(s)
	c := lock.New(gate, options())
	change := func(name string) {
		t.Helper()
		if _, err := c.Change(by(t.Context(), name), key, lock.Change{Verb: item(t, name, 1), Scope: cart.PartItems}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	want := func(what string, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, s.noted()); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	waiting := func(n int64) {
		t.Helper()
		until(t, fmt.Sprint(n, " changes wait"), func() bool { return c.Status().Stats.Waiting == n })
	}

	change("ann")
	want("one change", "Commit as ann for [ann]")

	var calls sync.WaitGroup
	gate.close()
	calls.Go(func() { change("ann") })
	until(t, "the first is under way", func() bool { return gate.waiting.Load() == 1 })
	for i, name := range []string{"bob", "cat", "dan"} {
		calls.Go(func() { change(name) })
		waiting(int64(i) + 1)
	}
	gate.open()
	calls.Wait()
	want("one and those that it held up", "Commit as ann for [ann]", "Commit as bob for [bob cat dan]")

	// The lock is another's: the wait for it, and the commit under it.
	turn := storage.Claim{Token: storage.NewToken(), Parts: []cart.Part{cart.PartItems}, Duration: time.Minute}
	if _, err := store.Acquire(t.Context(), key, turn, false); err != nil {
		t.Fatal(err)
	}
	calls.Go(func() { change("eve") })
	waiting(1)
	calls.Go(func() { change("fay") })
	waiting(2)
	if err := store.Abandon(t.Context(), key, turn.Token); err != nil {
		t.Fatal(err)
	}
	calls.Wait()
	want("those that wait for a lock", "Commit as eve for [eve]", "Acquire as eve for [eve]", "Commit as eve for [eve fay]")

	l, err := c.AcquireLease(by(t.Context(), "gus"), key, lock.LeaseRequest{Parts: []cart.Part{cart.PartItems}, Wait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ReleaseLease(t.Context(), key, l.Token); err != nil {
		t.Fatal(err)
	}
	want("a lease", "Acquire as gus for [gus]")

	if _, err := c.HandOver(by(t.Context(), "hal"), key, cart.Key{Identifier: "u2", Instance: key.Instance}, cart.StrategySwap, lock.Change{}); err != nil {
		t.Fatal(err)
	}
	if got := slices.Compact(s.noted()); !slices.Equal(got, []string{"Commit as hal for [hal]"}) {
		t.Errorf("a hand-over: %v", got)
	}
}
