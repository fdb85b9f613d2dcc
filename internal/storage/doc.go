// Package storage is the contract between Sidecart and the places where carts
// live: the [Store] interface with its one atomic commit, the optional
// [Locker], the sentinels, and [Apply], the reference of what a commit
// means, which every backend that can hold a whole cart in one value runs as it
// stands.
//
// It imports cart and the standard library, never a backend.
package storage
