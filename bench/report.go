package main

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"
)

// quantile is the smallest of ds such that at least the share q of them is no greater.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(ds))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func (s *sample) total() time.Duration { return quantile(s.rounds, 0.5) }

// worstOverMedian is how many times the median operation the longest took.
func (s *sample) worstOverMedian() float64 {
	return float64(quantile(s.ops, 1)) / float64(quantile(s.ops, 0.5))
}

// lostShare is the share of operations that left no trace, over all rounds.
func (s *sample) lostShare() float64 {
	var sum int64
	for _, l := range s.lost {
		sum += l
	}
	return float64(sum) / float64(len(s.lost)*opsPerRound)
}

func (s *sample) lostText() string {
	if share := s.lostShare(); share != 0 {
		return fmt.Sprintf("%.0f%% lost", 100*share)
	}
	return "0 lost"
}

func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 10 {
		return fmt.Sprintf("%.2f ms", ms)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

func writeReport(w *page, b *testbed, o options, samples map[row]*sample, foot footprint) {
	fmt.Fprintf(w, "# Benchmarks\n\nWhat `make bench` printed. %d add-item operations in total on one cart, split over 1, 2 and 5 processes; "+
		"each process is a client with a sidecar of its own, or a client that uses Redis by itself. Everything on one machine (%d cores, %s/%s, %s), "+
		"all rows interleaved, median of %d rounds. The machine's load was %s when it began.\n",
		opsPerRound, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), o.rounds, b.load)
	showRows(w, samples)
	for _, delay := range []time.Duration{0, networkDelay} {
		title := "Redis on loopback"
		if delay > 0 {
			title = fmt.Sprintf("Redis at %s of network delay (round trip; measured: %s)", milliseconds(delay), milliseconds(b.added))
		}
		fmt.Fprintf(w, "\n## %s\n\nAll %d operations:\n\n", title, opsPerRound)
		table(w, samples, delay, func(s *sample) string { return milliseconds(s.total()) + ", " + s.lostText() })
		fmt.Fprint(w, "\nOne operation: median, 99th percentile, longest as a multiple of the median:\n\n")
		table(w, samples, delay, func(s *sample) string {
			return fmt.Sprintf("%s, %s, %.0f×", milliseconds(quantile(s.ops, 0.5)), milliseconds(quantile(s.ops, 0.99)), s.worstOverMedian())
		})
	}
	fmt.Fprint(w, "\n## Targets\n\n")
	writeTargets(w, targets(samples, foot))
}

func writeTargets(w io.Writer, all []target) {
	fmt.Fprint(w, "| what | target | measured | |\n|---|---|---|---|\n")
	met := 0
	for _, t := range all {
		mark := "missed"
		if t.met {
			mark = "met"
			met++
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", t.what, t.want, t.got, mark)
	}
	fmt.Fprintf(w, "\n%d of %d targets met.\n", met, len(all))
}

func table(w io.Writer, samples map[row]*sample, delay time.Duration, cell func(*sample) string) {
	fmt.Fprint(w, "| way |")
	for _, n := range processCounts {
		fmt.Fprintf(w, " %s |", processes(n))
	}
	fmt.Fprintf(w, "\n|%s\n", strings.Repeat("---|", len(processCounts)+1))
	for _, y := range ways {
		fmt.Fprintf(w, "| %s |", y.name)
		for _, n := range processCounts {
			fmt.Fprintf(w, " %s |", cell(samples[row{y.name, n, delay}]))
		}
		fmt.Fprintln(w)
	}
}

// target is something that the project set out to reach.
type target struct {
	what, want, got string
	met             bool
}

func targets(samples map[row]*sample, foot footprint) (ts []target) {
	at := func(way string, n int, delay time.Duration) *sample { return samples[row{way, n, delay}] }
	ratio := func(what string, a, b *sample, most float64) {
		r := float64(a.total()) / float64(b.total())
		ts = append(ts, target{what, fmt.Sprintf("≤ %.2f", most), fmt.Sprintf("%.2f", r), r <= most})
	}
	place := func(delay time.Duration) string {
		if delay == 0 {
			return "loopback"
		}
		return "1 ms"
	}

	lost := int64(0)
	longest := 0.0
	var longestAt row
	for r, s := range samples {
		if r.way != waySimple && r.way != wayLocked {
			continue
		}
		for _, l := range s.lost {
			lost += max(l, -l) // counted twice is as wrong as lost
		}
		if x := s.worstOverMedian(); x > longest {
			longest, longestAt = x, r
		}
	}
	ts = append(ts, target{"operations lost or counted twice, all sidecar rows", "0", fmt.Sprint(lost), lost == 0})
	for _, d := range []time.Duration{0, networkDelay} {
		ratio("locked ÷ simple, one sidecar, "+place(d), at(wayLocked, 1, d), at(waySimple, 1, d), 1.05)
	}
	for _, d := range []time.Duration{0, networkDelay} {
		ratio("five sidecars ÷ one, locked, "+place(d), at(wayLocked, 5, d), at(wayLocked, 1, d), 1.10)
	}
	better := func(n int, d time.Duration) *sample {
		a, b := at(wayLinear, n, d), at(wayExponential, n, d)
		if a.total() < b.total() {
			return a
		}
		return b
	}
	for _, c := range []struct {
		n     int
		delay time.Duration
		most  float64
	}{{1, networkDelay, 0.4}, {2, networkDelay, 0.4}, {5, networkDelay, 0.5}, {5, 0, 0.6}} {
		ratio(fmt.Sprintf("locked ÷ the better of both redislock rows, %d, %s", c.n, place(c.delay)), at(wayLocked, c.n, c.delay), better(c.n, c.delay), c.most)
	}
	ts = append(ts,
		target{fmt.Sprintf("longest ÷ median operation, worst sidecar row (%s, %d, %s)", longestAt.way, longestAt.processes, place(longestAt.delay)),
			"≤ 20", fmt.Sprintf("%.0f", longest), longest <= 20},
		target{"memory of an idle sidecar with Redis (VmRSS)", "≤ 25 MiB", fmt.Sprintf("%.1f MiB", float64(foot.residentBytes)/(1<<20)), foot.residentBytes <= 25<<20},
		target{"exec to ready, with Redis, median", "≤ 60 ms", fmt.Sprintf("%s (worst %s)", milliseconds(foot.startMedian), milliseconds(foot.startWorst)), foot.startMedian <= 60*time.Millisecond},
		target{"size of the program, static and stripped", "≤ 45 MB", fmt.Sprintf("%.1f MB", float64(foot.programBytes)/1e6), foot.programBytes <= 45_000_000},
	)
	return ts
}
