// Package dynamodb keeps carts in a table of Amazon DynamoDB, or of a server that speaks its protocol: one item per
// cart, with its locks and its queue. Its guarantees are:
//
//   - Durable: an acknowledged change is on several disks of the region and survives the end of any process.
//   - Shared by all sidecars that use the table, their locks included. The clocks of their machines must agree, since
//     DynamoDB has none to ask for: the one in its answers counts whole seconds. The machines of a cloud agree to within
//     a few milliseconds.
//   - One cart changes at a time; a hand-over between two takes two steps.
//   - Expiry is exact to the millisecond by the process's clock. The table's time to live deletes expired items, within
//     days; nobody is served them meanwhile.
//   - An item has at most 400 KB (409,600 bytes), so a cart has a little less. A larger one is refused before it is sent.
//   - Waiters for a lock are woken at once within a process, and look for the releases of others: the
//     first in the queue every 2 to 50 ms, those behind it less often.
//   - Fences are kept in the item, and rise with the clock if the item has gone.
//
// # The item
//
//	identifier  S  partition key: the prefix, "/", and the identifier
//	instance    S  sort key
//	state       B  the encoded state
//	revision    N  64 random bits, other ones with every write
//	expires     N  seconds since 1970 from which on nothing of it counts; none where it never ends
//
// No prefix has a slash in it, so those of one table never meet. Every write has the condition that the revision is
// still the one that was read, or that there is no item, or an expired one. Since revisions are random, none is
// repeated when an item was deleted and created anew. Since each write has a revision of its own, the revision shows
// whether a write was made whose answer was lost. The library's own retries are off, since they would take their own
// first write for somebody else's.
//
// # What it costs
//
// In read and write units, as the server counts them, for a cart of 1 KiB and of 10 KiB; a test holds them:
//
//	                                    1 KiB              10 KiB
//	load                                1 read             3 read
//	commit, with or without a lock      1 read, 1 write    3 read, 10 write
//	commit soon after another, or       1 write            10 write
//	after the look that granted a lock
//	conflict                            1 read             3 read
//	lock and release without a commit   2 read, 2 write    as many as the cart has
//	one look of a waiter                1 read             3 read
//	sign of life, each second           0.5 read
//	probe, each ten seconds             2 read, 2 write
//
// A write that loses a race costs as much as one that wins, and is made again. Count and Flush read the whole table,
// and Flush also pays a write for each cart.
//
// # Rights
//
// GetItem, PutItem, DeleteItem, Query and DescribeTable on the table; Scan to count and to flush; DescribeTimeToLive
// for advice; CreateTable and UpdateTimeToLive if the driver is to create the table. The table must have the key above
// and no other use.
//
// It imports storage, storage/cell, cart and Amazon's library.
package dynamodb
