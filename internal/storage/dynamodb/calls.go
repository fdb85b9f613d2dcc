package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// How a call is repeated. If the server is too busy, the call is repeated as long as the caller waits. If the answer is
// not a proper one, it is repeated a few times. If no answer comes in time, it is not repeated: the caller has waited
// long enough.
const (
	shortestPause = 25 * time.Millisecond
	longestPause  = time.Second
	attempts      = 3
)

// call is a call of DynamoDB.
type call struct {
	// timeout bounds each attempt once there is a connection; 0 leaves it to the context.
	timeout time.Duration
	// once says that no attempt may follow one that may have been carried out.
	once bool
	// doubt is set if an attempt may have been carried out although it ended with an error.
	doubt bool
	// run makes one attempt.
	run func(ctx context.Context) error
}

// do makes a call. Its errors are those of the client, or of package storage where the context ended.
func (d *driver) do(ctx context.Context, c *call) error {
	ctx, cancel := d.untilClosed(ctx)
	defer cancel()
	failed := 0
	var before error // of the attempt before
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		err := d.attempt(ctx, c)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			c.doubt = true
			return ended(ctx, before)
		}
		switch kindOf(err) {
		case busy:
		case unanswered:
			c.doubt = true
			if failed++; failed == attempts || c.once {
				return err
			}
		case unsent:
			if failed++; failed == attempts || isTimeout(err) {
				return err
			}
		case late:
			c.doubt = true
			return err
		default:
			return err
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ended(ctx, d.translate(err))
		}
		before = d.translate(err)
	}
}

// attempt makes one attempt. Its timeout does not include the time to connect.
func (d *driver) attempt(ctx context.Context, c *call) error {
	attempt, cancel := ctx, context.CancelFunc(func() {})
	if c.timeout > 0 {
		attempt, cancel = context.WithTimeout(ctx, d.dial+c.timeout)
	}
	defer cancel()
	return c.run(attempt)
}

// untilClosed is ctx until the driver is closed.
func (d *driver) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.open, func() { cancel(context.Cause(d.open)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// reading is a call that changes nothing.
func (d *driver) reading(ctx context.Context, run func(ctx context.Context) error) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	return d.failed(d.do(ctx, &call{timeout: d.read, run: run}))
}

// writing is a call that replaces the item of a key if it has the revision seen, and gives it the revision made. If an
// answer was lost, the item's revision tells whether the write was made.
//
// A write that demands that there is no item is never repeated if an earlier attempt may have been made. The repeat
// might arrive after the item was made and deleted again, and bring it back.
func (d *driver) writing(ctx context.Context, key cart.Key, seen, made uint64, run func(ctx context.Context) error) (bool, error) {
	if err := d.ready(ctx); err != nil {
		return false, err
	}
	c := &call{timeout: d.write, once: seen == 0, run: run}
	err := d.do(ctx, c)
	switch {
	case err == nil:
		return true, nil
	case code(err) == codeConditionFailed && !c.doubt:
		return false, nil
	case !c.doubt:
		return false, d.failed(err)
	case ctx.Err() == nil && kindOf(err) != late:
		it, lookErr := d.fetch(ctx, key)
		if lookErr == nil && it != nil && it.revision == made {
			return true, nil
		}
		if code(err) == codeConditionFailed {
			err = errors.New("an answer was lost, and the cart has changed since")
		}
	}
	return false, inDoubt(ctx, d.failed(err))
}

// inDoubt is the error of a write if any attempt may have been made, whatever the last attempt returned. It is not a
// refusal, because that would say that nothing was changed.
func inDoubt(ctx context.Context, err error) error {
	words, refused := storage.RefusalOf(err)
	switch {
	case !refused:
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w: %s", storage.ErrUnavailable, context.Cause(ctx), words)
	}
	return fmt.Errorf("%w: %s", storage.ErrUnavailable, words)
}

// failed is the error of a call as the engine sees it.
func (d *driver) failed(err error) error {
	if code(err) == codeTableMissing {
		d.checked.Again() // the table is checked again, and created if configured
	}
	return d.translate(err)
}
