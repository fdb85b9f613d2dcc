package lock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

var (
	guest = cart.Key{Identifier: "guest", Instance: "default"}
	user  = cart.Key{Identifier: "user", Instance: "default"}
)

// set puts metadata keys, one change each; a value of "" removes the key.
func set(t *testing.T, c *lock.Coordinator, key cart.Key, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		v := cart.PatchMetadata{Values: []cart.Member{{Key: pairs[i], Value: []byte(pairs[i+1])}}}
		if pairs[i+1] == "" {
			v.Values[0].Value = nil
		}
		must(t)(c.Change(t.Context(), key, lock.Change{Verb: v}))
	}
}

// text is all of a cart that a swap takes along.
func text(c *cart.Cart) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v %s %d %s %d", c.ID, c.CreatedAt, c.Items.Object.Bytes(), c.Items.Version, c.Conditions.Object.Bytes(), c.Conditions.Version)
	for _, e := range c.Metadata {
		fmt.Fprintf(&b, " %s=%s %d", e.Key, e.Value, e.Version)
	}
	fmt.Fprintf(&b, " removed %v floor %d", c.Removed, c.Floor)
	return b.String()
}

// TestSwapMovesTheCart: id, creation, versions, order and tombstones go along, the version rises by one, and the target
// leaves nothing, in one step and in several, onto a cart and onto none.
func TestSwapMovesTheCart(t *testing.T) {
	for _, atomically := range []bool{true, false} {
		for _, there := range []bool{true, false} {
			t.Run(fmt.Sprintf("atomic=%v, target there=%v", atomically, there), func(t *testing.T) {
				var store storage.Store = openMemory(t)
				if !atomically {
					left := new(atomic.Int32)
					left.Store(1 << 20)
					store = split{store.(storage.Locker), left}
				}
				c := lock.New(store, options())
				must(t)(c.Change(t.Context(), guest, lock.Change{Verb: item(t, "x", 2), Scope: cart.PartItems}))
				set(t, c, guest, "z", `1`, "gone", `1`, "a", `2`, "gone", "")
				if there {
					must(t)(c.Change(t.Context(), user, lock.Change{Verb: item(t, "y", 3), Scope: cart.PartItems}))
					set(t, c, user, "old", `1`)
				}
				source, target := read(t, c, guest), read(t, c, user)
				// What the source could not hold any more, since limits were lowered, moves all the same.
				small := options()
				small.Limits.MaxItems, small.Limits.MaxDocumentBytes = 0, 1
				c.Update(small)
				r := must(t)(c.HandOver(t.Context(), guest, user, cart.StrategySwap, lock.Change{}))
				got := read(t, c, user)
				if !r.Changed || text(got) != text(source) || got.Version != source.Version+1 || got.ID == target.ID {
					t.Errorf("swapped %v\n got %d %s\nwant %d %s", r.Changed, got.Version, text(got), source.Version+1, text(source))
				}
				if text(r.Cart) != text(got) || r.Cart.Version != got.Version || !r.Cart.UpdatedAt.Equal(got.UpdatedAt) || !r.Cart.ExpiresAt.Equal(got.ExpiresAt) {
					t.Errorf("answered %d %s\nstored %d %s", r.Cart.Version, text(r.Cart), got.Version, text(got))
				}
				if k := read(t, c, guest); k.Exists() {
					t.Errorf("the source is still there: %s", text(k))
				}
				c.Update(options())
				// An etag of a part, read before, fits under the new name; that of the target's cart does not.
				tag := func(e string) cart.Precondition { return cart.Precondition{IfMatch: []string{e}} }
				if there {
					_, err := c.Change(t.Context(), user, lock.Change{Verb: item(t, "n", 1), Scope: cart.PartItems, If: tag(target.PartETag(cart.PartItems))})
					if !errors.Is(err, cart.ErrConflict) {
						t.Errorf("the target's etag: %v", err)
					}
				}
				must(t)(c.Change(t.Context(), user, lock.Change{Verb: item(t, "n", 1), Scope: cart.PartItems, If: tag(source.PartETag(cart.PartItems))}))

				// And back: the same cart, further on.
				must(t)(c.HandOver(t.Context(), user, guest, cart.StrategySwap, lock.Change{}))
				if back := read(t, c, guest); back.ID != source.ID || back.Version != source.Version+3 || quantity(t, back, "n") != 1 {
					t.Errorf("swapped back: %d %s", back.Version, text(back))
				}
			})
		}
	}
}

// TestSwapInStepsIsResumed: a swap that died after any of its steps is finished once, by whoever comes, and no two
// names ever show one id.
func TestSwapInStepsIsResumed(t *testing.T) {
	for name, resume := range map[string]func(t *testing.T, c *lock.Coordinator){
		"the same again": func(t *testing.T, c *lock.Coordinator) {
			must(t)(c.HandOver(t.Context(), guest, user, cart.StrategySwap, lock.Change{}))
		},
		"a change of the source": func(t *testing.T, c *lock.Coordinator) {
			must(t)(c.Change(t.Context(), guest, lock.Change{Verb: cart.RemoveItem{ID: "none"}, Scope: cart.PartItems}))
			must(t)(c.HandOver(t.Context(), guest, user, cart.StrategySwap, lock.Change{}))
		},
	} {
		for dies := range 4 {
			t.Run(fmt.Sprintf("%s/dies after %d commits", name, dies), func(t *testing.T) {
				store := openMemory(t)
				left := new(atomic.Int32)
				left.Store(1 << 20)
				c := lock.New(split{store, left}, options())
				must(t)(c.Change(t.Context(), guest, lock.Change{Verb: item(t, "x", 2), Scope: cart.PartItems}))
				must(t)(c.Change(t.Context(), user, lock.Change{Verb: item(t, "y", 3), Scope: cart.PartItems}))
				set(t, c, guest, "z", `1`, "a", `2`)
				source := read(t, c, guest)

				dying := new(atomic.Int32)
				dying.Store(int32(dies))
				_, err := lock.New(split{store, dying}, options()).HandOver(t.Context(), guest, user, cart.StrategySwap, lock.Change{})
				if died := errors.Is(err, errDied); died != (dies < 3) {
					t.Fatalf("swap: %v", err)
				}
				if g, u := read(t, c, guest), read(t, c, user); g.ID == u.ID || g.Exists() && g.ID != source.ID || !g.Exists() && u.ID != source.ID {
					t.Errorf("half-way the guest's is %q and the user's %q", g.ID, u.ID)
				}
				resume(t, c)
				got := read(t, c, user)
				if read(t, c, guest).Exists() || text(got) != text(source) {
					t.Errorf("guest %q, user\n got %s\nwant %s", read(t, c, guest).ID, text(got), text(source))
				}
				if resumed := dies > 0 && name == "the same again"; got.Version != source.Version+1 && resumed {
					t.Errorf("version %d, want %d", got.Version, source.Version+1)
				}
			})
		}
	}
}

// TestSwapSettlesWhatWasReceived: a cart that was received in steps of which the last is missing, and goes on in one
// step, is not received again when somebody finishes them.
func TestSwapSettlesWhatWasReceived(t *testing.T) {
	for _, strategy := range []cart.Strategy{cart.StrategySwap, cart.StrategyAddQuantities} {
		store := openMemory(t)
		left := new(atomic.Int32)
		left.Store(2) // declared and received
		far := cart.Key{Identifier: "far", Instance: "default"}
		c := lock.New(store, options())
		must(t)(c.Change(t.Context(), far, lock.Change{Verb: item(t, "x", 2), Scope: cart.PartItems}))
		if _, err := lock.New(split{store, left}, options()).HandOver(t.Context(), far, guest, strategy, lock.Change{}); !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		must(t)(c.HandOver(t.Context(), guest, user, strategy, lock.Change{}))
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		c = lock.New(store, options())
		must(t)(c.HandOver(t.Context(), far, guest, strategy, lock.Change{}))
		if f, g, u := quantity(t, read(t, c, far), "x"), quantity(t, read(t, c, guest), "x"), quantity(t, read(t, c, user), "x"); f+g != 0 || u != 2 {
			t.Errorf("%s: %d, %d and %d, want 0, 0 and 2", strategy, f, g, u)
		}
	}
}

// TestHandOverOutlivesItsSource: a source does not expire while its hand-over waits for a lock of the target.
func TestHandOverOutlivesItsSource(t *testing.T) {
	store := openMemory(t)
	left := new(atomic.Int32)
	left.Store(1 << 20)
	o := options()
	o.TTL = time.Second
	slow := &slowSteps{split: split{store, left}, T: t}
	c := lock.New(slow, o)
	first := must(t)(c.Change(t.Context(), guest, lock.Change{Verb: item(t, "x", 2), Scope: cart.PartItems})).Cart
	slow.ends = first.ExpiresAt.Add(o.TTL) // the first step, before its end, renews its life
	r := must(t)(c.HandOver(t.Context(), guest, user, cart.StrategySwap, lock.Change{}))
	if quantity(t, r.Cart, "x") != 2 {
		t.Errorf("what was handed over has expired on the way: %s", text(r.Cart))
	}
}

// slowSteps is a store that has the guest's cart read again, after the first step, when the life that it was given
// before would be over.
type slowSteps struct {
	split
	*testing.T
	ends  time.Time
	begun atomic.Bool
}

func (s *slowSteps) Commit(ctx context.Context, cs ...storage.Commit) ([]storage.Outcome, error) {
	outs, err := s.split.Commit(ctx, cs...)
	for _, w := range cs[0].Change.Writes {
		s.begun.Store(s.begun.Load() || w.Part == cart.PartTransfer)
	}
	return outs, err
}

func (s *slowSteps) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	if key == guest && s.begun.Load() {
		until(s.T, "the end of the life of the guest's cart", func() bool { return time.Now().After(s.ends) })
	}
	return s.split.Load(ctx, key)
}

// TestHandOverWaitsForOneLockOnly: where the wait for the first cart's lock takes the whole wait time, that is a lock
// timeout, and no fault of the backend.
func TestHandOverWaitsForOneLockOnly(t *testing.T) {
	left := new(atomic.Int32)
	left.Store(1 << 20)
	o := options()
	o.WaitTimeout = 50 * time.Millisecond
	c := lock.New(lateGrant{split{openMemory(t), left}}, o)
	must(t)(c.Change(t.Context(), guest, lock.Change{Verb: item(t, "x", 2), Scope: cart.PartItems}))
	if _, err := c.HandOver(t.Context(), guest, user, cart.StrategySwap, lock.Change{}); !errors.Is(err, storage.ErrLockTimeout) {
		t.Errorf("%v, want storage.ErrLockTimeout", err)
	}
	if quantity(t, read(t, c, guest), "x") != 2 {
		t.Error("the source was changed")
	}
}

// lateGrant is a store that grants each lock at the last moment.
type lateGrant struct{ split }

func (s lateGrant) Acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool) (storage.Grant, error) {
	g, err := s.split.Acquire(ctx, key, claim, queued)
	<-ctx.Done()
	return g, err
}
