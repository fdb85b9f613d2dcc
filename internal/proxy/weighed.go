package proxy

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
)

// weighed is a [Coordinator] that works on large carts only while there is memory for it. A call keeps its share of the
// budget until its answer is written.
//
// The coordinator is not embedded, so that a new method does not compile until its cost is decided here.
type weighed struct {
	coordinator Coordinator
	budget      *budget
}

var _ Coordinator = weighed{}

// begin waits until the call may work on the carts of keys.
func (w weighed) begin(ctx context.Context, leased bool, keys ...cart.Key) error {
	a := admissionOf(ctx)
	if a == nil {
		return nil
	}
	total, known := int64(0), true
	for _, key := range keys {
		size, ok := w.budget.sizes.of(key)
		total, known = total+size, known && ok
	}
	return a.begin(ctx, total, known, leased)
}

// saw records the size of key's cart c, and reports whether there is memory for an answer with it.
func (w weighed) saw(ctx context.Context, key cart.Key, c *cart.Cart) bool {
	size := sizeOf(c)
	w.budget.sizes.saw(key, size)
	a := admissionOf(ctx)
	return a == nil || a.learned(size)
}

// Read implements [Coordinator].
func (w weighed) Read(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	if err := w.begin(ctx, false, key); err != nil {
		return nil, err
	}
	c, err := w.coordinator.Read(ctx, key)
	if !w.saw(ctx, key, c) && err == nil {
		return nil, errBusy // next time its size is known, and it waits its turn
	}
	return c, err
}

// Change implements [Coordinator].
func (w weighed) Change(ctx context.Context, key cart.Key, ch lock.Change) (lock.Result, error) {
	if err := w.begin(ctx, ch.Lease != "", key); err != nil {
		return lock.Result{}, err
	}
	r, err := w.coordinator.Change(ctx, key, ch)
	if err == nil {
		w.saw(ctx, key, r.Cart)
	}
	return r, err
}

// Forget implements [Coordinator].
func (w weighed) Forget(ctx context.Context, key cart.Key, ch lock.Change) (lock.Result, error) {
	if err := w.begin(ctx, ch.Lease != "", key); err != nil {
		return lock.Result{}, err
	}
	r, err := w.coordinator.Forget(ctx, key, ch)
	if err == nil {
		w.saw(ctx, key, nil)
	}
	return r, err
}

// HandOver implements [Coordinator].
func (w weighed) HandOver(ctx context.Context, from, to cart.Key, strategy cart.Strategy, ch lock.Change) (lock.Result, error) {
	if err := w.begin(ctx, ch.Lease != "", from, to); err != nil {
		return lock.Result{}, err
	}
	r, err := w.coordinator.HandOver(ctx, from, to, strategy, ch)
	if err == nil {
		w.saw(ctx, to, r.Cart)
	}
	return r, err
}

// AcquireLease implements [Coordinator].
func (w weighed) AcquireLease(ctx context.Context, key cart.Key, r lock.LeaseRequest) (lock.Lease, error) {
	if err := w.begin(ctx, r.Token != "", key); err != nil {
		return lock.Lease{}, err
	}
	l, err := w.coordinator.AcquireLease(ctx, key, r)
	if err == nil {
		w.saw(ctx, key, l.Cart)
	}
	return l, err
}

// HoldLease implements [Coordinator]. Only the first message has the cart.
func (w weighed) HoldLease(ctx context.Context, key cart.Key, r lock.LeaseRequest, send func(lock.Lease) error) error {
	if err := w.begin(ctx, false, key); err != nil {
		return err
	}
	return w.coordinator.HoldLease(ctx, key, r, func(l lock.Lease) error {
		err := send(l)
		if l.Cart != nil {
			w.saw(ctx, key, l.Cart)
		}
		if a := admissionOf(ctx); a != nil {
			a.release()
		}
		return err
	})
}

// Checkout implements [Coordinator]. It needs memory for the cart and for its snapshot.
func (w weighed) Checkout(ctx context.Context, key cart.Key, r lock.CheckoutRequest) (lock.CheckoutResult, error) {
	if err := w.begin(ctx, r.Change.Lease != "", key, key); err != nil {
		return lock.CheckoutResult{}, err
	}
	res, err := w.coordinator.Checkout(ctx, key, r)
	if err == nil {
		w.sawBoth(ctx, &res)
	}
	return res, err
}

// Settle implements [Coordinator].
func (w weighed) Settle(ctx context.Context, key cart.Key, id string, outcome cart.Outcome, ch lock.Change) (lock.CheckoutResult, error) {
	if err := w.begin(ctx, ch.Lease != "", key, key); err != nil {
		return lock.CheckoutResult{}, err
	}
	res, err := w.coordinator.Settle(ctx, key, id, outcome, ch)
	if err == nil {
		w.sawBoth(ctx, &res)
	}
	return res, err
}

// sawBoth records the sizes of a cart and its snapshot.
func (w weighed) sawBoth(ctx context.Context, r *lock.CheckoutResult) {
	w.budget.sizes.saw(r.Key, sizeOf(r.Cart))
	if a := admissionOf(ctx); a != nil {
		a.learned(sizeOf(r.Cart) + sizeOf(r.Checkout.Cart))
	}
}

// GetCheckout implements [Coordinator]. It assumes that the snapshot is as large as the cart, until the size is known.
func (w weighed) GetCheckout(ctx context.Context, key cart.Key, id string) (*lock.Checkout, error) {
	if err := w.begin(ctx, false, key); err != nil {
		return nil, err
	}
	k, err := w.coordinator.GetCheckout(ctx, key, id)
	if err != nil {
		return nil, err
	}
	if a := admissionOf(ctx); a != nil && !a.learned(sizeOf(k.Cart)) {
		return nil, errBusy
	}
	return k, nil
}

// ListCheckouts implements [Coordinator]. The answer has as many snapshots as fit into it, and one more is read at a
// time.
func (w weighed) ListCheckouts(ctx context.Context, key cart.Key, visit func(*lock.Checkout) error) error {
	a := admissionOf(ctx)
	if a == nil {
		return w.coordinator.ListCheckouts(ctx, key, visit)
	}
	if err := a.begin(ctx, 0, false, false); err != nil {
		return err
	}
	total := int64(0)
	return w.coordinator.ListCheckouts(ctx, key, func(k *lock.Checkout) error {
		size := sizeOf(k.Cart)
		if !a.learned(min(total, maxAnswerBytes) + size) {
			return errBusy
		}
		total += size
		return visit(k)
	})
}

// Watch implements [Coordinator]. A stream holds memory only from a read of the cart until its events are written.
func (w weighed) Watch(ctx context.Context, key cart.Key, r lock.WatchRequest) error {
	a := admissionOf(ctx)
	if a == nil {
		return w.coordinator.Watch(ctx, key, r)
	}
	a.release()
	a.budget = w.budget // the backend, and so the budget, may have changed since the stream began
	r.Admit = func(ctx context.Context) (func(), error) {
		return a.release, w.begin(ctx, false, key)
	}
	show := r.Show
	r.Show = func(s lock.Sighting) error {
		if !s.Gone && !w.saw(ctx, key, s.Cart) {
			return lock.ErrBusy // next time its size is known, and it waits its turn
		}
		if err := show(s); err != nil {
			return err
		}
		return a.written(ctx)
	}
	return w.coordinator.Watch(ctx, key, r)
}

// The answers of the other methods are small, whatever the cart.

// ForgetAll implements [Coordinator].
func (w weighed) ForgetAll(ctx context.Context, identifier string) (int, error) {
	return w.coordinator.ForgetAll(ctx, identifier)
}

// Instances implements [Coordinator].
func (w weighed) Instances(ctx context.Context, identifier string) ([]string, error) {
	return w.coordinator.Instances(ctx, identifier)
}

// List implements [Coordinator]. It holds memory for one cart at a time, and only while it reads the cart.
func (w weighed) List(ctx context.Context, r lock.ListRequest) ([]lock.Listed, *lock.ListPlace, error) {
	r.Admit = func(ctx context.Context, key cart.Key) (func(), error) {
		size, known := w.budget.sizes.of(key)
		a := &admission{budget: w.budget}
		return a.release, a.begin(ctx, size, known, false)
	}
	return w.coordinator.List(ctx, r)
}

// Lease implements [Coordinator].
func (w weighed) Lease(ctx context.Context, key cart.Key, token string) (lock.Lease, error) {
	return w.coordinator.Lease(ctx, key, token)
}

// RenewLease implements [Coordinator].
func (w weighed) RenewLease(ctx context.Context, key cart.Key, token string, d time.Duration) (lock.Lease, error) {
	return w.coordinator.RenewLease(ctx, key, token, d)
}

// ReleaseLease implements [Coordinator].
func (w weighed) ReleaseLease(ctx context.Context, key cart.Key, token string) error {
	return w.coordinator.ReleaseLease(ctx, key, token)
}

// Flush implements [Coordinator].
func (w weighed) Flush(ctx context.Context) error { return w.coordinator.Flush(ctx) }

// Status implements [Coordinator].
func (w weighed) Status() lock.Status { return w.coordinator.Status() }
