package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// footprint is what an idle sidecar costs.
type footprint struct {
	startMedian, startWorst time.Duration
	residentBytes           int64
	programBytes            int64
}

// settle is how long a sidecar is left alone before its memory is read.
const settle = 5 * time.Second

func measureFootprint(ctx context.Context, b *testbed, starts int) (f footprint, err error) {
	info, err := os.Stat(b.sidecar)
	if err != nil {
		return f, err
	}
	f.programBytes = info.Size()
	var ds []time.Duration
	for range starts {
		p, err := b.startSidecar(ctx, b.redis, "enabled")
		if err != nil {
			return f, err
		}
		ds = append(ds, p.ready)
		p.stop()
	}
	f.startMedian, f.startWorst = quantile(ds, 0.5), quantile(ds, 1)

	p, err := b.startSidecar(ctx, b.redis, "enabled")
	if err != nil {
		return f, err
	}
	defer p.stop()
	c, err := connectSidecar(p.grpc)
	if err != nil {
		return f, err
	}
	defer c.Close()
	for i := range 10 {
		if err := c.AddItem(ctx, fmt.Sprintf("footprint-%d", i), itemID); err != nil {
			return f, err
		}
	}
	select {
	case <-ctx.Done():
		return f, ctx.Err()
	case <-time.After(settle):
	}
	f.residentBytes, err = residentBytes(p.cmd.Process.Pid)
	return f, err
}

// residentBytes is VmRSS, which counts the pages of the program itself too.
func residentBytes(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in the status of process %d", pid)
}

// processorTime is what a process has used of processors.
func processorTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	const user, system = 11, 12 // behind the name of the program
	if len(fields) <= system {
		return 0, fmt.Errorf("stat of process %d has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range []string{fields[user], fields[system]} {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // USER_HZ is 100
}

// processorTimes is [processorTime] of several.
func processorTimes(pids ...int) (times []time.Duration, err error) {
	for _, pid := range pids {
		t, err := processorTime(pid)
		if err != nil {
			return nil, err
		}
		times = append(times, t)
	}
	return times, nil
}
