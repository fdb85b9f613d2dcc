// Package cell makes a [storage.Locker] of a small driver: the engine of every backend that can keep a whole
// [storage.State] under one name.
//
// The engine owns what carts, commits, locks and queues mean, by the reference in package storage, and how a caller
// waits for a lock. A driver owns where records are kept, how several change in one step, which clock counts, and its
// connections. It knows nothing of locks.
//
// A driver offers one of two things:
//
//   - [Driver]: a transaction over the records of one cart or two.
//   - [Swapper]: a compare-and-swap of one value; [Swapping] makes a Driver of it.
//
// What else it can do, it says by the small interfaces in powers.go. Each has a fallback, so a driver without any of
// them is complete.
//
// It imports storage, cart and the standard library, never a driver.
package cell
