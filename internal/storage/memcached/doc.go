// Package memcached keeps carts in Memcached: one value per cart, locks and queue inside it, changed by gets and cas of
// the text protocol, which every version has. Its guarantees are:
//
//   - A change is stored only if the value is still the one that it was computed from, also if the server was
//     restarted in between (see Revisions).
//   - Not durable: a server that restarts has forgotten its carts, and a full one forgets those that were least recently
//     used. A forgotten cart is like one that has expired early: its etags and leases never match its successor.
//     [storage.Advisor] tells what a server has forgotten, as far as it can be seen.
//   - Expiry is exact to the millisecond by the clocks of the sidecars (see Clocks). The item itself has whole seconds,
//     and lives for one to three seconds longer.
//   - Waiters for a lock poll, with jitter, every 2 to 20 ms. Those of the same sidecar are woken at once.
//   - No two carts share an atomic step.
//   - A cart must fit an item of the server (-I, 1 MiB by default). A larger one is refused before it is sent.
//   - Carts cannot be listed, counted or flushed. Memcached lists keys only for debugging. An index would be a second
//     key, which may be forgotten by itself and then lacks carts that are there. Flush_all would delete what others
//     keep in the same server.
//
// # Revisions
//
// A cas unique is a number that a server counts from 1 when it starts. A unique from before a restart may belong to
// another value after it, and a cas with it would overwrite a change that the writer has not seen. So each connection
// begins by reading the epoch: a random word under a key of its own. A client that does not find an epoch adds one. The
// epoch is in the memory of one process of the server, and the connection leads to the same process. A revision is the
// unique and the number that the client has given the epoch. It is used only on a connection of the same epoch, which
// leads to the process that gave the unique. If the epoch is another one, nothing is sent: the change starts over with
// what is there now. If the epoch itself was forgotten, that costs a retry and nothing else.
//
// That needs connections that end when the server ends. A balancer of TCP fulfils that; a proxy that speaks the
// protocol may not. An address must lead to one server.
//
// A value is deleted by a cas with a negative expiry, which the protocol defines as expired at once: the command delete
// takes no unique.
//
// # Clocks
//
// Memcached tells its time in whole seconds, which is too coarse for locks. The clocks of the sidecars count, so they
// must agree, as those of a cluster's nodes do by NTP. If they differ, a lock or a cart ends early or late for others
// by the difference. Even then a stale holder writes nothing, since its lock is in the value that the cas compares: the
// next holder has replaced that value. Advice tells of a sidecar whose clock is seconds away from the server's.
//
// A fence is the time in microseconds, or one more than the last fence if that is greater. While the value is there,
// fences rise even if the clock does not. When it has gone, the clock alone makes the next one greater. So that clock
// must not be behind that of the sidecar which gave the last fence by more than it takes a server to restart, or to
// forget a value.
//
// # Servers
//
// A cart lives on one of the servers, chosen as php-memcached does with OPT_LIBKETAMA_COMPATIBLE. A server that is down
// makes its carts unavailable. Nothing moves to another one: it would be back with what it had before.
//
// # The library
//
// gomemcache speaks the protocol. It was chosen since it has gets and cas and is maintained; no available library has
// contexts as well. So connections are ours: each call borrows one, gives it the deadline of its context, and hands it
// to a client of gomemcache that has this connection and no other.
//
// It imports storage, storage/cell, cart and gomemcache.
package memcached
