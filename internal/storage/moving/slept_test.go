package moving_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/moving"
)

// TestSlept: a mover sleeps before one of its calls for longer than its turns last. Meanwhile another moves the cart,
// and the cart is forgotten, created anew, or moved back. When the mover wakes up, its steps change nothing.
func TestSlept(t *testing.T) {
	meanwhile := map[string]func(t *testing.T, key cart.Key, o, n movable) (in storage.Store, items string){
		"forgotten": func(t *testing.T, key cart.Key, o, n movable) (storage.Store, string) {
			s := movingStore(t, o, n)
			move(t, s, o, key)
			c := change(key, mustLoad(t, s, key), "")
			c.Change.Writes, c.Change.Steps, c.Change.Forget = nil, 0, true
			mustCommit(t, s, storage.Committed, c)
			return s, ""
		},
		"made anew": func(t *testing.T, key cart.Key, o, n movable) (storage.Store, string) {
			s := movingStore(t, o, n)
			move(t, s, o, key)
			c := change(key, mustLoad(t, s, key), "")
			c.Change.Writes, c.Change.Steps, c.Change.Forget = nil, 0, true
			mustCommit(t, s, storage.Committed, c)
			mustCommit(t, s, storage.Committed, change(key, &cart.Cart{}, `{"successor":1}`))
			return s, `{"successor":1}`
		},
		"moved back": func(t *testing.T, key cart.Key, o, n movable) (storage.Store, string) {
			move(t, movingStore(t, o, n), o, key)
			back := movingStore(t, n, o)
			move(t, back, n, key)
			return back, `{"a":1}`
		},
	}
	for name, then := range meanwhile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var running sync.WaitGroup
			defer running.Wait()
			for at := range 8 {
				running.Go(func() {
					o, n := memory.New(), memory.New()
					key := cart.Key{Identifier: fmt.Sprint("u", at), Instance: "default"}
					mustCommit(t, o, storage.Committed, change(key, &cart.Cart{}, `{"a":1}`))
					base := mustLoad(t, o, key)
					asleep, wake := make(chan struct{}), make(chan struct{})
					f := &faults{after: noFault, before: func(n int) error {
						if n == at {
							close(asleep)
							<-wake
						}
						return nil
					}}
					mover := movingStore(t, faulty{o, "old", f}, faulty{n, "new", f})
					ended := make(chan error, 1)
					go func() {
						c := change(key, base, `{"late":1}`)
						c.Expect.ID = "another" // it moves the cart, and changes nothing
						_, err := mover.Commit(t.Context(), c)
						ended <- err
					}()
					select {
					case <-asleep:
					case err := <-ended:
						t.Errorf("the mover made less than %d calls: %v, %v", at, f.calls, err)
						return
					}
					s, items := then(t, key, o, n)
					want := mustLoad(t, s, key)
					close(wake)
					if err := <-ended; err != nil && !errors.Is(err, storage.ErrLockTimeout) {
						t.Errorf("%v: %v", f.calls, err)
					}
					got := mustLoad(t, s, key)
					if got.ID != want.ID || got.Version != want.Version || items != "" && itemsOf(got) != items || items == "" && got.Exists() {
						t.Errorf("%v: the cart is %q at version %d: %s; it was %q at %d", f.calls, got.ID, got.Version, itemsOf(got), want.ID, want.Version)
					}
				})
			}
		})
	}
}

// TestFenceOfASleeper: a mover sleeps for longer than its turns last, and a client has a lease in the old backend
// meanwhile. Fences go on rising all the same, whenever the mover slept.
func TestFenceOfASleeper(t *testing.T) {
	t.Parallel()
	var running sync.WaitGroup
	defer running.Wait()
	for at := range 8 {
		running.Go(func() {
			o, n := memory.New(), memory.New()
			key := cart.Key{Identifier: fmt.Sprint("u", at), Instance: "default"}
			mustCommit(t, o, storage.Committed, change(key, &cart.Cart{}, `{"a":1}`))
			if err := o.RaiseFence(t.Context(), key, 1<<60); err != nil { // ahead of any clock
				t.Error(err)
				return
			}
			asleep, wake := make(chan struct{}), make(chan struct{})
			f := &faults{after: noFault, before: func(n int) error {
				if n == at {
					close(asleep)
					<-wake
				}
				return nil
			}}
			s := movingStore(t, faulty{o, "old", f}, faulty{n, "new", f})
			ended := make(chan error, 1)
			go func() {
				c := change(key, &cart.Cart{ID: "another", Version: 1}, `{}`) // it moves the cart, and changes nothing
				_, err := s.Commit(t.Context(), c)
				ended <- err
			}()
			<-asleep
			// A sidecar that has not been told grants a lease, unless it meets the marker.
			lease := leaseClaim("held-in-the-old-store0", time.Minute)
			g, err := o.Acquire(t.Context(), key, lease, false)
			if err == nil {
				err = o.Release(t.Context(), key, lease.Token)
			}
			close(wake)
			if err := errors.Join(err, <-ended); err != nil {
				t.Errorf("%v: %v", f.calls, err)
				return
			}
			move(t, s, o, key)
			_, marked, _ := storage.ParseMarker(g.Cart.Transfer)
			next, err := s.Acquire(t.Context(), key, leaseClaim("next-in-the-new-store0", time.Minute), false)
			if err != nil || !marked && next.Fence <= g.Fence {
				t.Errorf("%v: fence %d follows on %d, %v", f.calls, next.Fence, g.Fence, err)
			}
		})
	}
}

// TestBeliefs: a process remembers wrongly where a cart is, since another moved it, there or back. Its next change
// finds the marker where it looked, and is made where the cart counts.
func TestBeliefs(t *testing.T) {
	o, n := memory.New(), memory.New()
	mustCommit(t, o, storage.Committed, change(u1, &cart.Cart{}, `{"a":1}`))
	lease := leaseClaim("held-in-the-old-store0", time.Minute)
	if _, err := o.Acquire(t.Context(), u1, lease, false); err != nil {
		t.Fatal(err)
	}
	s := movingStore(t, o, n)
	mustCommit(t, s, storage.Locked, change(u1, mustLoad(t, s, u1), `{"a":2}`)) // it stays in the old one
	if err := o.Release(t.Context(), u1, lease.Token); err != nil {
		t.Fatal(err)
	}
	move(t, movingStore(t, o, n), o, u1)
	mustCommit(t, s, storage.Committed, change(u1, mustLoad(t, n, u1), `{"a":2}`)) // it is in the new one
	if k := mustLoad(t, n, u1); itemsOf(k) != `{"a":2}` || k.Version != 2 {
		t.Errorf("there: version %d, %s", k.Version, itemsOf(k))
	}
	move(t, movingStore(t, n, o), n, u1)
	mustCommit(t, s, storage.Committed, change(u1, mustLoad(t, o, u1), `{"a":3}`)) // it is in the old one again
	if k := mustLoad(t, s, u1); itemsOf(k) != `{"a":3}` || k.Version != 3 {
		t.Errorf("back: version %d, %s", k.Version, itemsOf(k))
	}
}

// move makes changes that cannot succeed until the marker of key in from says that it has moved.
func move(t *testing.T, s *moving.Store, from storage.Store, key cart.Key) {
	t.Helper()
	for deadline := time.Now().Add(patient); markerOf(t, from, key) != "done"; time.Sleep(10 * time.Millisecond) {
		c := change(key, &cart.Cart{ID: "another", Version: 1}, `{}`)
		if _, err := s.Commit(t.Context(), c); err != nil {
			t.Errorf("touch: %v", err)
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("the cart does not move")
			return
		}
	}
}
