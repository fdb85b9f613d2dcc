package storage_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/sidecart/sidecart/internal/storage"
)

type nameKey struct{}

func named(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, nameKey{}, name)
}

// TestCallers: a commit of several calls has the values of the first and knows them all, but ends by itself.
func TestCallers(t *testing.T) {
	alone := named(t.Context(), "alone")
	if got := storage.Callers(alone); len(got) != 1 || got[0] != alone {
		t.Errorf("Callers of one call: %v", got)
	}
	if got := storage.WithCallers(alone, nil); got != alone {
		t.Errorf("with no callers: %v", got)
	}

	left := errors.New("it left")
	first, leave := context.WithCancelCause(named(t.Context(), "first"))
	second := named(t.Context(), "second")
	own, end := context.WithCancelCause(context.WithValue(t.Context(), callerless{}, "own"))
	ctx, cancel := context.WithCancel(storage.WithCallers(own, []context.Context{first, second}))
	defer cancel()

	if got := storage.Callers(ctx); !slices.Equal(got, []context.Context{first, second}) {
		t.Errorf("Callers: %v", got)
	}
	if got := ctx.Value(nameKey{}); got != "first" {
		t.Errorf("a value that callers have: %v", got)
	}
	if got := ctx.Value(callerless{}); got != "own" {
		t.Errorf("a value that no caller has: %v", got)
	}
	leave(left)
	if ctx.Err() != nil || context.Cause(ctx) != nil {
		t.Errorf("it ended with its caller: %v, %v", ctx.Err(), context.Cause(ctx))
	}
	ended := errors.New("ended")
	end(ended)
	<-ctx.Done()
	if got := context.Cause(ctx); !errors.Is(got, ended) {
		t.Errorf("ended because of %v", got)
	}
}

type callerless struct{}
