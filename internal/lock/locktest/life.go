package locktest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
)

// A cart whose life is shorter than a lease on it is there until the lease ends, by way of any sidecar.
func testCartOutlivesLease(t *testing.T, w *world) {
	const life = time.Second
	brief := func() *lock.Coordinator {
		return w.with("brief", func(o *lock.Options) { o.TTL, o.LeaseDuration = life, 5*time.Minute })
	}
	a, b := brief(), brief()
	if err := w.add(a, "x", "", false); err != nil {
		t.Fatal(err)
	}
	l := w.acquire(a, items)
	if l.Cart.ExpiresAt.Before(l.Expires) {
		t.Errorf("the lease ends at %v, its cart at %v", l.Expires, l.Cart.ExpiresAt)
	}
	if l.Cart.ID == "" {
		t.Fatal("the cart has expired before the lease: a loaded machine")
	}
	renewed, err := b.RenewLease(t.Context(), key, l.Token, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	first := time.Now().Add(life)
	w.until("the first life of the cart is over", func() bool { return time.Now().After(first) })
	for _, c := range []*lock.Coordinator{a, b} {
		r, err := c.Change(t.Context(), key, lock.Change{Verb: w.item("x"), Scope: cart.PartItems, Lease: l.Token})
		if err != nil || r.Cart.ID != l.Cart.ID || r.Cart.ExpiresAt.Before(renewed.Expires) {
			t.Fatalf("under the lease until %v: %+v, %v; leased %+v", renewed.Expires, r.Cart, err, l.Cart)
		}
		if k := w.read(c); k.ID != l.Cart.ID || !k.ExpiresAt.Equal(r.Cart.ExpiresAt) {
			t.Errorf("read %+v, answered %+v", k, r.Cart)
		}
		// Others change other parts, and shorten nothing.
		r, err = c.Change(t.Context(), key, lock.Change{Verb: metadata(r.Cart.ETag()), Scope: cart.PartAll})
		if err != nil || r.Cart.ExpiresAt.Before(renewed.Expires) {
			t.Errorf("beside the lease: %+v, %v", r.Cart, err)
		}
	}
	if k := w.read(a); w.quantity(k, "x") != 3 {
		t.Errorf("%d of 3 are there", w.quantity(k, "x"))
	}
}

// A renewal without a duration keeps the lease's own, whatever is configured in the sidecar that is asked. So does a
// request for the same lease again.
func testRenewalKeepsDuration(t *testing.T, w *world) {
	const own = 10 * time.Minute // a minute is configured
	begun := time.Now()
	l := w.ask(w.a, lock.LeaseRequest{Parts: items, Wait: late, Duration: own})
	lives := func(what string, l lock.Lease, err error, want time.Duration) {
		t.Helper()
		if took := time.Since(begun); err != nil || l.Duration != want || l.Expires.Sub(begun) < want || l.Expires.Sub(begun) > want+took+time.Second {
			t.Errorf("%s: %+v, %v, want %v from %v on", what, l.Lease, err, want, begun)
		}
	}
	for _, c := range []*lock.Coordinator{w.a, w.b} {
		begun = time.Now().Truncate(time.Millisecond)
		renewed, err := c.RenewLease(t.Context(), key, l.Token, 0)
		lives("renewed", renewed, err, own)
		begun = time.Now().Truncate(time.Millisecond)
		again, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Token: l.Token})
		lives("asked again", again, err, own)
	}
	begun = time.Now().Truncate(time.Millisecond)
	renewed, err := w.b.RenewLease(t.Context(), key, l.Token, 2*own)
	lives("renewed by another", renewed, err, 2*own)
	begun = time.Now().Truncate(time.Millisecond)
	renewed, err = w.a.RenewLease(t.Context(), key, l.Token, 0)
	lives("renewed by that", renewed, err, 2*own)
	// One that is asked for without a duration has the configured one.
	begun = time.Now().Truncate(time.Millisecond)
	l, err = w.a.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: []cart.Part{cart.PartConditions}, Wait: late})
	if err != nil || l.Expires.Sub(begun) < time.Minute || l.Expires.Sub(begun) > time.Minute+late {
		t.Errorf("as configured: %+v, %v", l.Lease, err)
	}
	begun = time.Now().Truncate(time.Millisecond)
	renewed, err = w.b.RenewLease(t.Context(), key, l.Token, 0)
	lives("renewed as configured", renewed, err, time.Minute)
}

// A lease that is held by a call lives for a second at least, so that the call renews it no more often than it must.
func testHoldFloor(t *testing.T, w *world) {
	stop := errors.New("stop")
	short := w.with("short", func(o *lock.Options) { o.LeaseDuration = lock.MinLeaseDuration })
	for asked, c := range map[time.Duration]*lock.Coordinator{0: short, lock.MinLeaseDuration: w.a, time.Second: w.a, time.Minute: w.a} {
		var said []lock.Lease
		begun := time.Now().Truncate(time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := c.HoldLease(ctx, key, lock.LeaseRequest{Parts: items, Wait: late, Duration: asked}, func(l lock.Lease) error {
			said = append(said, l)
			return stop
		})
		cancel()
		w.is(err, stop, "the end")
		want := max(asked, lock.MinHold)
		if len(said) != 1 || said[0].Expires.Sub(begun) < want || said[0].Expires.Sub(begun) > want+late {
			t.Errorf("%v asked for at %v: %+v, want it to live for %v", asked, begun, said, want)
		}
	}
}
