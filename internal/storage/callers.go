package storage

import "context"

// WithCallers returns ctx for a commit that carries the changes of several calls, whose contexts are callers, in order.
// It ends when ctx does, has the values of the first caller before its own, and tells [Callers] of all. A tracer makes
// the span of the commit a child of the first caller's, and links it to the others'.
func WithCallers(ctx context.Context, callers []context.Context) context.Context {
	if len(callers) == 0 {
		return ctx
	}
	// Only the values of the first caller's context are passed on, not its end.
	return &called{ctx, context.WithoutCancel(callers[0]), callers}
}

// Callers are the contexts of the calls whose changes ctx carries. If ctx is the context of one call, that is ctx
// itself.
func Callers(ctx context.Context) []context.Context {
	if callers, ok := ctx.Value(callersKey{}).([]context.Context); ok {
		return callers
	}
	return []context.Context{ctx}
}

type callersKey struct{}

// called is a context with the values of its callers.
type called struct {
	context.Context
	first   context.Context
	callers []context.Context
}

func (c *called) Value(key any) any {
	if key == (callersKey{}) {
		return c.callers
	}
	if v := c.first.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}
