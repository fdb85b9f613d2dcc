// Package locktest is the suite of what locks and leases promise, driven through [lock.Coordinator] over a real
// backend: exclusion, order, fairness, wake-ups, expiry, fences, errors. Every locking backend passes [Run].
//
// It imports lock, storage, cart and testing, never a backend.
package locktest
