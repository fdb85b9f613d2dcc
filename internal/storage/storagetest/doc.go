// Package storagetest is the conformance suite of [storage.Store]. Every backend and every wrapper around one passes
// [Run], over real servers and never a mock. [Caps] names what a backend cannot do, with the reason, and the suite then
// asserts that the backend refuses it.
//
// It imports storage, cart and testing, never a backend.
package storagetest
