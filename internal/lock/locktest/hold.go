package locktest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// A lease that is held by a call lives as long as the call, and no longer.
func testHold(t *testing.T, w *world) {
	const life = 300 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := make(chan lock.Lease, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- w.a.HoldLease(ctx, key, lock.LeaseRequest{Parts: items, Wait: late, Duration: life}, func(l lock.Lease) error { said <- l; return nil })
	}()
	first := <-said
	if first.Cart == nil {
		t.Error("no cart")
	}
	for range 5 { // longer than it lives unless it is renewed
		if l := <-said; l.Token != first.Token || l.Fence != first.Fence || l.Cart != nil || !l.Expires.After(first.Expires) {
			t.Errorf("first %+v, then %+v", first, l)
		}
	}
	_, err := w.b.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items})
	w.is(err, storage.ErrLockTimeout, "while it is held")
	cancel()
	w.is(<-ended, context.Canceled, "the end")
	if _, err := w.b.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items}); err != nil {
		t.Errorf("right after the end: %v", err)
	}
	_, err = w.b.Lease(t.Context(), key, first.Token)
	w.is(err, storage.ErrLockUnknown, "its token")
	stop := errors.New("stop")
	w.is(w.a.HoldLease(t.Context(), key, lock.LeaseRequest{Parts: []cart.Part{cart.PartConditions}, Wait: late}, func(lock.Lease) error { return stop }), stop, "a client that cannot be told")
	if n := w.a.Status().Stats.LeasesHeld; n != 0 {
		t.Errorf("%d are held", n)
	}
}

// Who holds by a call is told when the lease is gone.
func testHoldIsLost(t *testing.T, w *world) {
	hold := func(life time.Duration) (string, <-chan error) {
		said, ended := make(chan lock.Lease, 100), make(chan error, 1)
		go func() {
			ended <- w.a.HoldLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: late, Duration: life}, func(l lock.Lease) error { said <- l; return nil })
		}()
		return (<-said).Token, ended
	}
	token, ended := hold(time.Hour)
	w.release(w.a, lock.Lease{Token: token})
	if err := <-ended; err != nil {
		t.Errorf("released by way of its sidecar: %v", err)
	}
	token, ended = hold(300 * time.Millisecond)
	w.release(w.b, lock.Lease{Token: token})
	w.is(<-ended, storage.ErrLockUnknown, "released by way of another")
	token, ended = hold(500 * time.Millisecond)
	if _, err := w.b.RenewLease(t.Context(), key, token, lock.MinLeaseDuration); err != nil { // as if nobody had renewed it
		t.Fatal(err)
	}
	w.is(<-ended, storage.ErrLockLost, "expired")
}

// A sidecar that stops gives back what its calls hold, at once.
func testClose(t *testing.T, w *world) {
	c := w.sidecar("stops", true)
	said, ended := make(chan lock.Lease, 100), make(chan error, 1)
	go func() {
		ended <- c.HoldLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: late, Duration: time.Hour}, func(l lock.Lease) error { said <- l; return nil })
	}()
	<-said
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Fatal(err)
	}
	w.is(<-ended, lock.ErrDraining, "the call")
	if _, err := w.b.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items}); err != nil {
		t.Errorf("after the stop: %v", err)
	}
	_, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items})
	w.is(err, lock.ErrDraining, "a request after the stop")
}
