// Package storage is the contract between Sidecart and the places where carts
// live: the [Store] interface with its one atomic commit, the optional
// [Locker], the sentinels, and [State] with [Apply], the reference of what a commit
// means. How a State becomes one value ([EncodeState]), when nothing is left of it
// ([State.Empty]) and until when it counts ([State.Ends]) are part of the contract too.
//
// A backend that can keep a whole State under one name is a driver of package
// cell, which makes a Locker of it. Redis does it otherwise, by scripts, and must be
// indistinguishable.
//
// Package storage imports cart and the standard library, never a backend.
package storage
