package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
)

func median(fs []float64) float64 {
	if len(fs) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(fs))
	return sorted[(len(sorted)-1)/2]
}

func writeBackends(w io.Writer, b *testbed, o options, outcomes map[outcomeKey]*outcome) {
	fmt.Fprintf(w, "# Benchmarks of the backends\n\nWhat `make bench-backends` printed. Writers are processes that add an item to a cart, one after the other, %d times in all in a round, or with many clients for %s: "+
		"each through a sidecar of its own in locked mode, or by what a program would do on that backend by itself, which is a correct loop of read, change and write. "+
		"Everything on one machine (%d cores, %s/%s, %s), both ways of a backend interleaved. Operations per second are the median of %d rounds; "+
		"the times of one operation are over all rounds. The machine's load was %s when it began.\n",
		o.ops, crowdTime, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), o.rounds, b.load)
	for _, s := range scenarios {
		fmt.Fprintf(w, "\n## %s\n\n| way | operations per second | median | 99th percentile | longest | failed | lost |\n|---|---|---|---|---|---|---|\n", s.name)
		each(outcomes, func(b *backend, way string) {
			r := outcomes[outcomeKey{b, way, s}]
			fmt.Fprintf(w, "| %s | %.0f | %s | %s | %s | %d | %d |\n", way, r.rate(), milliseconds(quantile(r.ops, 0.5)),
				milliseconds(quantile(r.ops, 0.99)), milliseconds(quantile(r.ops, 1)), r.failed, r.lost)
		})
	}
	fmt.Fprint(w, "\n## Targets\n\n")
	writeTargets(w, backendTargets(outcomes))
}

// each visits the ways that were measured, in the order of the list.
func each(outcomes map[outcomeKey]*outcome, visit func(b *backend, way string)) {
	for _, b := range backends {
		for _, w := range b.ways() {
			if outcomes[outcomeKey{b, w.name, hotCart}] != nil {
				visit(b, w.name)
			}
		}
	}
}

func backendTargets(outcomes map[outcomeKey]*outcome) (ts []target) {
	var lost int64
	for _, o := range outcomes {
		lost += o.lost
	}
	ts = append(ts, target{"operations lost or counted twice, all rows", "0", fmt.Sprint(lost), lost == 0})
	for _, b := range backends {
		ways := b.ways()
		if len(ways) < 2 || outcomes[outcomeKey{b, ways[0].name, hotCart}] == nil {
			continue
		}
		at := func(s scenario) (ours, plain *outcome) {
			return outcomes[outcomeKey{b, ways[0].name, s}], outcomes[outcomeKey{b, ways[1].name, s}]
		}
		if ours, plain := at(hotCart); b.hot > 0 {
			times := ours.rate() / plain.rate()
			ts = append(ts, target{fmt.Sprintf("%s: operations per second ÷ those of the plain loop, %s", b, hotCart.name), fmt.Sprintf("≥ %.1f", b.hot), fmt.Sprintf("%.1f", times), times >= b.hot})
		}
		ours, plain := at(coldCart)
		times := float64(quantile(ours.ops, 0.5)) / float64(quantile(plain.ops, 0.5))
		ts = append(ts, target{fmt.Sprintf("%s: median operation ÷ that of the plain loop, %s", b, coldCart.name), fmt.Sprintf("≤ %.1f", mostLatency), fmt.Sprintf("%.2f", times), times <= mostLatency})
	}
	return ts
}

// mostLatency is how many times that of the plain loop an operation may take that meets nobody.
const mostLatency = 1.6
