package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"k8s.io/client-go/util/workqueue"
)

func requestOf(namespace string, n int) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: fmt.Sprintf("cs-%d", n)}}
}

// feeder gives a test the queue of a controller.
type feeder chan workqueue.TypedRateLimitingInterface[reconcile.Request]

func (f feeder) Start(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	f <- q
	return nil
}

var _ source.Source = feeder(nil)

// A namespace with thousands of requests does not hold up another's for more than a round or two.
func TestQueueIsFair(t *testing.T) {
	for _, n := range []int{1, 2, 8} {
		t.Run(fmt.Sprintf("%d workers", n), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { fair(t, n) }) })
	}
}

func fair(t *testing.T, n int) {
	const loud = 5000
	var mu sync.Mutex
	var order []string
	proceed := make(chan struct{})
	o := (&workers{now: time.Now}).options(n)
	unique := true
	o.SkipNameValidation, o.Logger = &unique, logr.Discard()
	o.Reconciler = reconcile.Func(func(_ context.Context, r reconcile.Request) (reconcile.Result, error) {
		mu.Lock()
		order = append(order, r.Namespace)
		mu.Unlock()
		<-proceed
		return reconcile.Result{}, nil
	})
	c, err := controller.NewUnmanaged("fair", o)
	if err != nil {
		t.Fatal(err)
	}
	queue := make(feeder, 1)
	if err := c.Watch(queue); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Start(ctx) }()
	q := <-queue
	for i := range loud {
		q.Add(requestOf("loud", i))
	}
	synctest.Wait()
	q.Add(requestOf("quiet", 0))
	q.Add(requestOf("quiet too", 0))
	for range 4 * n { // one after another ends, and the next is taken
		synctest.Wait()
		proceed <- struct{}{}
	}
	synctest.Wait()
	mu.Lock()
	early := slices.Clone(order)
	mu.Unlock()
	for _, namespace := range []string{"quiet", "quiet too"} {
		// Before it are only the requests in work and in line, and that of the other quiet namespace.
		if at := slices.Index(early, namespace); at < 0 || at > 2*n {
			t.Errorf("%s came at place %d of %d, want %d at most", namespace, at, len(early), 2*n)
		}
	}
	close(proceed)
	synctest.Wait()
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(order) != loud+2 {
		t.Errorf("%d requests were worked on, want %d", len(order), loud+2)
	}
}

// A namespace whose rounds take long leaves a worker to the others.
func TestQueueLeavesAWorker(t *testing.T) {
	q := newFairQueue("leaves", 3, time.Now)
	defer q.ShutDown()
	for i := range 10 {
		q.Add(requestOf("slow", i))
	}
	for range 3 {
		if r, _ := q.Get(); r.Namespace != "slow" {
			t.Fatalf("got %s", r)
		}
	}
	q.Add(requestOf("other", 0))
	if r, _ := q.Get(); r.Namespace != "other" {
		t.Errorf("the fourth worker was given %s", r)
	}
	if n := q.Len(); n != 7 {
		t.Errorf("%d requests wait, want 7", n)
	}
}

// A request that comes again while it is in line is worked on once; while it is in work, once more.
func TestQueueForgetsNothing(t *testing.T) {
	q := newFairQueue("again", 1, time.Now)
	defer q.ShutDown()
	a, b := requestOf("ns", 1), requestOf("ns", 2)
	for range 3 {
		q.Add(a)
		q.Add(b)
	}
	if r, _ := q.Get(); r != a {
		t.Fatalf("got %s, want %s", r, a)
	}
	q.Add(a)
	q.Add(a)
	q.Done(a)
	if r, _ := q.Get(); r != b {
		t.Fatalf("got %s, want %s", r, b)
	}
	q.Done(b)
	if r, _ := q.Get(); r != a {
		t.Fatalf("got %s, want %s again", r, a)
	}
	q.Done(a)
	if q.Len() != 0 || len(q.lanes) != 0 || len(q.known) != 0 {
		t.Errorf("%d requests wait, and %d namespaces and %d requests are remembered", q.Len(), len(q.lanes), len(q.known))
	}
}

// Liveness fails when a worker does not come back, or no worker takes from the line, but not in a replica that does not
// lead.
func TestWorkersThatDoNotAdvance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &workers{now: time.Now}
		q := w.options(2).NewQueue("cartstorage", workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
		defer q.ShutDown()
		q.Add(requestOf("a", 1))
		time.Sleep(time.Hour)
		if err := w.advance(nil); err != nil {
			t.Errorf("before any worker has come: %v", err)
		}
		r, _ := q.Get()
		time.Sleep(stuckAfter)
		if err := w.advance(nil); err != nil {
			t.Errorf("after %s: %v", stuckAfter, err)
		}
		time.Sleep(time.Second)
		if err := w.advance(nil); err == nil || !strings.Contains(err.Error(), "controller cartstorage: a/cs-1 has been worked on for 2m1s") {
			t.Errorf("a worker that does not come back: %v", err)
		}
		q.Done(r)
		if err := w.advance(nil); err != nil {
			t.Errorf("after it came back: %v", err)
		}
		time.Sleep(time.Hour) // nothing is to be done
		if err := w.advance(nil); err != nil {
			t.Errorf("an idle worker: %v", err)
		}
		q.Add(requestOf("a", 1))
		q.Add(requestOf("a", 2))
		time.Sleep(stuckAfter)
		if err := w.advance(nil); err != nil {
			t.Errorf("workers that have not come for %s: %v", stuckAfter, err)
		}
		time.Sleep(time.Second)
		if err := w.advance(nil); err == nil || !strings.Contains(err.Error(), "nothing was taken from the queue for 2m1s") {
			t.Errorf("workers that do not come: %v", err)
		}
	})
}

// A round that waits for something that never comes is ended.
func TestReconcileDeadline(t *testing.T) {
	if o := (&workers{}).options(1); o.ReconciliationTimeout <= 0 || o.ReconciliationTimeout >= stuckAfter {
		t.Errorf("a round may take %s, and is taken for stuck after %s", o.ReconciliationTimeout, stuckAfter)
	}
}
