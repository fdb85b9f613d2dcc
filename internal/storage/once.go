package storage

import (
	"context"
	"sync"
	"sync/atomic"
)

// Once is a check that a driver makes until it has passed, such as that of a schema. The zero value has not passed. It
// is safe for concurrent use.
type Once struct {
	passed atomic.Bool

	mu      sync.Mutex
	running *attempt // nil for none
}

// attempt is a check under way. err is valid once done is closed. cut says that the attempt ended only because its
// caller stopped waiting.
type attempt struct {
	done chan struct{}
	err  error
	cut  bool
}

// Do makes the check, unless it has passed before. Calls that come while it is made share its result, so that they do
// not wait for one timeout after the other when a server does not answer. The error is that of the check, or the
// context's if the caller stopped waiting.
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

// join returns the check under way. If there is none, it begins one (mine), which the caller must make and end.
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
