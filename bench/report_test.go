package main

import (
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	ds := []time.Duration{5, 1, 4, 2, 3}
	for q, want := range map[float64]time.Duration{0: 1, 0.2: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(ds, q); got != want {
			t.Errorf("quantile(%v) = %d, want %d", q, got, want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("quantile of nothing = %d, want 0", got)
	}
}

func TestLost(t *testing.T) {
	for _, c := range []struct {
		lost []int64
		want string
	}{
		{[]int64{0, 0}, "0 lost"},
		{[]int64{20, 60}, "40% lost"},
		{[]int64{0, -100}, "-50% lost"},
	} {
		if got := (&sample{lost: c.lost}).lostText(); got != c.want {
			t.Errorf("lost %v: %q, want %q", c.lost, got, c.want)
		}
	}
}

func TestTargetsAreMarked(t *testing.T) {
	samples := map[row]*sample{}
	for _, w := range ways {
		for _, n := range processCounts {
			for _, d := range []time.Duration{0, networkDelay} {
				samples[row{w.name, n, d}] = &sample{
					rounds: []time.Duration{100}, ops: []time.Duration{10, 10, 100}, lost: []int64{0},
				}
			}
		}
	}
	foot := footprint{startMedian: 61 * time.Millisecond, residentBytes: 25 << 20, programBytes: 45_000_000}
	missed := func() (out []string) {
		for _, x := range targets(samples, foot) {
			if !x.met {
				out = append(out, x.what)
			}
		}
		return out
	}
	// All rows are equally quick here, which is too slow beside redislock.
	want := []string{"÷ the better", "÷ the better", "÷ the better", "÷ the better", "exec to ready"}
	got := missed()
	if len(got) != len(want) {
		t.Fatalf("missed %q, want those with %q", got, want)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("missed %q, want one with %q", got[i], want[i])
		}
	}
	// An operation that counts twice must not make up for one that is lost.
	samples[row{waySimple, 5, 0}].lost = []int64{1, -1}
	if got := missed(); len(got) != len(want)+1 || !strings.Contains(got[0], "lost") {
		t.Errorf("missed %q, want the lost operations among them", got)
	}
}
