// Package memory keeps carts in a map of this process: for tests, and for a single pod that may lose its carts.
//
// Guarantees: every commit is atomic, of any two carts; expiry is exact to the millisecond; locks hold off all users of
// the one [Store], and their waiters are woken at once; fences of leases rise with the clock of the process, also from
// one process to the next. Nothing is shared with other processes, and nothing survives the process. There is no limit
// on size but the memory itself.
//
// It imports storage, storage/cell, cart and the standard library.
package memory
