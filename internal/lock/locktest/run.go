package locktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// Open starts an empty backend; what it returns opens that once more, as a further sidecar would, or returns the same
// store where there can be but one. Stores are closed by the test's cleanup.
type Open func(t *testing.T) func() storage.Locker

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, s := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"Exclusion", testExclusion},
		{"FirstInFirstOut", testFirstInFirstOut},
		{"Fairness", testFairness},
		{"ReleaseWakes", testReleaseWakes},
		{"CrashedHolder", testCrashedHolder},
		{"DeadWaiter", testDeadWaiter},
		{"WaitedLease", testWaitedLease},
		{"SeveralPartsNeverDeadlock", testSeveralParts},
		{"OtherPartsAreFree", testOtherParts},
		{"Reentrancy", testReentrancy},
		{"Timeouts", testTimeouts},
		{"UnknownAndLost", testUnknownAndLost},
		{"FencesRise", testFences},
		{"HolderPassesWaiters", testHolderPassesWaiters},
		{"HolderPassesHandOver", testHolderPassesHandOver},
		{"CartOutlivesLease", testCartOutlivesLease},
		{"RenewalKeepsDuration", testRenewalKeepsDuration},
		{"MoreThanTheLease", testMoreThanTheLease},
		{"LateHolder", testLateHolder},
		{"FreshState", testFreshState},
		{"SimpleModeHonoursLeases", testSimpleMode},
		{"HandOverUnderLease", testHandOver},
		{"Hold", testHold},
		{"HoldIsLost", testHoldIsLost},
		{"HoldHasAFloor", testHoldFloor},
		{"CloseReleases", testClose},
		{"CancelledRequest", testCancelled},
	} {
		t.Run(s.name, func(t *testing.T) { s.run(t, newWorld(t, open)) })
	}
}

var key = cart.Key{Identifier: "u1", Instance: "default"}

var (
	whole = []cart.Part{cart.PartAll}
	items = []cart.Part{cart.PartItems}
)

// late is how long something may take that should happen at once, on a slow machine with the race detector. All leases
// of the suite that are not meant to end live much longer.
const late = 5 * time.Second

// world is one backend with two sidecars.
type world struct {
	t    *testing.T
	open func() storage.Locker
	a, b *lock.Coordinator
}

func newWorld(t *testing.T, open Open) *world {
	w := &world{t: t, open: open(t)}
	w.a, w.b = w.sidecar("a", true), w.sidecar("b", true)
	return w
}

// sidecar is one more on the same backend.
func (w *world) sidecar(name string, locking bool) *lock.Coordinator {
	return w.with(name, func(o *lock.Options) { o.Locking = locking })
}

// with is one more whose options are altered.
func (w *world) with(name string, alter func(*lock.Options)) *lock.Coordinator {
	o := lock.Options{
		Locking: true, Reason: "Configured", WaitTimeout: 20 * time.Second, LeaseDuration: time.Minute,
		TTL: time.Hour, Limits: cart.DefaultLimits(), Holder: name,
	}
	alter(&o)
	c := lock.New(w.open(), o)
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), late)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			w.t.Errorf("sidecar %s does not end: %v", name, err)
		}
	})
	return c
}

func (w *world) acquire(c *lock.Coordinator, parts []cart.Part) lock.Lease {
	w.t.Helper()
	return w.ask(c, lock.LeaseRequest{Parts: parts, Wait: late})
}

func (w *world) ask(c *lock.Coordinator, r lock.LeaseRequest) lock.Lease {
	w.t.Helper()
	l, err := c.AcquireLease(w.t.Context(), key, r)
	if err != nil {
		w.t.Fatal(err)
	}
	if l.Token == "" || l.Fence == 0 || l.Cart == nil || l.Expires.IsZero() {
		w.t.Fatalf("an incomplete lease: %+v", l)
	}
	return l
}

func (w *world) release(c *lock.Coordinator, l lock.Lease) {
	w.t.Helper()
	if err := c.ReleaseLease(w.t.Context(), key, l.Token); err != nil {
		w.t.Fatal(err)
	}
}

// add adds one of an item under a lease, "" for none.
func (w *world) add(c *lock.Coordinator, id, token string, release bool) error {
	_, err := c.Change(w.t.Context(), key, lock.Change{Verb: w.item(id), Scope: cart.PartItems, Lease: token, Release: release})
	return err
}

func (w *world) item(id string) cart.AddItem {
	w.t.Helper()
	it, err := cart.ParseItem("item", fmt.Appendf(nil, `{"id":%q,"quantity":1}`, id), cart.DefaultLimits())
	if err != nil {
		w.t.Fatal(err)
	}
	return cart.AddItem{Item: it}
}

func metadata(k string) cart.PatchMetadata {
	return cart.PatchMetadata{Values: []cart.Member{{Key: k, Value: []byte("1")}}}
}

func (w *world) read(c *lock.Coordinator) *cart.Cart {
	w.t.Helper()
	k, err := c.Read(w.t.Context(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// quantity is how many of an item are in the cart.
func (w *world) quantity(k *cart.Cart, id string) (n int) {
	w.t.Helper()
	raw, ok := k.Items.Object.Get(id)
	if !ok {
		return 0
	}
	o, err := cart.TrustedObject(raw)
	if err != nil {
		w.t.Fatal(err)
	}
	q, _ := o.Get("quantity")
	if _, err := fmt.Sscan(string(q), &n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// waiting waits until so many wait in the sidecar.
func (w *world) waiting(c *lock.Coordinator, n int64) {
	w.t.Helper()
	w.until(fmt.Sprintf("%d wait", n), func() bool { return c.Status().Stats.Waiting == n })
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(2 * late); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not so", what)
		}
	}
}

func (w *world) is(err, want error, what string) {
	w.t.Helper()
	if !errors.Is(err, want) {
		w.t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// log is what happened, in order.
type log struct {
	mu    sync.Mutex
	names []string
}

func (l *log) note(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = append(l.names, name)
}
