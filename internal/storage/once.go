package storage

import (
	"context"
	"sync"
	"sync/atomic"
)

// Once is a check that a driver makes until it has passed, such as that of a schema. The zero value is one that has not
// passed. It is safe for concurrent use.
type Once struct {
	passed atomic.Bool

	mu      sync.Mutex
	running *attempt // nil for none
}

// attempt is a check under way. err is valid once done is closed. cut says that it is about its caller only, who waits
// no longer.
type attempt struct {
	done chan struct{}
	err  error
	cut  bool
}

// Do makes the check, unless it has passed before. Calls that come while it is made share its result: where a server
// does not answer, they do not wait for one timeout after the other. The error is that of the check, or the context's,
// where the caller waits no longer.
func (o *Once) Do(ctx context.Context, check func(ctx context.Context) error) error {
	for !o.passed.Load() {
		a, mine := o.join()
		if mine {
			err := check(ctx)
			o.passed.Store(err == nil)
			o.end(a, err, ctx.Err() != nil)
			return err
		}
		select {
		case <-a.done:
			if !a.cut {
				return a.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Again forgets that the check has passed.
func (o *Once) Again() { o.passed.Store(false) }

// join returns the check under way, or begins one, which is the caller's to make and to end.
func (o *Once) join() (a *attempt, mine bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if mine = o.running == nil; mine {
		o.running = &attempt{done: make(chan struct{})}
	}
	return o.running, mine
}

func (o *Once) end(a *attempt, err error, cut bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a.err, a.cut, o.running = err, cut, nil
	close(a.done)
}
