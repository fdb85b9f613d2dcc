// Package file keeps carts in a folder: one file per cart. Its guarantees are:
//
//   - Durable: an acknowledged change has been synced to the disk, with its name, and survives the end of the process or
//     of the machine. A change is a new file that takes the place of the old one in one step, so a reader, a killed
//     process and a full disk find the one or the other, whole.
//   - Shared by the processes of one machine that use the same folder, their locks included. Never put the folder on a
//     network file system, and never let two machines mount it: advisory locks do not hold between them.
//   - No two carts share an atomic step, since two files cannot take their places at once.
//   - Expiry is exact to the millisecond, by the clock of the machine. Files of carts that have expired are invisible at
//     once and deleted later, by commits, a few at a time.
//   - Waiters for a lock are woken at once within a process and poll, with jitter, every 2 to 20 ms for the releases of
//     others.
//   - Fences rise by the clock of the machine, and by themselves while the file of the cart is there. After a flush, or
//     an hour after the last lease, the clock alone makes the next one greater: it must not have been set back.
//   - No limit on the size of a cart but the disk.
//   - A file that is damaged, or no cart of its name, is refused with its path. All others go on. To repair it, delete
//     it: that cart is lost.
//
// Below the folder there is one for each prefix, in it 256 folders, and in these the files. The names of a file are
// hashes, since a cart's names are none that every file system takes; the file has the true ones, which are compared
// when it is read. All carts of an identifier are in one folder.
//
// What a system call does cannot be cut short: where a disk hangs, so do calls, whatever their deadline.
//
// It needs Linux, for locks that belong to an open file and not to a process. It imports storage, storage/cell, cart
// and golang.org/x/sys.
package file
