// Package postgres keeps carts in a PostgreSQL database, version 12 or later: one row per cart. Its guarantees are:
//
//   - Durable: an acknowledged change is on the server's disk, as far as its settings fsync and
//     synchronous_commit say. [storage.Advisor] tells where they do not.
//   - Shared by all that use the database, their locks included. The clock is the server's.
//   - A change takes two round trips: one that locks the rows and reads them, one that stores and commits. Any two
//     carts change in one transaction. Reads wait for nobody.
//   - Expiry is exact to the millisecond. Expired rows are invisible at once, and deleted in the
//     background within two hours, a hundred at a time.
//   - Waiters for a lock are woken at once, by LISTEN and NOTIFY. If notifications do not arrive, as through a pooler
//     that lends connections for one transaction, waiters ask every 2 to 20 ms.
//   - Fences of leases come from a sequence, and outlive carts, flushes and restarts.
//   - An audit trail, if wanted, is written in the transaction of each change.
//   - No limit on the size of a cart below PostgreSQL's own of 1 GB for a document.
//
// A transaction that is lost before its commit was sent is tried again as long as the caller waits, also after a
// deadlock. If the answer to a commit is lost, the outcome is unknown, and the error says so.
//
// The driver knows neither locks nor commits: see package cell. What it shares with other databases is in package sql.
//
// It imports storage, storage/cell, storage/sql, cart and pgx.
package postgres
