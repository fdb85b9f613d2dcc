//go:build linux

package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A look that takes long is followed by a long pause, so that most of the processor time goes to what is waited for.
func TestPollPauses(t *testing.T) {
	for _, c := range []struct {
		look  time.Duration
		looks int // within ten seconds
	}{
		{time.Millisecond, 197}, // each with 50 ms behind it
		{300 * time.Millisecond, 9},
		{2 * time.Second, 4}, // a second behind each
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			looks := 0
			err := Poll(ctx, func(context.Context) error {
				looks++
				time.Sleep(c.look)
				return errors.New("not yet")
			}, nil)
			if looks != c.looks || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%d looks of %s in 10s, want %d: %v", looks, c.look, c.looks, err)
			}
		})
	}
}
