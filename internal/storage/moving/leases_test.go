package moving_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
)

func leaseClaim(token string, d time.Duration) storage.Claim {
	return storage.Claim{Token: token, Holder: "client", Parts: []cart.Part{cart.PartItems}, Duration: d, Leased: true}
}

// TestLeaseOfOld: a lease that was taken in the old backend is good until it ends, keeps the cart there, and is known
// as lost afterwards; a later one has a greater fence.
func TestLeaseOfOld(t *testing.T) {
	for name, open := range pairs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			openOld, openNew := open(t)
			o, n := openOld(), openNew()
			mustCommit(t, o, storage.Committed, change(u1, &cart.Cart{}, `{"a":1}`))
			if last, err := o.LastFence(t.Context(), u1); err != nil || o.RaiseFence(t.Context(), u1, last+7_200_000_000) != nil {
				t.Fatal(err) // two hours ahead of any clock
			}
			held, lost, next := "held-in-the-old-store0", "lost-in-the-old-store0", "next-in-the-new-store0"
			if _, err := o.Acquire(t.Context(), u1, leaseClaim(lost, 5*time.Millisecond), false); err != nil {
				t.Fatal(err)
			}
			g, err := o.Acquire(t.Context(), u1, leaseClaim(held, time.Minute), false)
			if err != nil {
				t.Fatal(err)
			}
			s := movingStore(t, o, n)
			base := mustLoad(t, s, u1)
			mustCommit(t, s, storage.Locked, change(u1, base, `{"other":1}`))
			under := change(u1, base, `{"a":2}`)
			under.Locks.Token, under.Locks.MustHold = held, true
			mustCommit(t, s, storage.Committed, under)
			if l, err := s.Renew(t.Context(), u1, held, time.Minute); err != nil || l.Fence != g.Fence || !l.Expires.After(g.Expires) {
				t.Errorf("renewed: %+v, %v; was %+v", l, err, g)
			}
			if k := mustLoad(t, o, u1); itemsOf(k) != `{"a":2}` || mustLoad(t, n, u1).Exists() {
				t.Errorf("the cart left the backend where a lease is held on it: %s", itemsOf(k))
			}
			if err := s.Release(t.Context(), u1, held); err != nil {
				t.Errorf("release: %v", err)
			}
			move(t, s, o, u1)
			if k := mustLoad(t, n, u1); itemsOf(k) != `{"a":2}` || k.ID != base.ID {
				t.Errorf("moved: %s", itemsOf(k))
			}

			for _, token := range []string{lost} {
				if _, err := s.Lease(t.Context(), u1, token); !errors.Is(err, storage.ErrLockLost) {
					t.Errorf("a lease that expired before the move: %v", err)
				}
				late := change(u1, mustLoad(t, s, u1), `{"late":1}`)
				late.Locks.Token, late.Locks.MustHold = token, true
				mustCommit(t, s, storage.LockLost, late)
				if _, err := s.Acquire(t.Context(), u1, leaseClaim(token, time.Minute), false); !errors.Is(err, storage.ErrTooLate) {
					t.Errorf("claimed again: %v", err)
				}
			}
			if _, err := s.Lease(t.Context(), u1, held); !errors.Is(err, storage.ErrLockUnknown) {
				t.Errorf("a lease that was released: %v", err)
			}
			later, err := s.Acquire(t.Context(), u1, leaseClaim(next, time.Minute), false)
			if err != nil || later.Fence <= g.Fence {
				t.Errorf("fence %d after %d, %v", later.Fence, g.Fence, err)
			}
			if _, err := n.Lease(t.Context(), u1, next); err != nil {
				t.Errorf("the later lease is not in the new backend: %v", err)
			}
		})
	}
}

// TestWaiterOfOld: a claim that waits in the old backend when the cart moves is granted in the new one.
func TestWaiterOfOld(t *testing.T) {
	for name, open := range pairs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			openOld, openNew := open(t)
			o, n := openOld(), openNew()
			mustCommit(t, o, storage.Committed, change(u1, &cart.Cart{}, `{"a":1}`))
			holder := leaseClaim("holder-in-the-old-one0", time.Minute)
			if _, err := o.Acquire(t.Context(), u1, holder, false); err != nil {
				t.Fatal(err)
			}
			mover := movingStore(t, o, n)
			moved := make(chan error, 1)
			walked := mover
			go func() {
				_, err := walked.Finish(t.Context())
				moved <- err
			}()
			waiter := movingStore(t, openOld(), openNew())
			claimed := change(u1, mustLoad(t, o, u1), `{"b":1}`)
			claim := storage.Claim{Token: "waits-in-the-old-store", Parts: []cart.Part{cart.PartItems}, Duration: storage.WaiterTTL}
			claimed.Locks.Claim = &claim
			if out := mustCommit(t, waiter, storage.Locked, claimed); !out.Claimed.Queued {
				t.Fatalf("claimed: %+v", out.Claimed)
			}
			granted := make(chan storage.Grant, 1)
			go func() {
				g, err := waiter.Acquire(t.Context(), u1, claim, true)
				if err != nil {
					t.Errorf("acquire: %v", err)
				}
				granted <- g
			}()
			if err := mover.Release(t.Context(), u1, holder.Token); err != nil {
				t.Fatal(err)
			}
			if g := <-granted; g.Cart == nil || itemsOf(g.Cart) != `{"a":1}` || g.Cart.Transfer != nil {
				t.Errorf("granted %+v", g)
			}
			done := change(u1, mustLoad(t, waiter, u1), `{"b":1}`)
			done.Locks.Token, done.Locks.Release = claim.Token, true
			mustCommit(t, waiter, storage.Committed, done)
			if err := <-moved; err != nil {
				t.Errorf("walk: %v", err)
			}
			if k := mustLoad(t, n, u1); itemsOf(k) != `{"b":1}` {
				t.Errorf("in the new backend: %s", itemsOf(k))
			}
		})
	}
}

// TestWaiterLeavesOld: a claim waited in the old backend while the cart moved, and was granted there. Once it is
// granted in the new one, it holds nothing in the old one.
func TestWaiterLeavesOld(t *testing.T) {
	for begun := time.Now(); !waitsInOld(t); {
		if time.Since(begun) > 30*time.Second {
			t.Fatal("no claim waited in the old backend in time")
		}
	}
}

// waitsInOld lets a claim wait in the old backend behind a mover. It returns false if the waiter was held up for so
// long that it no longer takes the cart to stay there.
func waitsInOld(t *testing.T) bool {
	o, n := memory.New(), memory.New()
	mustCommit(t, o, storage.Committed, change(u1, &cart.Cart{}, `{"a":1}`))
	base := mustLoad(t, o, u1)
	claim := storage.Claim{Token: "waits-in-the-old-store", Parts: []cart.Part{cart.PartItems}, Duration: storage.WaiterTTL}
	claimed := change(u1, base, `{"b":1}`)
	claimed.Locks.Claim = &claim

	holder := leaseClaim("holder-in-the-old-one0", time.Minute)
	if _, err := o.Acquire(t.Context(), u1, holder, false); err != nil {
		t.Fatal(err)
	}
	waiter := movingStore(t, o, n)
	mustCommit(t, waiter, storage.Locked, claimed) // and finds that the cart stays where it is
	for _, token := range []string{claim.Token, holder.Token} {
		if err := o.Abandon(t.Context(), u1, token); err != nil {
			t.Fatal(err)
		}
	}

	asleep, wake := make(chan struct{}), make(chan struct{})
	f := &faults{after: noFault}
	f.before = func(n int) error {
		f.mu.Lock()
		call := f.calls[n]
		f.mu.Unlock()
		if call == "old fence" { // the mover has the turn in the old backend, and the marker does not stand yet
			close(asleep)
			<-wake
		}
		return nil
	}
	mover := movingStore(t, faulty{o, "old", f}, faulty{n, "new", f})
	moved := make(chan error, 1)
	go func() {
		moves := change(u1, base, `{"a":2}`)
		moves.Expect.ID = "another" // it moves the cart, and changes nothing
		_, err := mover.Commit(t.Context(), moves)
		moved <- err
	}()
	<-asleep
	outs, err := waiter.Commit(t.Context(), claimed)
	if err != nil {
		t.Fatal(err)
	}
	waits := outs[0].Status == storage.Locked && outs[0].Claimed.Queued
	granted := make(chan error, 1)
	go func() {
		g, err := waiter.Acquire(t.Context(), u1, claim, waits)
		if err == nil && (g.Cart.Transfer != nil || itemsOf(g.Cart) != `{"a":1}`) && waits {
			err = fmt.Errorf("granted with %+v", g.Cart)
		}
		granted <- err
	}()
	close(wake)
	for what, ended := range map[string]chan error{"move": moved, "claim": granted} {
		if err := <-ended; err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if !waits {
		return false
	}
	stranger := change(u1, base, `{"c":1}`)
	mustCommit(t, o, storage.Conflict, stranger) // for the marker, and not for a lock
	return true
}
