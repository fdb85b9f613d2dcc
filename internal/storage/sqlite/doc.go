// Package sqlite keeps carts in a SQLite file: one row per cart. Its guarantees are:
//
//   - Durable: an acknowledged change has been synced to the disk (WAL, synchronous FULL)
//     and survives the end of the process or of the machine. Commits that
//     come in while one is being synced share the next sync.
//   - Shared by the processes of one machine that open the same file, their
//     locks included; never put the file on a network file system.
//   - Any two carts change in one atomic step. Reads never wait for writers.
//   - Expiry is exact to the millisecond, by the clock of the machine, which all processes that can open the file share. Expired rows are invisible
//     at once and deleted later, by commits, a few at a time.
//   - Waiters for a lock are woken at once within a process and poll, with jitter,
//     every 2 to 20 ms for the releases of others.
//   - Fences of leases are counted in the file, and outlive carts, flushes and restarts.
//   - No limit on the size of a cart below SQLite's own of 1 GB.
//
// The driver knows neither locks nor commits: see package cell. What it shares with other databases is in package sql.
//
// It imports storage, storage/cell, storage/sql, cart and SQLite's driver.
package sqlite
