package lock_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/lock/locktest"
	"github.com/sidecart/sidecart/internal/storage"
)

func TestLeases(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		locktest.Run(t, func(t *testing.T) func() storage.Locker {
			s := openMemory(t)
			return func() storage.Locker { return s }
		})
	})
	for name, open := range sharedBackends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			locktest.Run(t, func(t *testing.T) func() storage.Locker {
				next := open(t)
				return func() storage.Locker { return next().(storage.Locker) }
			})
		})
	}
}

// A hand-over in steps under a lease of its source: the lease stands from the first step on, whatever happens in
// between, and a change in steps that died is finished under it.
func TestHandOverInStepsUnderLease(t *testing.T) {
	to := cart.Key{Identifier: "user", Instance: "default"}
	for dies := range 4 {
		for _, parts := range [][]cart.Part{{cart.PartAll}, {cart.PartItems}} {
			t.Run(fmt.Sprintf("dies after %d commits, lease of %s", dies, parts), func(t *testing.T) {
				store := openMemory(t)
				left := new(atomic.Int32)
				left.Store(1 << 20)
				c := lock.New(split{store, left}, options())
				must(t)(add(t, c, "x"))
				l, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: parts, Wait: time.Second})
				if err != nil {
					t.Fatal(err)
				}
				left.Store(int32(dies))
				ch := lock.Change{Lease: l.Token, Release: true}
				if _, err = c.HandOver(t.Context(), key, to, cart.StrategyAddQuantities, ch); errors.Is(err, errDied) != (dies < 3) {
					t.Fatalf("hand-over: %v", err)
				}
				left.Store(1 << 20)
				if dies < 3 {
					if _, err := c.Lease(t.Context(), key, l.Token); err != nil {
						t.Fatalf("the lease of a hand-over that was not made: %v", err)
					}
					must(t)(c.HandOver(t.Context(), key, to, cart.StrategyAddQuantities, ch))
				}
				if _, err := c.Lease(t.Context(), key, l.Token); !errors.Is(err, storage.ErrLockUnknown) {
					t.Errorf("after it: %v", err)
				}
				if g, u := quantity(t, read(t, c, key), "x"), quantity(t, read(t, c, to), "x"); g != 0 || u != 1 {
					t.Errorf("the source has %d and the target %d", g, u)
				}
			})
		}
	}
}

// What is done under a lease is served first also where it had to queue for a moment: those before it in the queue may
// be waiting for that lease.
func TestQueuedChangeUnderLeasePassesWaiters(t *testing.T) {
	for name, wait := range map[string]func(t *testing.T, c *lock.Coordinator, early bool) error{
		"a change": func(t *testing.T, c *lock.Coordinator, early bool) error {
			if !early {
				return nil
			}
			_, err := add(t, c, "x")
			return err
		},
		"a hand-over": func(t *testing.T, c *lock.Coordinator, early bool) error {
			if early {
				return nil
			}
			_, err := c.HandOver(t.Context(), key, cart.Key{Identifier: "u2", Instance: "default"}, cart.StrategySwap, lock.Change{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			gate := newGate(openMemory(t))
			c := lock.New(gate, options())
			must(t)(add(t, c, "x"))
			l, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: []cart.Part{cart.PartItems}, Wait: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			under := func(release bool) (lock.Result, error) {
				return c.Change(t.Context(), key, lock.Change{Verb: item(t, "y", 1), Scope: cart.PartItems, Lease: l.Token, Release: release})
			}
			var wg sync.WaitGroup
			waiting := int64(0)
			begin := func(early bool) {
				wg.Go(func() {
					if err := wait(t, c, early); err != nil {
						t.Error(err)
					}
				})
			}
			if name == "a change" {
				begin(true)
				waiting++
				until(t, "it waits for the lease", func() bool { return c.Status().Stats.Waiting == waiting })
			}
			gate.close()
			start := time.Now()
			wg.Go(func() { _, _ = under(false) })
			until(t, "the first is under way", func() bool { return gate.waiting.Load() == 1 })
			if name == "a hand-over" {
				begin(false)
				waiting++
				until(t, "it waits in the queue", func() bool { return c.Status().Stats.Waiting == waiting })
			}
			done := make(chan error, 1)
			go func() { _, err := under(true); done <- err }()
			waiting++
			until(t, "the second waits in the queue", func() bool { return c.Status().Stats.Waiting == waiting })
			gate.open()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("after %s", took)
			}
			wg.Wait()
		})
	}
}
