// Package storagetest is the conformance suite of [storage.Store]: every backend and every wrapper around one passes
// [Run], over the real thing and never a mock. What a backend cannot do it names in [Caps] with the reason, and the
// suite then asserts that it says so.
//
// It imports storage, cart and testing, never a backend.
package storagetest
