package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

func cgroupPaths(pattern string) []string {
	v1, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", pattern))
	v2, _ := filepath.Glob(filepath.Join(cgroupRoot, pattern))
	return append(v1, v2...)
}

func makeCgroups(name string) error {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return makeUnifiedCgroup(name)
	}
	hierarchies, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		// Names such as cpu,cpuacct have links beside them, which lead to the same place.
		if !h.IsDir() || h.Name() == "unified" {
			continue
		}
		parent := filepath.Join(cgroupRoot, h.Name())
		path := filepath.Join(parent, name)
		if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		// A new cpuset is empty, and nothing can run in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(parent, file))
			if err != nil {
				continue // another hierarchy
			}
			if err := os.WriteFile(filepath.Join(path, file), value, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func makeUnifiedCgroup(name string) error {
	controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for c := range strings.FieldsSeq(string(controllers)) {
		// Some cannot be handed on (cpu with real-time processes about); kubelet says which it misses.
		_ = os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
	err = os.Mkdir(filepath.Join(cgroupRoot, name), 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// removeCgroups removes the cgroups of that name (or pattern) whose processes have ended.
func removeCgroups(name string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		var failed error
		for _, top := range cgroupPaths(name) {
			var below []string
			_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					below = append(below, path)
				}
				return nil
			})
			for i := len(below) - 1; i >= 0; i-- {
				if err := unix.Rmdir(below[i]); err != nil && !errors.Is(err, unix.ENOENT) {
					failed = fmt.Errorf("remove cgroup %s: %w", below[i], err)
				}
			}
		}
		// The kernel lets go of a cgroup a moment after its last process.
		if failed == nil || time.Now().After(deadline) {
			return failed
		}
		time.Sleep(10 * time.Millisecond)
	}
}
