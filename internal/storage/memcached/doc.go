// Package memcached keeps carts in Memcached: one value per cart, locks and queue inside it, changed by gets and cas of
// the text protocol, which every version has. Its guarantees are:
//
//   - A change is stored only where the value is still the one that it was computed from, also when the server was
//     restarted in between (see Revisions).
//   - Not durable: a server that restarts has forgotten its carts, and one that runs full forgets the carts that were
//     touched least. A cart that was forgotten has expired early: its etags and leases never match its successor. What
//     a server has forgotten is told by [storage.Advisor], as far as it can be seen.
//   - Expiry is exact to the millisecond by the clocks of the sidecars (see Clocks). The item itself has whole seconds,
//     and lives for one to three seconds longer.
//   - Waiters for a lock poll, with jitter, every 2 to 20 ms. Those of the same sidecar are woken at once.
//   - No two carts share an atomic step.
//   - A cart must fit an item of the server (-I, 1 MiB where nothing is said). A larger one is refused before it is
//     sent.
//   - Carts cannot be listed, counted or flushed. Memcached does not list keys but for debugging, and an index would be
//     a second key, which may be forgotten by itself and then lacks carts that are there. Flush_all would delete what
//     others keep in the same server.
//
// # Revisions
//
// A cas unique is a number that a server counts from 1 when it starts. One from before a restart may be that of another
// value after it, and a cas with it would overwrite a change that the writer has not seen. So each connection begins by
// reading the epoch: a random word under a key of its own, which whoever does not find it there adds. It is in the
// memory of one process of the server, as is the other end of the connection. A revision is the number that the client
// has given the epoch, and the unique. It is used only on a connection of the same epoch, which leads to the process
// that gave the unique. Where the epoch is another one, nothing is sent: the change starts over with what is there now.
// An epoch that was itself forgotten costs a retry, and nothing else.
//
// That needs connections that end where the server ends: a balancer of TCP keeps them apart, a proxy that speaks the
// protocol may not. An address must lead to one server.
//
// A value is deleted by a cas with a negative expiry, which the protocol defines as expired at once: the command delete
// takes no unique.
//
// # Clocks
//
// Memcached tells its time in whole seconds, which is too coarse for locks. The clocks of the sidecars count, so they
// must agree, as those of a cluster's nodes do by NTP. Where they differ, a lock or a cart ends early or late for
// others by the difference. A stale holder writes nothing even then, since its lock is in the value that the cas
// compares: who took the lock has replaced that value. Advice tells of a sidecar whose clock is seconds away from the
// server's.
//
// Fences are the time in microseconds, and one more than the last where that is not greater. While the value is there,
// they rise by themselves. When it has gone, the clock alone makes the next one greater: it must not be behind that of
// the sidecar which gave the last by more than a server takes to restart, or a value to be forgotten.
//
// # Servers
//
// A cart lives on one of the servers, chosen as php-memcached does with OPT_LIBKETAMA_COMPATIBLE. A server that is down
// makes its carts unavailable. Nothing moves to another one: it would be back with what it had before.
//
// # The library
//
// gomemcache speaks the protocol. It was chosen since it has gets and cas and is kept; no library that can be had has
// contexts as well. So connections are ours: each call borrows one, gives it the deadline of its context, and hands it
// to a client of gomemcache that has this connection and no other.
//
// It imports storage, storage/cell, cart and gomemcache.
package memcached
