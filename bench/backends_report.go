package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
)

func median(fs []float64) float64 {
	if len(fs) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(fs))
	return sorted[(len(sorted)-1)/2]
}

func writeBackends(w *page, b *testbed, o options, outcomes map[outcomeKey]*outcome, survivals []*survival) {
	fmt.Fprintf(w, "# Benchmarks of the backends\n\nWhat `make bench-backends` printed. Writers are processes that add an item to a cart, one after the other, %d times in all in a round, or with many clients for %s: "+
		"each through a sidecar of its own in locked mode, or by what a program would do on that backend by itself, which is a correct loop of read, change and write. "+
		"Everything on one machine (%d cores, %s/%s, %s), both ways of a backend interleaved. Operations per second are the median of %d rounds; "+
		"the times of one operation are over all rounds. The machine's load was %s when it began.\n",
		o.ops, crowdTime, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), o.rounds, b.load)
	showBackends(w, outcomes)
	for _, s := range scenarios {
		fmt.Fprintf(w, "\n## %s\n\n| way | operations per second | median | 99th percentile | longest | failed | lost |\n|---|---|---|---|---|---|---|\n", s.name)
		each(outcomes, func(b *backend, way string) {
			r := outcomes[outcomeKey{b, way, s}]
			fmt.Fprintf(w, "| %s | %.0f | %s | %s | %s | %d | %d |\n", way, r.rate(), milliseconds(quantile(r.ops, 0.5)),
				milliseconds(quantile(r.ops, 0.99)), milliseconds(quantile(r.ops, 1)), r.failed, r.lost)
		})
	}
	writeSurvivals(w, survivals)
	fmt.Fprint(w, "\n## Targets\n\n")
	writeTargets(w, backendTargets(outcomes, survivals))
}

func writeSurvivals(w io.Writer, survivals []*survival) {
	fmt.Fprintf(w, "\n## Faults\n\nFive writers, each with a sidecar of its own in locked mode, add until %d adds are acknowledged, and repeat those that failed after %s. "+
		"Meanwhile a sidecar is killed and started again, the server is killed and started again where it keeps what it acknowledged, and it is frozen for %s, which is longer than a lease (5 s). "+
		"An attempt without an answer was made once or not at all. The times are those from the first attempt of an add to its acknowledgement.\n\n"+
		"| backend | carts | faults | acknowledged | per second | median | 99th percentile | longest | without an answer | lost | counted twice |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
		faultAdds, failurePause, frozenFor)
	for _, s := range survivals {
		fmt.Fprintf(w, "| %s | %d | %s | %d | %.0f | %s | %s | %s | %d | %d | %d |\n", s.backend, s.carts, strings.Join(s.faults, ", "), len(s.ops),
			float64(len(s.ops))/s.took.Seconds(), milliseconds(quantile(s.ops, 0.5)), milliseconds(quantile(s.ops, 0.99)), milliseconds(quantile(s.ops, 1)), s.unanswered, s.lost, s.twice)
	}
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

func backendTargets(outcomes map[outcomeKey]*outcome, survivals []*survival) (ts []target) {
	var lost int64
	for _, o := range outcomes {
		lost += o.lost
	}
	ts = append(ts, target{"operations lost or counted twice, all rows", "0", fmt.Sprint(lost), lost == 0})
	var wrong int64
	for _, s := range survivals {
		wrong += s.lost + s.twice
	}
	ts = append(ts, target{"acknowledged adds lost, and adds counted twice, with faults", "0", fmt.Sprint(wrong), wrong == 0})
	for _, b := range backends {
		ways := b.ways()
		if len(ways) < 2 || outcomes[outcomeKey{b, ways[0].name, hotCart}] == nil {
			continue
		}
		at := func(s scenario) (ours, plain *outcome) {
			return outcomes[outcomeKey{b, ways[0].name, s}], outcomes[outcomeKey{b, ways[1].name, s}]
		}
		for _, hot := range []scenario{hotCart, hotCrowd} {
			if b.hot == 0 {
				continue
			}
			ours, plain := at(hot)
			times := ours.rate() / plain.rate()
			ts = append(ts, target{fmt.Sprintf("%s: operations per second ÷ those of the plain loop, %s", b, hot.name), fmt.Sprintf("≥ %.1f", b.hot), fmt.Sprintf("%.1f", times), times >= b.hot})
		}
		ours, plain := at(coldCart)
		times := float64(quantile(ours.ops, 0.5)) / float64(quantile(plain.ops, 0.5))
		ts = append(ts, target{fmt.Sprintf("%s: median operation ÷ that of the plain loop, %s", b, coldCart.name), fmt.Sprintf("≤ %.1f", mostLatency), fmt.Sprintf("%.2f", times), times <= mostLatency})
	}
	return ts
}

// mostLatency is how many times as long as in the plain loop an uncontended operation may take.
const mostLatency = 1.6
