package main

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage"
)

// cgroupLimit is where a container finds its memory limit. Tests have it elsewhere.
var cgroupLimit = "/sys/fs/cgroup/memory.max"

// collectAt is how far the heap grows between two collections, in percent of what lives. A sidecar's live heap is a few
// MiB: by the default of 100 it would collect every hundred changes or so, and each collection takes processor time
// from the app and from the changes that wait for one another. At 200 the 99th percentile of a change is about half of
// that at 50, and an idle sidecar is no larger.
const collectAt = 200

// tuneMemory makes the collector fit a small neighbour of an app: seldom while the heap is small, and hard before the
// container's limit. GOGC and GOMEMLIMIT in the environment win. It returns the limit, math.MaxInt64 for none.
func tuneMemory(env map[string]string) int64 {
	if env["GOGC"] == "" {
		debug.SetGCPercent(collectAt)
	}
	if env["GOMEMLIMIT"] == "" {
		cgroup, err := os.ReadFile(cgroupLimit)
		if limit, ok := containerLimit(env[config.MemoryLimitVariable], string(cgroup), err == nil); ok {
			debug.SetMemoryLimit(limit)
		}
	}
	return debug.SetMemoryLimit(-1) // which only asks
}

// containerLimit is nine tenths of the smaller of two limits: the one that Kubernetes tells the container, and that of
// its cgroup. For a container without a limit, Kubernetes tells the memory of the node. So if the cgroup has no limit,
// there is none.
func containerLimit(told, cgroup string, haveCgroup bool) (limit int64, ok bool) {
	own, bounded := memoryLimit(cgroup)
	if haveCgroup && !bounded {
		return 0, false
	}
	limit, ok = memoryLimit(told)
	if bounded && (!ok || own < limit) {
		return own, true
	}
	return limit, ok
}

// programMemory is what the program itself takes, whose pages count as the container's too: 22 MiB, less the tenth that
// the limit leaves where it is the default one.
const programMemory = 10 << 20

// fitMemory leaves, of what the process may use, room for the program and for what store has outside of Go's heap,
// which the collector does not know of, and returns the rest.
func fitMemory(limit int64, store storage.Store) int64 {
	if limit == math.MaxInt64 {
		return limit
	}
	outside := int64(programMemory)
	if s, ok := storage.As[storage.OutsideHeap](store); ok {
		outside += s.OutsideHeap()
	}
	limit = max(limit/2, limit-outside)
	debug.SetMemoryLimit(limit)
	return limit
}

// memoryLimit is nine tenths of a container's limit, which leaves room for what is not the heap; false where there is
// no limit.
func memoryLimit(raw string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(raw), 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/10 {
		return 0, false
	}
	return n / 10 * 9, true
}
