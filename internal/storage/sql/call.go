package sql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

// ErrAgain is below an error that left the database unchanged, and after which a second try may succeed: a deadlock, a
// connection that was lost before the commit, a row that somebody else inserted first.
var ErrAgain = errors.New("nothing was changed")

// How long to pause before another try.
const (
	shortestPause = time.Millisecond
	longestPause  = 50 * time.Millisecond
)

// Retry calls f until its error is not ErrAgain, or ctx ends.
func Retry(ctx context.Context, f func() error) error {
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		err := f()
		if !errors.Is(err, ErrAgain) {
			return err
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Ended(ctx, err)
		}
	}
}

// Bounded is ctx with a timeout, unless timeout is 0.
func Bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// Ended returns the error of a call whose context has ended. A deadline means that the database did not answer in time.
func Ended(ctx context.Context, cause error) error {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// Life is how long a store is open.
type Life struct {
	closing chan struct{}
	ctx     context.Context // ends some time after closing is closed
	cancel  context.CancelFunc
}

// closingGrace is how long calls in the database may take to end by themselves when the store is closed.
const closingGrace = time.Second

// NewLife begins a life.
func NewLife() *Life {
	l := &Life{closing: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Context lasts as long as ctx and the store.
func (l *Life) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(l.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// End ends the life. wait waits for the calls under way. They end with their result, or soon without one. A call that
// takes longer is abandoned, such as one whose server does not answer.
func (l *Life) End(wait func()) {
	close(l.closing)
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait()
	}()
	for range 2 { // without the context, calls end at once
		select {
		case <-done:
		case <-time.After(closingGrace):
		}
		l.cancel()
	}
}

// Over reports whether the life has ended.
func (l *Life) Over() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// Closing is closed when the life ends.
func (l *Life) Closing() <-chan struct{} { return l.closing }

// Usable fails if the life or ctx has ended.
func (l *Life) Usable(ctx context.Context) error {
	if l.Over() {
		return storage.ErrClosed
	}
	if ctx.Err() != nil {
		return Ended(ctx, nil)
	}
	return nil
}

// Every calls f repeatedly until the life ends. The times are random, because other sidecars do the same.
func (l *Life) Every(interval time.Duration, f func(ctx context.Context)) {
	timer := time.NewTimer(interval/2 + rand.N(interval))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			f(l.ctx)
			timer.Reset(interval/2 + rand.N(interval))
		case <-l.closing:
			return
		}
	}
}

// Sweep calls remove, which removes at most most rows, until it finds fewer. Nobody sees rows that have ended, so after
// an error they can wait for the next sweep.
func Sweep(ctx context.Context, most int64, remove func(ctx context.Context) (int64, error)) {
	for {
		removed, err := remove(ctx)
		if err != nil || removed < most {
			return
		}
		timer := time.NewTimer(longestPause) // others want to work too
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// SweepInterval is how often a store sweeps, and SweepBatch how many rows it removes at once.
const (
	SweepInterval = time.Minute
	SweepBatch    = 100
)
