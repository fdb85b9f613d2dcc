// Package lock decides who may change a cart and when: simple and locked mode, the queue of each cart, the gathering of
// concurrent changes into one commit, real locks under contention, the tripwire, and hand-overs between carts. It works
// over any [storage.Store].
//
// It imports storage and cart, never a backend.
package lock
