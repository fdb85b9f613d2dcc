// Package redis keeps carts in Redis 6.2 or later (or Valkey): one server, a master that Sentinel watches, or a
// Cluster.
//
// A commit is one script and one round trip, for one cart or for two of one slot; so it is atomic for every client, and
// locks hold off every sidecar and every program that uses bsm/redislock on the same keys. Expiry is by the server's
// clock, to the millisecond. A document may be as large as Redis takes a value (512 MB).
//
// What a restart or a failover loses depends on the server. With appendonly and appendfsync always it loses nothing.
// Replication is asynchronous, so a failover loses the last changes and locks, unless [Config.MinReplicas] makes
// replicas confirm them before they are acknowledged. Also after such a loss, a commit on an old version is refused,
// and fences of leases go on rising by the server's clock.
//
// Keys, with the default prefix:
//
//	cart.u1.default                      hash: documents, versions, times
//	lock.cart.u1.default                 lock of the whole cart
//	lock.cart.u1.default.items           lock of a part; also .conditions
//	lock.cart.u1.default.metadata.notes  lock of a metadata key
//	queue.cart.u1.default                who holds what and who waits, while anybody does
//	fence.cart.u1.default                sorted set: leases by their end, and the last fence
//	index.cart.u1                        set: the identifier's instances
//
// The calls of a process share one connection to each server, and their system calls. What would hold up others, or is
// about its own connection, takes one of the driver's pool: large commands, WAIT for replicas, subscriptions, and
// commands that a server has redirected. See shared.go.
//
// The package imports storage, cart and go-redis.
package redis
