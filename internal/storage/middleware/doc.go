// Package middleware has the stores over other stores: each adds one thing to every call, and changes nothing else.
//
// A decorator writes out every method of [storage.Store] and [storage.Locker] and embeds neither, so that a new method
// does not compile until each decorator has decided what to do with it. It is a Locker if the store below is one. Other
// powers of a backend stay reachable by [storage.As]. Contexts go through unchanged. The context of a commit that
// carries the changes of several calls knows them all: see [storage.Callers].
//
// Package middleware imports cart and storage, never a backend.
package middleware
