//go:build !linux

package cluster

import (
	"errors"
	"io"
	"os"
)

var errNotLinux = errors.New("a cluster needs Linux")

func inNetwork(int, func() error) error { return errNotLinux }

func removeCgroups(string) error { return errNotLinux }

func checkDisk(string) error { return errNotLinux }

func tryLock(*os.File) error { return errNotLinux }

func spawnSupervisor(string, *os.File, bool) (io.Closer, <-chan error, error) {
	return nil, nil, errNotLinux
}
