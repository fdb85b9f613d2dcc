// Package storage is the contract between Sidecart and the places where carts live: the [Store] interface with its one
// atomic commit, the optional [Locker], the sentinels, and [State] with [Apply], the reference of what a commit means.
// The contract also says how a State becomes one value ([EncodeState]), when nothing is left of it ([State.Empty]) and
// until when it counts ([State.Ends]).
//
// A backend that can keep a whole State under one name is a driver of package cell, which makes a Locker of it. Redis
// uses scripts instead, and must be indistinguishable.
//
// Package storage imports cart and the standard library, never a backend.
//
// # Glossary
//
// These words mean one thing each, in code, documents and messages.
//
//   - part: what a lock covers and what has a version of its own: items, conditions, or one metadata key.
//   - version: a number that rises with each change of a cart; a part has that of its own last change.
//   - commit: one conditional change of a cart, in one atomic step of the backend.
//   - conflict: the outcome of a commit that was computed from a state which is no longer there; nothing was changed.
//   - claim: a request for a lock. It is granted, or waits in the queue of the cart's name.
//   - lock: the right of a token over some parts. It is either a turn or a lease.
//   - turn: the lock of a sidecar for one change of its own; it lasts one round trip.
//   - lease: the lock of a client, for as long as the client asks for; it has a fence and is remembered.
//   - token: the secret by which the holder of a lock proves that the lock is its own.
//   - fence: a number of a lease that is greater than that of every earlier lease of the same name.
//   - queue: the claims that wait for a lock of one cart, first come first served. A sidecar has a queue of its own for the
//     changes of its clients, and waits in the backend's queue once for all of them.
//   - duration, TTL: a duration is how long a lock lives, a TTL is how long a cart or a place in a queue does.
//   - hand-over: a swap or a merge, which moves a cart to another name.
package storage
