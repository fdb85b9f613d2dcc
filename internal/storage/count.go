package storage

import "context"

// Counter is a store that can count its carts. Without it, the number of carts is unknown.
type Counter interface {
	// Count returns how many carts there are under the store's prefix, without reserved ones. A cart that comes or goes
	// during the count may be counted or not. Count stops at most, or when ctx ends after some were counted; more then
	// says that there may be more. An error means that nothing is known. Count looks at every cart, or at every key of
	// the backend, so use it seldom.
	Count(ctx context.Context, most int) (n int, more bool, err error)
}
