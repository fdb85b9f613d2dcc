package redis

import (
	"context"
	"testing"
	"time"
)

// A count that runs out of time returns what it has counted, and that there may be more.
func TestCountOutOfTime(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if over(ctx) {
		t.Error("a minute is over at once")
	}
	passed, stop := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer stop()
	if !over(passed) {
		t.Error("a deadline that has passed is not over")
	}
	c := &counting{most: 10}
	if !c.add(10) || c.add(1) || c.n != 11 {
		t.Errorf("counted %d of at most %d", c.n, c.most)
	}
}
