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

// cgroupLimit is the file with a container's memory limit. Tests use another file.
var cgroupLimit = "/sys/fs/cgroup/memory.max"

// collectAt is how far the heap grows between two collections, in percent of the live heap. A sidecar's live heap is a
// few MiB. With the default of 100 it would collect about every hundred changes, and each collection takes processor
// time from the app and from waiting changes. At 200 the 99th percentile of a change is about half of that at 50, and
// an idle sidecar is no larger.
const collectAt = 200

// tuneMemory sets up the garbage collector for a small neighbour of an app. It runs seldom while the heap is small, and
// often near the container's limit. GOGC and GOMEMLIMIT in the environment win. tuneMemory returns the limit, or
// math.MaxInt64 for none.
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
	return debug.SetMemoryLimit(-1) // -1 only reads the limit
}

// containerLimit returns nine tenths of the smaller of two limits: that of the variable which Kubernetes sets, and that
// of the cgroup. For a container without a limit, the variable has the memory of the node. So if the cgroup has no
// limit, there is none.
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

// programMemory is the memory of the program's own pages, which count toward the container's limit too: 34 MiB once all
// of it was used, less ten of the 13 MiB that nine tenths of the default limit leave.
const programMemory = 24 << 20

// fitMemory returns how much the Go heap may use: the process's memory less the program itself and what store has
// outside of the heap, which the collector does not know of.
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

// memoryLimit returns nine tenths of a container's limit. The rest is room for what is not on the heap. It returns
// false if there is no limit.
func memoryLimit(raw string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(raw), 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/10 {
		return 0, false
	}
	return n / 10 * 9, true
}
