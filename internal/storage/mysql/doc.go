// Package mysql keeps carts in a database of MySQL 8 or later, or MariaDB 10.3 or later: one row per cart. Its
// guarantees are:
//
//   - Durable: an acknowledged change is on the server's disk, as far as its setting
//     innodb_flush_log_at_trx_commit says. [storage.Advisor] tells where it does not.
//   - Shared by all that use the database, their locks included. The clock is the server's.
//   - A change takes two round trips: one that locks the rows and reads them, one that stores and commits. Any two
//     carts change in one transaction. Reads wait for nobody.
//   - Expiry is exact to the millisecond. Expired rows are invisible at once, and deleted in the
//     background within two hours, a hundred at a time.
//   - Waiters for a lock are woken at once within a process, and ask every 2 to 20 ms for the
//     releases of others, since these servers cannot notify.
//   - Fences of leases come from an AUTO_INCREMENT, and outlive carts, flushes and restarts.
//   - An audit trail, if wanted, is written in the transaction of each change.
//   - A document may be as long as the server's max_allowed_packet allows: by default 16 MiB or more. A longer one is
//     refused before any of it is sent.
//
// sql_mode, time zone, character set and isolation level of the server do not matter: each connection sets its own.
//
// A transaction that is lost before its commit was sent is tried again as long as the caller waits, also after a
// deadlock. If the answer to a commit is lost, the outcome is unknown, and the error says so.
//
// The driver knows neither locks nor commits: see package cell. What it shares with other databases is in package sql.
//
// It imports storage, storage/cell, storage/sql, cart and the driver go-sql-driver/mysql.
package mysql
