package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

// patience bounds how long SQLite may take for one thing, without what a caller waits in this process behind others: time
// counts from the caller's arrival or from when SQLite was last seen to get on, whichever came last. So a long queue that moves
// is no failure, and the whole of a queue that stands fails at once.
type patience struct {
	limit time.Duration // 0 for none
	begun time.Time     // what moved counts from here, by the clock that does not jump
	moved atomic.Int64
}

func newPatience(limit time.Duration) *patience { return &patience{limit: limit, begun: time.Now()} }

// move notes that SQLite gets on.
func (p *patience) move() { p.moved.Store(int64(time.Since(p.begun))) }

var errNoAnswer = errors.New("the database did not answer in time")

// wait is a caller's patience. Its timer is nil for ever.
type wait struct {
	of    *patience
	since time.Time
	timer *time.Timer
}

func (p *patience) wait() *wait {
	w := &wait{of: p, since: time.Now()}
	if p.limit > 0 {
		w.timer = time.NewTimer(p.limit)
	}
	return w
}

// fired is the channel to wait for; then over says whether the wait is.
func (w *wait) fired() <-chan time.Time {
	if w.timer == nil {
		return nil
	}
	return w.timer.C
}

// over reports whether the patience is at its end, and sets the timer again where it is not.
func (w *wait) over() bool {
	since := w.since
	if moved := w.of.begun.Add(time.Duration(w.of.moved.Load())); moved.After(since) {
		since = moved
	}
	left := w.of.limit - time.Since(since)
	if left <= 0 {
		return true
	}
	w.timer.Reset(left)
	return false
}

func (w *wait) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// noAnswer is the error of a wait that is over.
func (w *wait) noAnswer() error {
	return fmt.Errorf("%w: %w: %v", storage.ErrUnavailable, errNoAnswer, w.of.limit)
}

// bounded is ctx with a timeout, where there is one.
func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}
