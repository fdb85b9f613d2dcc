// Package sql keeps carts in a relational database: one row per cart, changed by
// transactions that read the row, run [storage.Apply] and write it back.
//
// SQLite is the database that it speaks today, by the URL "sqlite:PATH". What
// guarantees there are:
//
//   - Durable: an acknowledged change has been synced to the disk (WAL, synchronous FULL)
//     and survives the end of the process or of the machine. Commits that
//     come in while one is being synced share the next sync.
//   - Shared by the processes of one machine that open the same file, their
//     locks included; never put the file on a network file system.
//   - Any two carts change in one atomic step. Reads never wait for writers.
//   - Expiry is exact to the millisecond, by the clock of the process: that is the
//     machine's for all who can open the file. Expired rows are invisible
//     at once and deleted later, by commits, a few at a time.
//   - Waiters for a lock are woken at once within a process and poll, with jitter,
//     every 2 to 20 ms for the releases of others.
//   - Fences of leases are counted in the file, and outlive carts, flushes and restarts.
//   - No limit on the size of a cart below SQLite's own of 1 GB.
//
// The Store itself knows no SQL: what differs between databases is behind
// the engine interface, and their migrations are in a folder each. PostgreSQL and MySQL are another
// engine (row locks by SELECT … FOR UPDATE, LISTEN and NOTIFY as its wake-up),
// another folder, and another scheme in Open.
//
// It imports storage, cart and its drivers.
package sql
