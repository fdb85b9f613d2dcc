package locktest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// The holder of a lease may ask for it again, through any sidecar, but not for more parts.
func testReentrancy(t *testing.T, w *world) {
	l := w.ask(w.a, lock.LeaseRequest{Parts: []cart.Part{cart.PartItems, cart.PartConditions}, Wait: late, Duration: 2 * late, Holder: "me"})
	for _, c := range []*lock.Coordinator{w.a, w.b} {
		again, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Token: l.Token, Duration: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if again.Token != l.Token || again.Fence != l.Fence || again.Expires.Before(l.Expires) || len(again.Parts) != 2 || again.Holder != "me" || again.Cart == nil {
			t.Errorf("first %+v, then %+v", l, again)
		}
		_, err = c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: whole, Token: l.Token})
		w.is(err, cart.ErrInvalid, "more than it holds")
	}
	w.release(w.b, l)
	_, err := w.a.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Token: l.Token})
	w.is(err, storage.ErrLockUnknown, "again after the release")
}

// A wait ends with its time, and one of no time at once.
func testTimeouts(t *testing.T, w *world) {
	l := w.acquire(w.a, items)
	for _, c := range []*lock.Coordinator{w.a, w.b} {
		const wait = 100 * time.Millisecond
		start := time.Now()
		_, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: whole, Wait: wait})
		w.is(err, storage.ErrLockTimeout, "a lease that is held")
		if took := time.Since(start); took < wait || took > wait+late/5 {
			t.Errorf("after %s", took)
		}
		start = time.Now()
		_, err = c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: whole})
		w.is(err, storage.ErrLockTimeout, "without waiting")
		if took := time.Since(start); took > late/5 {
			t.Errorf("without waiting: after %s", took)
		}
		if s := c.Status().Stats; s.LeaseTimeouts != 2 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	}
	w.release(w.a, l)
	// Those who gave up leave the queue a moment later.
	w.until("free without waiting", func() bool {
		_, err := w.b.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: whole})
		return err == nil
	})
}

// A token's lease is held, lost or unknown.
func testUnknownAndLost(t *testing.T, w *world) {
	every := func(what, token string, want error) {
		t.Helper()
		for _, c := range []*lock.Coordinator{w.a, w.b} {
			before := w.read(c)
			_, err := c.Lease(t.Context(), key, token)
			w.is(err, want, what+": status")
			_, err = c.RenewLease(t.Context(), key, token, time.Minute)
			w.is(err, want, what+": renew")
			w.is(c.ReleaseLease(t.Context(), key, token), want, what+": release")
			w.is(w.add(c, "x", token, false), want, what+": change")
			w.is(w.add(c, "x", token, true), want, what+": change and release")
			_, err = c.Forget(t.Context(), key, lock.Change{Lease: token})
			w.is(err, want, what+": forget")
			_, err = c.HandOver(t.Context(), key, cart.Key{Identifier: "u2", Instance: "default"}, cart.StrategySwap, lock.Change{Lease: token})
			w.is(err, want, what+": swap")
			_, err = c.HandOver(t.Context(), key, key, cart.StrategySwap, lock.Change{Lease: token, Release: true})
			w.is(err, want, what+": swap onto itself")
			if after := w.read(c); after.Version != before.Version || after.ID != before.ID {
				t.Errorf("%s: the cart was changed", what)
			}
		}
	}
	if err := w.add(w.a, "x", "", false); err != nil {
		t.Fatal(err)
	}
	every("never was", storage.NewToken(), storage.ErrLockUnknown)
	every("no token", "x", storage.ErrLockUnknown)
	l := w.acquire(w.a, items)
	w.release(w.b, l)
	every("released", l.Token, storage.ErrLockUnknown)
	l = w.acquire(w.a, items)
	if err := w.add(w.b, "y", l.Token, true); err != nil {
		t.Fatal(err)
	}
	every("released by a change", l.Token, storage.ErrLockUnknown)
	other := cart.Key{Identifier: "u1", Instance: "other"}
	_, err := w.a.Lease(t.Context(), other, w.acquire(w.a, []cart.Part{cart.PartConditions}).Token)
	w.is(err, storage.ErrLockUnknown, "on another cart")

	expired := w.ask(w.a, lock.LeaseRequest{Parts: items, Wait: late, Duration: lock.MinLeaseDuration})
	w.until("its end", func() bool {
		_, err := w.a.Lease(t.Context(), key, expired.Token)
		return errors.Is(err, storage.ErrLockLost)
	})
	every("expired", expired.Token, storage.ErrLockLost)
	next := w.acquire(w.b, items)
	every("expired and taken", expired.Token, storage.ErrLockLost)
	w.release(w.b, next)
	every("expired, taken and free", expired.Token, storage.ErrLockLost)
}

// Fences only rise, through any sidecar and whatever becomes of the cart.
func testFences(t *testing.T, w *world) {
	last := uint64(0)
	for i := range 60 {
		c := []*lock.Coordinator{w.a, w.b}[i%2]
		l := w.acquire(c, [][]cart.Part{items, whole, {cart.PartMetadata("k")}}[i%3])
		if l.Fence <= last || l.Fence >= 1<<53 {
			t.Fatalf("fence %d after %d", l.Fence, last)
		}
		last = l.Fence
		switch i % 5 {
		case 0:
			if _, err := c.Forget(t.Context(), key, lock.Change{Lease: l.Token, Release: true}); err != nil {
				t.Fatal(err)
			}
			continue
		case 1:
			if err := c.Flush(t.Context()); err == nil {
				continue
			} else if !errors.Is(err, storage.ErrUnsupported) { // a store that cannot find all carts says so
				t.Fatal(err)
			}
		}
		w.release(c, l)
	}
}

// Others who wait for a lease, in the holder's own sidecar too, do not stop its holder.
func testHolderPassesWaiters(t *testing.T, w *world) {
	l := w.acquire(w.a, items)
	var wg sync.WaitGroup
	for _, c := range []*lock.Coordinator{w.a, w.b} {
		for i := range 3 {
			wg.Go(func() {
				if i > 0 {
					if err := w.add(c, "x", "", false); err != nil {
						t.Error(err)
					}
					return
				}
				l, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: whole, Wait: 4 * late})
				if err != nil {
					t.Error(err)
				} else if err := c.ReleaseLease(t.Context(), key, l.Token); err != nil {
					t.Error(err)
				}
			})
			w.waiting(c, int64(i+1))
		}
	}
	start := time.Now()
	for i := range 10 {
		c := []*lock.Coordinator{w.a, w.b}[i%2]
		if err := w.add(c, "x", l.Token, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.a.RenewLease(t.Context(), key, l.Token, time.Minute); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > late {
		t.Errorf("ten changes under the lease took %s", took)
	}
	if n := w.quantity(w.read(w.a), "x"); n != 10 {
		t.Errorf("others got in: %d", n)
	}
	w.release(w.a, l)
	wg.Wait()
	if n := w.quantity(w.read(w.a), "x"); n != 14 {
		t.Errorf("%d of 14", n)
	}
}

// A hand-over that waits for the lease, and has the sidecar's queue of the cart to itself, does not stop the holder
// either.
func testHolderPassesHandOver(t *testing.T, w *world) {
	if err := w.add(w.a, "x", "", false); err != nil {
		t.Fatal(err)
	}
	l := w.acquire(w.a, items)
	to := cart.Key{Identifier: "u2", Instance: "default"}
	moved := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 4*late)
	defer cancel()
	go func() {
		_, err := w.a.HandOver(ctx, key, to, cart.StrategySwap, lock.Change{})
		moved <- err
	}()
	// Where it is one commit, that is refused. Where it is several, its turn stands in the queue of the cart, and so in
	// the way of a lease over other parts.
	w.until("the hand-over meets the lease", func() bool {
		if w.a.Status().Stats.Locked > 0 {
			return true
		}
		other, err := w.b.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: []cart.Part{cart.PartConditions}})
		if err == nil {
			w.release(w.b, other)
		}
		return errors.Is(err, storage.ErrLockTimeout)
	})
	for range 5 {
		if err := w.add(w.a, "x", l.Token, false); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-moved:
		t.Fatalf("the hand-over did not wait: %v", err)
	default:
	}
	if err := w.add(w.a, "x", l.Token, true); err != nil {
		t.Fatal(err)
	}
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	k, err := w.b.Read(t.Context(), to)
	if err != nil || w.quantity(k, "x") != 7 {
		t.Errorf("%+v, %v", k, err)
	}
	if n := w.a.Status().ForeignWriters; n != 0 {
		t.Errorf("%d foreign writers where there are none", n)
	}
}

// A change under a lease that needs more than the lease covers waits until that is free, for no longer than any change.
func testMoreThanTheLease(t *testing.T, w *world) {
	mine := w.acquire(w.a, items)
	other := w.acquire(w.b, []cart.Part{cart.PartConditions})
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 2*late)
	defer cancel()
	go func() {
		_, err := w.a.Change(ctx, key, lock.Change{Verb: cart.Batch{Verbs: []cart.Verb{w.item("x"), cart.RemoveCondition{Name: "no"}}}, Scope: cart.PartAll, Lease: mine.Token})
		done <- err
	}()
	w.until("it meets the other lease", func() bool { return w.a.Status().Stats.Locked > 0 })
	w.release(w.b, other)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.acquire(w.b, []cart.Part{cart.PartConditions})
	w.a.Update(lock.Options{Locking: true, WaitTimeout: 50 * time.Millisecond, LeaseDuration: time.Minute, TTL: time.Hour, Limits: cart.DefaultLimits()})
	_, err := w.a.Change(t.Context(), key, lock.Change{Verb: cart.Clear{}, Scope: cart.PartAll, Lease: mine.Token, Release: true})
	w.is(err, storage.ErrLockTimeout, "parts that stay locked")
	if _, err := w.a.Lease(t.Context(), key, mine.Token); err != nil {
		t.Errorf("the lease, after a change that was not made: %v", err)
	}
}

// A holder that slept longer than its lease does not write over its successor.
func testLateHolder(t *testing.T, w *world) {
	late1 := w.ask(w.a, lock.LeaseRequest{Parts: items, Wait: late, Duration: 50 * time.Millisecond})
	l := w.acquire(w.b, items)
	if err := w.add(w.b, "new", l.Token, true); err != nil {
		t.Fatal(err)
	}
	none := cart.Object{}
	_, err := w.a.Change(t.Context(), key, lock.Change{Verb: cart.Put{Items: &none}, Scope: cart.PartItems, Lease: late1.Token})
	w.is(err, storage.ErrLockLost, "a put of the late")
	if n := w.quantity(w.read(w.a), "new"); n != 1 {
		t.Errorf("%d", n)
	}
	if s := w.a.Status(); s.Stats.LeasesLost != 1 || s.Stats.LeasesHeld != 0 {
		t.Errorf("%+v", s.Stats)
	}
}

// What is computed under a lease is computed from what is there, not from what the sidecar remembers.
func testFreshState(t *testing.T, w *world) {
	if err := errors.Join(w.add(w.a, "x", "", false), w.add(w.b, "x", "", false)); err != nil { // a remembers 1
		t.Fatal(err)
	}
	l := w.acquire(w.a, items)
	if n := w.quantity(l.Cart, "x"); n != 2 {
		t.Errorf("the lease came with %d", n)
	}
	if err := w.add(w.b, "x", l.Token, false); err != nil { // by way of another sidecar
		t.Fatal(err)
	}
	if err := w.add(w.a, "x", l.Token, true); err != nil {
		t.Fatal(err)
	}
	if n := w.quantity(w.read(w.b), "x"); n != 4 {
		t.Errorf("%d of 4", n)
	}
}

// Sidecars that do not lock must wait for a lease too.
func testSimpleMode(t *testing.T, w *world) {
	simple := w.sidecar("simple", false)
	l := w.acquire(w.a, items)
	done := make(chan error, 1)
	go func() { done <- w.add(simple, "x", "", false) }()
	w.waiting(simple, 1)
	if err := w.add(w.a, "y", l.Token, true); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m := w.acquire(simple, items)
	if w.quantity(m.Cart, "x") != 1 || w.quantity(m.Cart, "y") != 1 {
		t.Errorf("%s", m.Cart.Items.Object.Bytes())
	}
	if _, err := w.b.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items}); !errors.Is(err, storage.ErrLockTimeout) {
		t.Errorf("its own holds off nobody: %v", err)
	}
}

// A hand-over under a lease of its source.
func testHandOver(t *testing.T, w *world) {
	to := cart.Key{Identifier: "u2", Instance: "default"}
	for i, parts := range [][]cart.Part{whole, items} {
		if err := w.add(w.a, "x", "", false); err != nil {
			t.Fatal(err)
		}
		l := w.acquire(w.a, parts)
		r, err := w.b.HandOver(t.Context(), key, to, cart.StrategyAddQuantities, lock.Change{Lease: l.Token})
		if err != nil || !r.Changed || w.quantity(r.Cart, "x") != i+1 {
			t.Fatalf("%+v, %v", r, err)
		}
		if _, err := w.a.Lease(t.Context(), key, l.Token); err != nil {
			t.Errorf("it was not asked to release: %v", err)
		}
		// Nothing is left to move, and the lease goes all the same.
		r, err = w.a.HandOver(t.Context(), key, to, cart.StrategyAddQuantities, lock.Change{Lease: l.Token, Release: true})
		if err != nil || r.Changed {
			t.Fatalf("%+v, %v", r, err)
		}
		_, err = w.a.Lease(t.Context(), key, l.Token)
		w.is(err, storage.ErrLockUnknown, "after its release")
	}
	if err := w.add(w.a, "x", "", false); err != nil {
		t.Fatal(err)
	}
	l := w.acquire(w.a, whole)
	if _, err := w.a.HandOver(t.Context(), key, to, cart.StrategySwap, lock.Change{Lease: l.Token, Release: true}); err != nil {
		t.Fatal(err)
	}
	_, err := w.b.Lease(t.Context(), key, l.Token)
	w.is(err, storage.ErrLockUnknown, "after its release in the same step")
}

// A client that goes away while it waits leaves nothing behind.
func testCancelled(t *testing.T, w *world) {
	l := w.acquire(w.a, items)
	for _, c := range []*lock.Coordinator{w.a, w.b} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := c.AcquireLease(ctx, key, lock.LeaseRequest{Parts: items, Wait: 4 * late})
			ended <- err
		}()
		w.waiting(c, 1)
		cancel()
		w.is(<-ended, context.Canceled, "its end")
		w.waiting(c, 0)
	}
	w.release(w.a, l)
	start := time.Now()
	w.acquire(w.b, items)
	if took := time.Since(start); took > storage.WaiterTTL+storage.Heartbeat {
		t.Errorf("free only after %s", took)
	}
}
