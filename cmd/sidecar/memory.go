package main

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// cgroupLimit is where a container finds its memory limit.
const cgroupLimit = "/sys/fs/cgroup/memory.max"

// tuneMemory makes the collector fit a small neighbour of an app: it runs twice as
// often as by default, and hard before the container's limit. GOGC and
// GOMEMLIMIT in the environment win.
func tuneMemory(env map[string]string) {
	if env["GOGC"] == "" {
		debug.SetGCPercent(50)
	}
	if env["GOMEMLIMIT"] != "" {
		return
	}
	raw, err := os.ReadFile(cgroupLimit)
	if err != nil {
		return
	}
	if limit, ok := memoryLimit(string(raw)); ok {
		debug.SetMemoryLimit(limit)
	}
}

// memoryLimit is nine tenths of a cgroup's limit, which leaves room for what is
// not the heap; false where there is no limit.
func memoryLimit(raw string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(raw), 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/10 {
		return 0, false
	}
	return n / 10 * 9, true
}
