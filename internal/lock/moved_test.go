package lock_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/moving"
)

// moveRecords moves the records of checkouts, and no cart, and returns a store of both places.
func moveRecords(t *testing.T, from, to storage.Store) storage.Store {
	t.Helper()
	both, err := moving.New(from, to, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = both.Close() })
	walker, _ := storage.As[storage.Walker](from)
	keys, next, err := walker.Page(t.Context(), "", 1000)
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	moved := 0
	for _, key := range keys {
		if !key.Reserved() || key.Identifier == "" {
			continue
		}
		moved++
		// A commit that cannot succeed moves what it is about all the same.
		if _, err := both.Commit(t.Context(), storage.Commit{Key: key, Expect: storage.Expect{ID: "none"}}); err != nil {
			t.Fatal(err)
		}
	}
	if moved == 0 {
		t.Fatal("there is no record to move")
	}
	return both
}

// A sidecar that has not been told of a move meets records of checkouts that have moved, of a cart that has not. It
// says so at once, and says nothing of what it did not do. One that has been told goes on.
func TestRecordsThatMoved(t *testing.T) {
	from, to := memory.New(), memory.New()
	late := lock.New(from, retaining())
	changed(t, late, key, item(t, "x", 5))
	checkOut(t, late, key, "O")
	both := moveRecords(t, from, to)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := late.GetCheckout(ctx, key, "O")
	calls := map[string]error{"a read": err, "a list": late.ListCheckouts(ctx, key, func(*lock.Checkout) error { return nil })}
	_, calls["a settlement"] = late.Settle(ctx, key, "O", cart.Ordered, lock.Change{})
	_, calls["the same checkout"] = late.Checkout(ctx, key, lock.CheckoutRequest{ID: "O", ExpiresIn: time.Hour})
	_, calls["another checkout"] = late.Checkout(ctx, key, lock.CheckoutRequest{ID: "P", ExpiresIn: time.Hour})
	for what, err := range calls {
		if !errors.Is(err, storage.ErrMoved) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := quantity(t, read(t, late, key), "x"); n != 5 {
		t.Errorf("%d are left", n)
	}
	told := lock.New(both, retaining())
	if r := settle(t, told, key, "O", cart.Ordered); !r.Settled || quantity(t, r.Cart, "x") != 0 {
		t.Errorf("settled: %+v", r)
	}
}

// A record of where carts went has moved, and the cart has not. Who has not been told of the move does not take the
// cart for gone: it would settle the order, and take nothing.
func TestMovesThatMoved(t *testing.T) {
	from, to, critical := memory.New(), memory.New(), memory.New()
	late := lock.NewHybrid(from, critical, retaining())
	changed(t, late, key, item(t, "x", 5))
	checkOut(t, late, key, "O")
	other := cart.Key{Identifier: "user", Instance: "default"}
	must(t)(late.HandOver(t.Context(), key, other, cart.StrategySwap, lock.Change{}))
	both := moveRecords(t, from, to)

	if _, err := late.Settle(t.Context(), key, "O", cart.Ordered, lock.Change{}); !errors.Is(err, storage.ErrMoved) {
		t.Errorf("by one that has not been told: %v", err)
	}
	told := lock.NewHybrid(both, critical, retaining())
	if r := settle(t, told, key, "O", cart.Ordered); !r.Settled || r.Key != other || quantity(t, r.Cart, "x") != 0 {
		t.Errorf("settled: %+v", r)
	}
}

// marking is a store whose carts and records are moved away by another sidecar behind the n-th commit.
type marking struct {
	storage.Locker
	left int
	move func()
}

func (m *marking) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	outs, err := m.Locker.Commit(ctx, commits...)
	if m.left--; m.left == 0 {
		m.move()
	}
	return outs, err
}

// When all moves away between the steps of a checkout or a settlement, the answer does not say that nothing was
// changed, and the same call to another sidecar goes on.
func TestMovedBetweenSteps(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		from, to := memory.New(), memory.New()
		both, err := moving.New(from, to, "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = both.Close() })
		first := lock.New(from, retaining())
		changed(t, first, key, item(t, "x", 5))
		checkOut(t, first, key, "N")
		late := lock.New(&marking{Locker: from, left: 1, move: func() {
			if did, err := both.Finish(t.Context()); !did || err != nil {
				t.Errorf("the walk: %v, %v", did, err)
			}
		}}, retaining())
		if ordered {
			checkOut(t, first, key, "O")
			_, err = late.Settle(t.Context(), key, "O", cart.Ordered, lock.Change{})
		} else {
			_, err = late.Checkout(t.Context(), key, lock.CheckoutRequest{ID: "O", ExpiresIn: time.Hour})
		}
		if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrMoved) {
			t.Errorf("settled=%v: %v", ordered, err)
		}
		told := lock.New(both, retaining())
		if !ordered {
			checkOut(t, told, key, "O")
		}
		changed(t, told, key, item(t, "z", 1))
		if r := settle(t, told, key, "O", cart.Ordered); quantity(t, r.Cart, "x") != 0 || quantity(t, r.Cart, "z") != 1 {
			t.Errorf("settled=%v: %s is left", ordered, r.Cart.Items.Object.Bytes())
		}
		if got := states(t, told, key); !slices.Equal(got, []string{"O ORDERED", "N OPEN"}) {
			t.Errorf("settled=%v: list %v", ordered, got)
		}
	}
}
