// Package file keeps carts in a folder: one file per cart. Its guarantees are:
//
//   - Durable: an acknowledged change has been synced to the disk, with its name, and survives the end of the process
//     or of the machine. A change is a new file that replaces the old one in one step. So a reader finds one of them,
//     whole, also after a crash or with a full disk.
//   - Shared by the processes of one machine that use the same folder, their locks included. Never put the folder on a
//     network file system, and never let two machines mount it: advisory locks do not hold between them.
//   - No two carts share an atomic step, since two files cannot take their places at once.
//   - Expiry is exact to the millisecond, by the clock of the machine. Files of carts that have expired are invisible
//     at once and deleted later, by commits, a few at a time.
//   - Waiters for a lock are woken at once within a process and poll, with jitter, every 2 to 20 ms for the releases of
//     others.
//   - Fences rise with the clock of the machine. While the file of the cart exists, they rise even if the clock does
//     not. After a flush, or an hour after the last lease, only the clock makes the next one greater: it must not have
//     been set back.
//   - No limit on the size of a cart but the disk.
//   - A file that is damaged, or that holds no cart of its name, is refused with its path. All other carts are served.
//     To repair it, delete the file: that cart is lost.
//
// The folder has one folder for each prefix. That has 256 folders with the files. File names are hashes, because not
// every file system can hold a cart's names. The file has the true names, which are compared when it is read. All carts
// of an identifier are in one folder.
//
// A system call cannot be interrupted: if the disk hangs, so do calls, whatever their deadline.
//
// It needs Linux, for locks that belong to an open file and not to a process. It imports storage, storage/cell, cart
// and golang.org/x/sys.
package file
