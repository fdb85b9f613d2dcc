package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// footprint is what a sidecar costs that does nothing.
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
