package moving_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/moving"
)

// movable is a backend of a move.
type movable interface {
	storage.Locker
	storage.Fencer
	storage.Walker
}

// faults are what happens to the calls of one process, in the order in which it makes them.
type faults struct {
	mu     sync.Mutex
	calls  []string
	before func(n int) error // nil: the call is made
	after  func(n int) error // nil: its answer arrives
}

func (f *faults) call(what string, do func() error) error {
	f.mu.Lock()
	n := len(f.calls)
	f.calls = append(f.calls, what)
	f.mu.Unlock()
	if err := f.before(n); err != nil {
		return err
	}
	err := do()
	if lost := f.after(n); lost != nil {
		return lost
	}
	return err
}

// faulty is a backend as such a process has it.
type faulty struct {
	movable
	name string
	f    *faults
}

func (s faulty) Load(ctx context.Context, key cart.Key) (c *cart.Cart, err error) {
	err = s.f.call(s.name+" load", func() (err error) { c, err = s.movable.Load(ctx, key); return err })
	return c, err
}

func (s faulty) Commit(ctx context.Context, commits ...storage.Commit) (outs []storage.Outcome, err error) {
	err = s.f.call(s.name+" commit", func() (err error) { outs, err = s.movable.Commit(ctx, commits...); return err })
	return outs, err
}

func (s faulty) Acquire(ctx context.Context, key cart.Key, c storage.Claim, queued bool) (g storage.Grant, err error) {
	err = s.f.call(s.name+" acquire", func() (err error) { g, err = s.movable.Acquire(ctx, key, c, queued); return err })
	return g, err
}

func (s faulty) Abandon(ctx context.Context, key cart.Key, token string) error {
	return s.f.call(s.name+" abandon", func() error { return s.movable.Abandon(ctx, key, token) })
}

func (s faulty) LastFence(ctx context.Context, key cart.Key) (n uint64, err error) {
	err = s.f.call(s.name+" fence", func() (err error) { n, err = s.movable.LastFence(ctx, key); return err })
	return n, err
}

func (s faulty) RaiseFence(ctx context.Context, key cart.Key, fence uint64) error {
	return s.f.call(s.name+" raise", func() error { return s.movable.RaiseFence(ctx, key, fence) })
}

var errKilled = fmt.Errorf("%w: the process was killed", storage.ErrUnavailable)

// noFault is for the calls that are made and answered.
func noFault(int) error { return nil }

func change(key cart.Key, base *cart.Cart, items string) storage.Commit {
	return storage.Commit{
		Key: key, Expect: storage.Expect{ID: base.ID, Version: base.Version},
		Change: storage.Change{
			Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(items), Step: 1}},
			Steps:  1, NewID: fmt.Sprintf("id-of-%s-%d", key.Identifier, prefixes.Add(1)), TTL: time.Hour,
		},
		Locks: storage.Locks{Parts: []cart.Part{cart.PartItems}},
	}
}

func mustCommit(t *testing.T, s storage.Store, want storage.Status, c storage.Commit) storage.Outcome {
	t.Helper()
	outs, err := s.Commit(t.Context(), c)
	if err != nil || outs[0].Status != want {
		t.Fatalf("commit: %+v, %v; want status %d", outs, err, want)
	}
	return outs[0]
}

func mustLoad(t *testing.T, s storage.Store, key cart.Key) *cart.Cart {
	t.Helper()
	k, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return k
}

func itemsOf(k *cart.Cart) string { return string(k.Items.Object.Bytes()) }

// markerOf is "", "begun" or "done".
func markerOf(t *testing.T, s storage.Store, key cart.Key) string {
	t.Helper()
	m, marked, err := storage.ParseMarker(mustLoad(t, s, key).Transfer)
	switch {
	case err != nil:
		t.Fatal(err)
	case !marked:
		return ""
	case m.Done:
		return "done"
	}
	return "begun"
}

// TestKilled: a mover is killed before or after each call that it makes, and does not get the answer. The cart is
// whole, in one place that counts, and the next to touch it moves it.
func TestKilled(t *testing.T) {
	for name, open := range pairs {
		for _, there := range []bool{true, false} {
			for _, answered := range []string{"before", "after"} {
				t.Run(fmt.Sprintf("%s/there=%v/%s", name, there, answered), func(t *testing.T) {
					t.Parallel()
					openOld, openNew := open(t)
					o, n := openOld(), openNew()
					var running sync.WaitGroup
					defer running.Wait()
					last := false
					for at := 0; !last; at++ {
						if at > 50 {
							t.Fatal("the mover never ends")
						}
						key := cart.Key{Identifier: fmt.Sprint("u", at), Instance: "default"}
						base := &cart.Cart{}
						if there {
							mustCommit(t, o, storage.Committed, change(key, base, `{"a":1}`))
							base = mustLoad(t, o, key)
						}
						kill := func(n int) error {
							if n >= at {
								return errKilled
							}
							return nil
						}
						f := &faults{before: kill, after: noFault}
						if answered == "after" { // the call at is made, and nothing after it
							f.before, f.after = func(n int) error { return kill(n - 1) }, kill
						}
						s := movingStore(t, faulty{o, "old", f}, faulty{n, "new", f})
						outs, err := s.Commit(t.Context(), change(key, base, `{"a":2}`))
						last = err == nil
						if last && outs[0].Status != storage.Committed {
							t.Fatalf("kill %d: %+v", at, outs)
						}
						acknowledged := last
						running.Go(func() { afterKill(t, o, n, key, base, f.calls, acknowledged) })
					}
				})
			}
		}
	}
}

func afterKill(t *testing.T, o, n movable, key cart.Key, base *cart.Cart, calls []string, acknowledged bool) {
	fail := func(format string, args ...any) { t.Errorf("%v: "+format, append([]any{calls}, args...)...) }
	marker := markerOf(t, o, key)
	inOld, inNew := mustLoad(t, o, key), mustLoad(t, n, key)
	switch {
	case marker != "done" && inNew.Exists() && inNew.Version != base.Version:
		fail("the new backend has version %d before the old one says that it counts", inNew.Version)
	case marker == "" && inNew.Exists():
		fail("the cart is in both")
	case marker == "done" && !inOld.Empty():
		fail("the old backend keeps %s", itemsOf(inOld))
	}
	s, err := moving.New(o, n, "next")
	if err != nil {
		t.Error(err)
		return
	}
	now := mustLoad(t, s, key)
	switch made := now.Version == base.Version+1; {
	case now.Transfer != nil:
		fail("a reader sees the marker")
	case made && itemsOf(now) != `{"a":2}`, !made && (now.Version != base.Version || now.ID != base.ID || itemsOf(now) != itemsOf(base)):
		fail("the cart is %q at version %d: %s", now.ID, now.Version, itemsOf(now))
	case acknowledged && !made:
		fail("an acknowledged change is lost")
	case base.Exists() && !made && !now.ExpiresAt.Equal(base.ExpiresAt):
		fail("the cart expires at %v, was %v", now.ExpiresAt, base.ExpiresAt)
	}
	if marker == "begun" { // the next mover has the life of the cart from the marker
		move(t, s, o, key)
		if k := mustLoad(t, n, key); !k.ExpiresAt.Equal(base.ExpiresAt) {
			fail("the cart that was moved by the next one expires at %v, was %v", k.ExpiresAt, base.ExpiresAt)
		}
	}
	next := func() bool {
		now = mustLoad(t, s, key)
		outs, err := s.Commit(t.Context(), change(key, now, `{"a":3}`))
		switch {
		case err != nil:
			fail("the next change: %v", err)
		case outs[0].Status == storage.Locked: // while the turn of the dead one lasts
			time.Sleep(10 * time.Millisecond)
			return true
		case outs[0].Status != storage.Committed:
			fail("the next change ends with status %d", outs[0].Status)
		}
		return err == nil && outs[0].Status == storage.Committed && markerOf(t, o, key) != "done"
	}
	for deadline := time.Now().Add(patient); next(); {
		if time.Now().After(deadline) {
			fail("nobody finishes the move")
			return
		}
	}
	if k := mustLoad(t, n, key); itemsOf(k) != `{"a":3}` || k.Version != now.Version+1 || base.Exists() && k.ID != base.ID {
		fail("in the new backend it is %q at version %d: %s", k.ID, k.Version, itemsOf(k))
	}
	if k := mustLoad(t, o, key); !k.Empty() || !k.ExpiresAt.IsZero() {
		fail("the old backend has %s until %v", itemsOf(k), k.ExpiresAt)
	}
}
