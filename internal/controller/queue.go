package controller

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	// reconcileDeadline is how long one round may take. Sidecars are asked for three seconds at most; the rest is for
	// an API server that is slow.
	reconcileDeadline = 30 * time.Second
	// stuckAfter is when a worker that does not come back is taken for stuck. It is well above reconcileDeadline, which
	// ends everything that waits for others.
	stuckAfter = 2 * time.Minute
)

// fairQueue is a work queue in which no namespace can take all workers from another. A share is how many requests of
// one namespace may be in line or in work at once. Further requests are held back, in order, outside of the line. So a
// request waits at most for the shares of the busy namespaces, however many requests these have.
type fairQueue struct {
	line  workqueue.TypedInterface[reconcile.Request]
	share int
	now   func() time.Time

	mu       sync.Mutex
	lanes    map[string]*lane // by namespace
	known    map[reconcile.Request]*request
	working  bool      // whether a worker has ever come
	progress time.Time // when one took something or was done last, or had something to take
}

// lane has the requests of one namespace.
type lane struct {
	admitted int // in line or in work
	held     []reconcile.Request
}

// request is the state of a request that is held back, in line or in work.
type request struct {
	inWork bool
	since  time.Time // since when it is in work
	again  bool      // it was asked for while in work
}

func newFairQueue(name string, share int, now func() time.Time) *fairQueue {
	return &fairQueue{
		line:  workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[reconcile.Request]{Name: name}),
		share: share, now: now,
		lanes: map[string]*lane{}, known: map[reconcile.Request]*request{},
	}
}

// Add implements [workqueue.TypedInterface].
func (q *fairQueue) Add(r reconcile.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch known := q.known[r]; {
	case known == nil:
		q.enter(r)
	case known.inWork:
		known.again = true
	} // a request in line or held will be worked on anyway
}

func (q *fairQueue) enter(r reconcile.Request) {
	l := q.lanes[r.Namespace]
	if l == nil {
		l = &lane{}
		q.lanes[r.Namespace] = l
	}
	q.known[r] = &request{}
	l.held = append(l.held, r)
	q.admit(l)
}

// admit moves requests into the line, as far as the share allows.
func (q *fairQueue) admit(l *lane) {
	for l.admitted < q.share && len(l.held) > 0 {
		next := l.held[0]
		l.held[0] = reconcile.Request{}
		l.held = l.held[1:]
		l.admitted++
		if q.line.Len() == 0 {
			q.progress = q.now() // until now there was nothing to take
		}
		q.line.Add(next)
	}
}

// Get implements [workqueue.TypedInterface].
func (q *fairQueue) Get() (reconcile.Request, bool) {
	q.mu.Lock()
	if !q.working {
		q.working, q.progress = true, q.now()
	}
	q.mu.Unlock()
	r, shutdown := q.line.Get()
	q.mu.Lock()
	defer q.mu.Unlock()
	if known := q.known[r]; known != nil {
		known.inWork, known.since = true, q.now()
		q.progress = known.since
	}
	return r, shutdown
}

// Done implements [workqueue.TypedInterface].
func (q *fairQueue) Done(r reconcile.Request) {
	q.line.Done(r)
	q.mu.Lock()
	defer q.mu.Unlock()
	known, l := q.known[r], q.lanes[r.Namespace]
	if known == nil || !known.inWork {
		return
	}
	q.progress = q.now()
	delete(q.known, r)
	l.admitted--
	if known.again {
		q.enter(r)
	} else {
		q.admit(l)
	}
	if l.admitted == 0 {
		delete(q.lanes, r.Namespace)
	}
}

// Len implements [workqueue.TypedInterface].
func (q *fairQueue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.line.Len()
	for _, l := range q.lanes {
		n += len(l.held)
	}
	return n
}

// ShutDown implements [workqueue.TypedInterface].
func (q *fairQueue) ShutDown() { q.line.ShutDown() }

// ShutDownWithDrain implements [workqueue.TypedInterface]. What is held back is left undone.
func (q *fairQueue) ShutDownWithDrain() { q.line.ShutDownWithDrain() }

// ShuttingDown implements [workqueue.TypedInterface].
func (q *fairQueue) ShuttingDown() bool { return q.line.ShuttingDown() }

// stuck says which request has been in work for too long, or that no worker takes what is in line. It returns nil if
// all is well, and if no worker has ever come, as in a replica that does not lead.
func (q *fairQueue) stuck() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	for r, known := range q.known {
		if d := now.Sub(known.since); known.inWork && d > stuckAfter {
			return fmt.Errorf("%s has been worked on for %s", r, d.Round(time.Second))
		}
	}
	if d := now.Sub(q.progress); q.working && q.line.Len() > 0 && d > stuckAfter {
		return fmt.Errorf("nothing was taken from the queue for %s", d.Round(time.Second))
	}
	return nil
}

// workers has the queues of all controllers, and knows whether their workers advance.
type workers struct {
	now func() time.Time

	mu     sync.Mutex
	queues map[string]*fairQueue // by controller
}

// options are how a controller of n workers runs. One namespace occupies all but one of them.
func (w *workers) options(n int) controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: n,
		ReconciliationTimeout:   reconcileDeadline,
		NewQueue: func(name string, limiter workqueue.TypedRateLimiter[reconcile.Request]) workqueue.TypedRateLimitingInterface[reconcile.Request] {
			fair := newFairQueue(name, max(n-1, 1), w.now)
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.queues == nil {
				w.queues = map[string]*fairQueue{}
			}
			w.queues[name] = fair
			return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[reconcile.Request]{
				Name: name,
				DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[reconcile.Request]{
					Name: name, Queue: fair,
				}),
			})
		},
	}
}

// advance is for the liveness probe.
func (w *workers) advance(*http.Request) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, q := range w.queues {
		if err := q.stuck(); err != nil {
			return fmt.Errorf("controller %s: %w", name, err)
		}
	}
	return nil
}
