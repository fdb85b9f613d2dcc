package storage

import "context"

// Counter is a store that can count its carts. The fallback is not to know how many there are.
type Counter interface {
	// Count is how many carts there are under the store's prefix, at no single instant: one that comes or goes
	// meanwhile may count or not. It stops at most, or when ctx ends with some counted; more then says that there may
	// be more. An error means that nothing is known. It looks at every cart, or at every key of the backend, and is for
	// seldom use.
	Count(ctx context.Context, most int) (n int, more bool, err error)
}
