package cluster

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNetwork runs f on a thread that is in the network namespace of that process. What f opens stays there: a socket
// belongs to the namespace in which it was made.
func inNetwork(pid int, f func() error) error {
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer there.Close()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer here.Close()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		// A thread that cannot come back stays locked, and so ends with this goroutine.
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter the network of process %d: %w", pid, err)
			return
		}
		err := f()
		if unix.Setns(int(here.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// tryLock locks a file for as long as any process has it open, or fails at once.
func tryLock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// checkDisk says whether the machines' disks can be in that folder.
func checkDisk(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("a cluster's folder cannot be on an overlay file system, as %s is, since containers are overlays too: set TMPDIR to a folder that is not", dir)
	}
	return nil
}
