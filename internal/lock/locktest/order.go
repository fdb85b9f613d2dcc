package locktest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// Under a lease a client may read, think and put, without a condition: nobody else is there, and nothing is lost, also
// to those who change the cart without one.
func testExclusion(t *testing.T, w *world) {
	const clients, rounds = 3, 8
	var (
		inside atomic.Int32
		wg     sync.WaitGroup
	)
	for _, c := range []*lock.Coordinator{w.a, w.b} {
		for range clients {
			wg.Go(func() {
				for range rounds {
					l, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: 4 * late})
					if err != nil {
						t.Error(err)
						return
					}
					if n := inside.Add(1); n != 1 {
						t.Errorf("%d hold the lease", n)
					}
					next, err := cart.ParseItems("items", fmt.Appendf(nil, `{"x":{"quantity":%d},"y":{"quantity":%d}}`,
						w.quantity(l.Cart, "x")+1, max(1, w.quantity(l.Cart, "y"))), cart.DefaultLimits())
					if err != nil {
						t.Error(err)
					}
					inside.Add(-1)
					if _, err := c.Change(t.Context(), key, lock.Change{Verb: cart.Put{Items: &next}, Scope: cart.PartItems, Lease: l.Token, Release: true}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			for range rounds {
				if err := w.add(c, "y", "", false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	k := w.read(w.a)
	// The first put of y is 1 where no change came before it.
	if x, y := w.quantity(k, "x"), w.quantity(k, "y"); x != 2*clients*rounds || y < 2*rounds || y > 2*rounds+1 {
		t.Errorf("x is %d, not %d; y is %d, not %d", x, 2*clients*rounds, y, 2*rounds)
	}
}

// In one sidecar, leases and changes of the same parts are served in the order in which they came.
func testFirstInFirstOut(t *testing.T, w *world) {
	first := w.acquire(w.a, whole)
	var (
		wg   sync.WaitGroup
		done log
		want []string
	)
	for i := range 12 {
		name := fmt.Sprintf("change %d", i)
		if i%3 != 1 {
			name = fmt.Sprintf("lease %d", i)
		}
		want = append(want, name)
		wg.Go(func() {
			if i%3 == 1 {
				r, err := w.a.Change(t.Context(), key, lock.Change{Verb: w.item("x"), Scope: cart.PartItems})
				if err != nil {
					t.Error(err)
					return
				}
				// Those who came before are in it, and nobody who came after.
				if n := w.quantity(r.Cart, "x"); n != i+1 {
					t.Errorf("%s sees %d changes before it", name, n-1)
				}
				done.note(name)
				return
			}
			l, err := w.a.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: 4 * late})
			if err != nil {
				t.Error(err)
				return
			}
			if n := w.quantity(l.Cart, "x"); n != i {
				t.Errorf("%s sees %d changes before it", name, n)
			}
			done.note(name)
			if err := w.add(w.a, "x", l.Token, true); err != nil {
				t.Error(err)
			}
		})
		w.waiting(w.a, int64(i+1))
	}
	w.release(w.a, first)
	wg.Wait()
	// Whoever was served notes it a moment later, when the next may have been served: the carts above prove the order
	// of changes, the notes that of leases.
	leases := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n[0] == 'c' })
	}
	if diff := cmp.Diff(leases(want), leases(done.names)); diff != "" {
		t.Errorf("order (-came +served):\n%s", diff)
	}
}

// A sidecar with many clients does not starve one with few. A round in which a machine stalled, so that a sidecar lost
// its place in the queue, proves nothing, and is made again.
func testFairness(t *testing.T, w *world) {
	const rounds = 3
	for n := range rounds {
		wrong := fairRound(t, w)
		switch {
		case wrong == "":
			return
		case n == rounds-1:
			t.Fatal(wrong)
		}
		t.Log(wrong)
	}
}

// fairRound returns what was unfair, "" if nothing was.
func fairRound(t *testing.T, w *world) string {
	t.Helper()
	const many = 20
	first := w.acquire(w.a, items)
	var (
		wg   sync.WaitGroup
		done log
	)
	ask := func(c *lock.Coordinator, name string) {
		wg.Go(func() {
			l, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: 4 * late})
			if err != nil {
				t.Error(err)
				return
			}
			done.note(name)
			<-time.After(2 * time.Millisecond) // the work; without any, those whose turn is next have no time to ask
			if err := c.ReleaseLease(t.Context(), key, l.Token); err != nil {
				t.Error(err)
			}
		})
	}
	for range many {
		ask(w.a, "a")
	}
	w.waiting(w.a, many)
	ask(w.b, "b")
	wg.Go(func() {
		if err := w.add(w.b, "x", "", false); err != nil {
			t.Error(err)
		}
		done.note("b")
	})
	w.waiting(w.b, 2)
	w.release(w.a, first)
	wg.Wait()
	last := 0
	for i, name := range done.names {
		if name == "b" {
			last = i
		}
	}
	if last > many/2 {
		return fmt.Sprintf("the last of the sidecar with two clients was served at place %d of %d: %v", last+1, len(done.names), done.names)
	}
	return ""
}

// A release lets the next in at once, also in another sidecar.
func testReleaseWakes(t *testing.T, w *world) {
	for _, next := range []*lock.Coordinator{w.a, w.b} {
		l := w.acquire(w.a, items)
		granted := make(chan time.Time, 1)
		go func() {
			l, err := next.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: 4 * late})
			granted <- time.Now()
			if err != nil {
				t.Error(err)
				return
			}
			if err := next.ReleaseLease(t.Context(), key, l.Token); err != nil {
				t.Error(err)
			}
		}()
		w.waiting(next, 1)
		released := time.Now()
		w.release(w.a, l)
		// A heartbeat later it would find out by itself.
		if took := (<-granted).Sub(released); took > storage.Heartbeat {
			t.Errorf("after %s", took)
		}
		w.until("it is back", func() bool { return next.Status().Stats.LeasesHeld == 0 })
	}
}

// The lease of a holder that died ends by itself, and not before.
func testCrashedHolder(t *testing.T, w *world) {
	const life = 300 * time.Millisecond
	start := time.Now()
	dead := w.ask(w.a, lock.LeaseRequest{Parts: items, Wait: late, Duration: life})
	l := w.acquire(w.b, items)
	if took := time.Since(start); took < life-10*time.Millisecond || took > life+storage.Heartbeat+late/5 {
		t.Errorf("granted after %s, with a lease of %s before it", took, life)
	}
	if l.Fence <= dead.Fence {
		t.Errorf("fence %d after %d", l.Fence, dead.Fence)
	}
	w.is(w.add(w.a, "x", dead.Token, false), storage.ErrLockLost, "a change of the dead")
}

// A waiter that died stops those behind it for no longer than it takes to find that out, also where its turn comes
// before that, and for however long it asked.
func testDeadWaiter(t *testing.T, w *world) {
	store := w.open()
	for _, test := range []struct {
		name    string
		leased  bool
		after   time.Duration // between its death and its turn
		longest time.Duration
	}{
		{"its place has ended", true, storage.WaiterTTL, 2 * storage.Heartbeat},
		{"the lease is its next", true, 0, storage.WaiterTTL + 2*storage.Heartbeat},
		{"the turn is its next", false, 0, storage.WaiterTTL + 2*storage.Heartbeat},
	} {
		l := w.acquire(w.a, items)
		dead := storage.Claim{Token: storage.NewToken(), Parts: items, Duration: time.Hour, Leased: test.leased}
		outs, err := store.Commit(t.Context(), storage.Commit{Key: key, Locks: storage.Locks{Parts: items, Claim: &dead}})
		if err != nil || !outs[0].Claimed.Queued {
			t.Fatalf("%s: the one who dies is not in the queue: %+v, %v", test.name, outs, err)
		}
		died := time.Now()
		granted := make(chan lock.Lease, 1)
		go func() {
			next, err := w.b.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: 4 * late})
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			granted <- next
		}()
		w.waiting(w.b, 1)
		w.until(test.name, func() bool { return time.Since(died) > test.after })
		released := time.Now()
		w.release(w.a, l)
		next := <-granted
		if took := time.Since(released); took > test.longest {
			t.Errorf("%s: after %s", test.name, took)
		}
		_, err = w.a.Lease(t.Context(), key, dead.Token)
		w.is(err, storage.ErrLockUnknown, test.name+": the dead")
		w.release(w.b, next)
	}
}

// A lease that was waited for is as long as was asked, and lives beyond what the queue grants.
func testWaitedLease(t *testing.T, w *world) {
	for _, c := range []*lock.Coordinator{w.a, w.b} {
		first := w.acquire(w.a, items)
		got := make(chan lock.Lease, 1)
		go func() {
			l, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: 4 * late, Duration: time.Minute})
			if err != nil {
				t.Error(err)
			}
			got <- l
		}()
		w.waiting(c, 1)
		released := time.Now().Truncate(time.Millisecond)
		if err := w.add(w.a, "x", first.Token, true); err != nil {
			t.Fatal(err)
		}
		l := <-got
		if l.Cart == nil || l.Expires.Before(released.Add(time.Minute)) || l.Fence <= first.Fence {
			t.Fatalf("%+v", l)
		}
		w.until("what the queue grants is over", func() bool { return time.Since(released) > storage.WaiterTTL+2*storage.Heartbeat })
		if now, err := w.a.Lease(t.Context(), key, l.Token); err != nil || now.Fence != l.Fence || !now.Expires.Equal(l.Expires) {
			t.Errorf("%+v, %v, was %+v", now, err, l)
		}
		if err := w.add(c, "x", l.Token, true); err != nil {
			t.Error(err)
		}
	}
	if n := w.quantity(w.read(w.b), "x"); n != 4 {
		t.Errorf("%d of 4", n)
	}
}

// Parts are granted all at once or not at all, in any order: a waiter holds nothing.
func testSeveralParts(t *testing.T, w *world) {
	note := cart.PartMetadata("notes")
	sets := [][]cart.Part{{cart.PartItems, cart.PartConditions}, {cart.PartConditions, note}, {note, cart.PartItems}, {cart.PartConditions, cart.PartItems}, whole}
	var wg sync.WaitGroup
	start := time.Now()
	for i, parts := range sets {
		for _, c := range []*lock.Coordinator{w.a, w.b} {
			wg.Go(func() {
				for range 6 {
					l, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: parts, Wait: 4 * late})
					if err != nil {
						t.Errorf("set %d: %v", i, err)
						return
					}
					if err := c.ReleaseLease(t.Context(), key, l.Token); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if took := time.Since(start); took > 3*late {
		t.Errorf("it took %s", took)
	}
}

// A lease over one part, held or waited for, does not hold up changes of other parts.
func testOtherParts(t *testing.T, w *world) {
	l := w.acquire(w.a, items)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range []*lock.Coordinator{w.a, w.b} {
		wg.Go(func() {
			l, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: items, Wait: 4 * late})
			if err != nil {
				t.Error(err)
				return
			}
			if err := c.ReleaseLease(t.Context(), key, l.Token); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := w.add(c, "x", "", false); err != nil {
				t.Error(err)
			}
		})
		w.waiting(c, 2)
		start := time.Now()
		if _, err := c.Change(t.Context(), key, lock.Change{Verb: metadata("k"), Scope: cart.PartMetadata("k")}); err != nil {
			t.Error(err)
		}
		m, err := c.AcquireLease(t.Context(), key, lock.LeaseRequest{Parts: []cart.Part{cart.PartConditions}})
		if err != nil {
			t.Error(err)
		} else if err := c.ReleaseLease(t.Context(), key, m.Token); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > late/2 {
			t.Errorf("after %s", took)
		}
	}
	w.release(w.a, l)
}
