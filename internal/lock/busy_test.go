package lock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
)

// outlasting is a verb that takes longer to compute than its request may last.
type outlasting struct {
	cart.AddItem
	ctx context.Context
}

func (v outlasting) Apply(d *cart.Draft) error {
	<-v.ctx.Done()
	return v.AddItem.Apply(d)
}

// When the time of a request is over before the backend was asked, the backend is not asked any more, and not blamed:
// nothing was changed.
func TestSpentBeforeTheBackendIsAsked(t *testing.T) {
	own := errors.New("the sidecar's own bound")
	for _, tc := range []struct {
		name  string
		begin func() (context.Context, context.CancelFunc)
		busy  bool
		want  error
	}{
		{"a bound of the sidecar's own", func() (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(t.Context(), 20*time.Millisecond, own)
		}, true, lock.ErrBusy},
		{"the client's deadline", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 20*time.Millisecond)
		}, false, context.DeadlineExceeded},
		{"the client gave up", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			return ctx, cancel
		}, false, context.Canceled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := lock.New(openMemory(t), options())
			ctx, cancel := tc.begin()
			defer cancel()
			check := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, tc.want) || errors.Is(err, lock.ErrBusy) != tc.busy {
					t.Errorf("%s: %v, want %v", what, err, tc.want)
				}
			}
			_, err := c.Change(ctx, key, lock.Change{Verb: outlasting{item(t, "x", 1), ctx}, Scope: cart.PartItems})
			check("a change while it is computed", err)
			_, err = c.Change(ctx, key, lock.Change{Verb: item(t, "x", 1), Scope: cart.PartItems})
			check("a change before it is computed", err)
			_, err = c.Read(ctx, key)
			check("a read", err)
			if s := c.Status().Stats; s.Commits != 0 {
				t.Errorf("the backend was asked %d times", s.Commits)
			}
			if k := read(t, c, key); k.Exists() {
				t.Errorf("there is a cart at version %d", k.Version)
			}
		})
	}
}
