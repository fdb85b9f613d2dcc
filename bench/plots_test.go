package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// waits are n of them, of which the last few are much longer.
func waits(n int, each time.Duration) (ds []time.Duration) {
	for i := range n {
		ds = append(ds, each+each*time.Duration(i)/time.Duration(n)+each*time.Duration(50/(n-i)))
	}
	return ds
}

// pages are those of all benchmarks, of invented results.
func pages(t *testing.T) map[string]*page {
	t.Helper()
	all := map[string]*page{}
	write := func(name string, f func(p *page)) {
		all[name] = &page{illustrated: true}
		f(all[name])
	}
	bed := &testbed{load: "0"}
	samples, crowds := map[row]*sample{}, map[row]*crowd{}
	for _, delay := range []time.Duration{0, networkDelay} {
		for i, w := range ways {
			for _, n := range processCounts {
				ops := waits(opsPerRound, time.Duration(i+1)*100*time.Microsecond+delay)
				samples[row{w.name, n, delay}] = &sample{rounds: []time.Duration{time.Duration(n*(i+1))*9*time.Millisecond + 50*delay}, ops: ops, lost: []int64{0}}
			}
		}
		for i, name := range crowdWays {
			crowds[row{name, crowdProcesses, delay}] = &crowd{took: time.Second, ops: waits(20000>>(4*i), time.Millisecond<<(2*i)), clients: []int64{1}}
		}
	}
	write("benchmarks.md", func(p *page) { writeReport(p, bed, options{}, samples, footprint{}) })
	write("crowd.md", func(p *page) { writeCrowd(p, bed, time.Second, crowds) })
	calls := map[callKey]*callSample{}
	for i, k := range callKinds() {
		for _, n := range callClients {
			calls[callKey{k.name, k.via, n}] = &callSample{perSecond: []float64{20000 / float64(1+i%6)}, sidecarCPU: []float64{20 + 9*float64(i)}, redisCPU: []float64{1}, waits: waits(100, time.Duration(50+20*i)*time.Microsecond)}
		}
	}
	write("benchmarks-calls.md", func(p *page) { writeCalls(p, bed, options{}, calls) })
	outcomes := map[outcomeKey]*outcome{}
	var delays []eventDelays
	for i, b := range backends {
		for n, w := range b.ways() {
			for k, s := range scenarios {
				outcomes[outcomeKey{b, w.name, s}] = &outcome{perSecond: []float64{float64((k*k*k+1)*(i+1)*100) / float64(1+n*13*k)}, ops: waits(100, time.Millisecond)}
			}
		}
		delays = append(delays, eventDelays{b, waits(100, 300*time.Microsecond<<(i+i/2))})
	}
	write("benchmarks-backends.md", func(p *page) { writeBackends(p, bed, options{}, outcomes, nil) })
	write("benchmarks-events.md", func(p *page) { writeEvents(p, bed, delays, nil) })
	return all
}

// Every benchmark that is written to a file has its plots beside it, with a text alternative. The same results give the
// same bytes.
func TestPlotsAreDrawn(t *testing.T) {
	folders := [2]string{t.TempDir(), t.TempDir()}
	for _, folder := range folders {
		for name, p := range pages(t) {
			if err := p.save(filepath.Join(folder, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := map[string][]string{
		"benchmarks.md":          {"time"},
		"crowd.md":               {"crowd"},
		"benchmarks-calls.md":    {"calls", "calls-fronts", "calls-alone"},
		"benchmarks-backends.md": {"backends"},
		"benchmarks-events.md":   {"events"},
	}
	image := regexp.MustCompile(`(?m)^!\[([^\]]+)\]\((.+)\)$`)
	for name, plots := range want {
		text, err := os.ReadFile(filepath.Join(folders[0], name))
		if err != nil {
			t.Fatal(err)
		}
		shown := image.FindAllStringSubmatch(string(text), -1)
		if len(shown) != len(plots) {
			t.Errorf("%s shows %d plots, want %q", name, len(shown), plots)
			continue
		}
		for i, m := range shown {
			if m[2] != "plots/"+plots[i]+".svg" || !regexp.MustCompile(`\d`).MatchString(m[1]) || strings.Contains(m[1], "NaN") {
				t.Errorf("%s shows %s as %q", name, m[2], m[1])
			}
			first, err := os.ReadFile(filepath.Join(folders[0], m[2]))
			if err != nil {
				t.Fatal(err)
			}
			if second, err := os.ReadFile(filepath.Join(folders[1], m[2])); err != nil || !bytes.Equal(first, second) {
				t.Errorf("%s is another one when it is drawn again, %v", m[2], err)
			}
		}
	}
}

// What is only printed names no plot, since none is written.
func TestPrintedPageHasNoPlots(t *testing.T) {
	var p page
	samples := map[row]*sample{}
	for _, w := range ways {
		for _, n := range processCounts {
			for _, d := range []time.Duration{0, networkDelay} {
				samples[row{w.name, n, d}] = &sample{rounds: []time.Duration{1}, ops: []time.Duration{1}, lost: []int64{0}}
			}
		}
	}
	writeReport(&p, &testbed{}, options{}, samples, footprint{})
	if strings.Contains(p.String(), "![") || len(p.plots) != 0 {
		t.Errorf("%d plots in %s", len(p.plots), p.String())
	}
}
