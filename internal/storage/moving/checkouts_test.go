package moving_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
)

// paying are the options of sidecars that check out.
func paying() lock.Options {
	return lock.Options{
		Locking: true, WaitTimeout: patient, LeaseDuration: 2 * time.Second, TTL: time.Hour, Holder: "test",
		IdempotencyWindow: time.Hour, CheckoutRetention: time.Hour, Limits: cart.DefaultLimits(),
	}
}

// buy adds to an item.
func buy(id string, n int) cart.Verb {
	item, err := cart.ParseItem("item", fmt.Appendf(nil, `{"id":%q,"quantity":%d}`, id, n), cart.DefaultLimits())
	if err != nil {
		panic(err) // it is an item
	}
	return cart.AddItem{Item: item}
}

func bought(ctx context.Context, c *lock.Coordinator, key cart.Key, id string, n int) error {
	_, err := c.Change(ctx, key, lock.Change{Verb: buy(id, n), Scope: cart.PartAll})
	return err
}

func checkOut(ctx context.Context, c *lock.Coordinator, key cart.Key, id string) error {
	_, err := c.Checkout(ctx, key, lock.CheckoutRequest{ID: id, ExpiresIn: time.Hour})
	return err
}

// quantityOf is that of an item in a cart, or in the snapshot of one.
func quantityOf(k *cart.Cart, id string) (n int) {
	text, _ := k.Items.Object.Get(id)
	if i := strings.Index(string(text), `"quantity":`); i >= 0 {
		_, _ = fmt.Sscan(strings.Trim(string(text)[i+len(`"quantity":`):], "}"), &n)
	}
	return n
}

// statesOf are the checkouts of a name, newest first.
func statesOf(ctx context.Context, c *lock.Coordinator, key cart.Key) (all []string, err error) {
	err = c.ListCheckouts(ctx, key, func(k *lock.Checkout) error {
		all = append(all, k.ID+" "+k.State(time.Now()))
		return nil
	})
	return all, err
}

// hybrids are where carts move from and to, and where their checkouts are.
var hybrids = []struct{ from, to, critical string }{
	{"redis", "postgres", "mariadb"},
	{"mariadb", "redis", "postgres"},
}

// A sidecar that moves carts, and has checkouts in a backend of their own, is killed before or after each call of any
// of the three backends, and does not get the answer. The next sidecar takes what was ordered, once, from the cart
// where it is now.
func TestCheckoutsKilledWhileCartsMove(t *testing.T) {
	for _, h := range hybrids {
		for _, settling := range []bool{true, false} {
			for _, answered := range []string{"before", "after"} {
				t.Run(fmt.Sprintf("%s to %s and %s/settling=%v/%s", h.from, h.to, h.critical, settling, answered), func(t *testing.T) {
					t.Parallel()
					o, n := backend(t, h.from)(t, "cart").(movable), backend(t, h.to)(t, "cart").(movable)
					critical := backend(t, h.critical)(t, "cart").(movable)
					late := lock.NewHybrid(o, critical, paying())
					both := movingStore(t, o, n)
					next := lock.NewHybrid(both, critical, paying())
					var (
						running sync.WaitGroup
						keys    []cart.Key
					)
					defer running.Wait()
					for at, last := 0, false; !last; at++ {
						if at > 100 {
							t.Fatal("it never ends")
						}
						key := cart.Key{Identifier: fmt.Sprint("u", at), Instance: "default"}
						err := bought(t.Context(), late, key, "x", 5)
						if settling && err == nil {
							err = errors.Join(checkOut(t.Context(), late, key, "O"), bought(t.Context(), late, key, "x", 2), bought(t.Context(), late, key, "z", 1))
						}
						if err != nil {
							t.Fatal(err)
						}
						f := killedAt(at, answered == "after")
						dying := lock.NewHybrid(movingStore(t, faulty{o, "old", f}, faulty{n, "new", f}), faulty{critical, "critical", f}, paying())
						if settling {
							_, err = dying.Settle(t.Context(), key, "O", cart.Ordered, lock.Change{})
						} else {
							err = checkOut(t.Context(), dying, key, "O")
						}
						last = err == nil
						keys = append(keys, key)
						running.Go(func() {
							if err := finishOrder(t.Context(), next, key, settling); err != nil {
								t.Errorf("killed at call %d: %v", at, err)
							}
						})
					}
					running.Wait()
					if err := walkAll(t, both); err != nil { // the turn of a dead one may have kept carts where they were
						t.Fatal(err)
					}
					only := lock.NewHybrid(n, critical, paying())
					for at, key := range keys {
						if err := checkOrder(t.Context(), only, key); err != nil || markerOf(t, o, key) != "done" {
							t.Errorf("killed at call %d: in the new backend: %v", at, err)
						}
					}
				})
			}
		}
	}
}

// killedAt is the fate of a process that is killed at its call of that number.
func killedAt(at int, answer bool) *faults {
	kill := func(n int) error {
		if n >= at {
			return errKilled
		}
		return nil
	}
	if answer { // the call is made, and nothing after it
		return &faults{before: func(n int) error { return kill(n - 1) }, after: kill}
	}
	return &faults{before: kill, after: noFault}
}

// finishOrder does what a shop does after a call that was not answered.
func finishOrder(ctx context.Context, next *lock.Coordinator, key cart.Key, settled bool) error {
	if !settled {
		err := errors.Join(checkOut(ctx, next, key, "O"), bought(ctx, next, key, "x", 2), bought(ctx, next, key, "z", 1))
		if err != nil {
			return err
		}
	}
	if _, err := next.Settle(ctx, key, "O", cart.Ordered, lock.Change{}); err != nil {
		return err
	}
	if r, err := next.Settle(ctx, key, "O", cart.Ordered, lock.Change{}); err != nil || r.Settled {
		return fmt.Errorf("settled again: %v, %w", r.Settled, err)
	}
	return checkOrder(ctx, next, key)
}

// checkOrder checks that the order was taken once, and nothing else.
func checkOrder(ctx context.Context, c *lock.Coordinator, key cart.Key) error {
	k, err := c.Read(ctx, key)
	if err != nil {
		return err
	}
	if quantityOf(k, "x") != 2 || quantityOf(k, "z") != 1 {
		return fmt.Errorf("left is %s", itemsOf(k))
	}
	if list, err := statesOf(ctx, c, key); err != nil || !slices.Equal(list, []string{"O ORDERED"}) {
		return fmt.Errorf("the list is %v, %w", list, err)
	}
	return nil
}
