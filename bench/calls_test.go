package main

import (
	"strings"
	"testing"
	"time"
)

// The ratios of the report are of the rows that they name, and a target that is missed is marked.
func TestCallRatios(t *testing.T) {
	samples := map[callKey]*callSample{}
	for _, k := range callKinds() {
		for _, n := range callClients {
			samples[callKey{k.name, k.via, n}] = &callSample{
				perSecond: []float64{1000}, sidecarCPU: []float64{100}, redisCPU: []float64{1}, waits: []time.Duration{time.Millisecond},
			}
		}
	}
	set := func(kind, via string, clients int, s callSample) { samples[callKey{kind, via, clients}] = &s }
	set(emptyCall, grpcTCP, 16, callSample{perSecond: []float64{1, 20000, 20000}, sidecarCPU: []float64{20, 20, 90}})
	set(readCall("0.25 kB"), grpcTCP, 16, callSample{perSecond: []float64{15000}, sidecarCPU: []float64{30}})
	set(addCall, grpcTCP, 16, callSample{perSecond: []float64{10000}, sidecarCPU: []float64{60}})
	set(putCall, grpcTCP, 16, callSample{perSecond: []float64{10000}, sidecarCPU: []float64{56}})
	set(readCall("0.25 kB"), grpcTCP, 1, callSample{waits: []time.Duration{2 * time.Millisecond}})
	set(addCall, grpcTCP, 1, callSample{waits: []time.Duration{6 * time.Millisecond}})
	want := []struct {
		got string
		met bool
	}{{"1.50", true}, {"3.00", false}, {"2.80", true}, {"0.75", true}, {"0.50", false}, {"1.00", true}, {"3.00", false}}
	got := callRatios(samples)
	if len(got) != len(want) {
		t.Fatalf("%d targets, want %d", len(got), len(want))
	}
	for i, w := range want {
		if got[i].got != w.got || got[i].met != w.met {
			t.Errorf("%s: %s, met %v, want %s, %v", got[i].what, got[i].got, got[i].met, w.got, w.met)
		}
	}
	var report page
	writeCalls(&report, &testbed{load: "0"}, options{rounds: 3, calls: time.Second}, samples)
	if text := report.String(); !strings.Contains(text, "## 64 clients") || !strings.Contains(text, "4 of 7 targets met.") {
		t.Errorf("the report is %s", text)
	}
}

// Every kind of call is made, and the processor time that it takes is seen.
func TestCallsAreMade(t *testing.T) {
	b, err := newTestbed(t.Context(), options{}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	targets, p, err := b.callTargets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	for _, k := range callKinds() {
		s := &callSample{}
		if err := s.measure(t.Context(), targets, k, 0, 2, time.Millisecond, p.cmd.Process.Pid, b.redisPID); err != nil {
			t.Errorf("%s by %s: %v", k.name, k.via, err)
		} else if len(s.waits) < 2 || s.perSecond[0] <= 0 {
			t.Errorf("%s by %s: %d calls, %v per second", k.name, k.via, len(s.waits), s.perSecond)
		}
	}
	if used, err := processorTimes(p.cmd.Process.Pid, b.redisPID); err != nil || used[0] == 0 || used[1] == 0 {
		t.Errorf("processor times: %v, %v", used, err)
	}
}
