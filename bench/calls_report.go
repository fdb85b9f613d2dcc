package main

import (
	"fmt"
	"runtime"
	"time"
)

// row is the cells of a sample.
func (s *callSample) row() string {
	return fmt.Sprintf("%s | %s | %.0f | %.1f | %.1f", microseconds(quantile(s.waits, 0.5)), microseconds(quantile(s.waits, 0.99)),
		median(s.perSecond), median(s.sidecarCPU), median(s.redisCPU))
}

func microseconds(d time.Duration) string { return fmt.Sprintf("%d", d.Microseconds()) }

func writeCalls(w *page, b *testbed, o options, samples map[callKey]*callSample) {
	fmt.Fprintf(w, "# What a call costs\n\nWhat `make bench-calls` printed. Clients in one process make one call again and again, each for %s in a round, on carts of its own: "+
		"through one sidecar in locked mode with Redis, or on that Redis by go-redis. All rows are interleaved, on one machine (%d cores, %s/%s, %s) that the clients, the sidecar and Redis share. "+
		"Medians of %d rounds. Processor time is in milliseconds per 1,000 calls. The empty call is the health check of gRPC. The machine's load was %s when it began.\n",
		o.calls, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), o.rounds, b.load)
	showCalls(w, samples)
	for _, n := range callClients {
		fmt.Fprintf(w, "\n## %s\n\n| call | by | median µs | 99th percentile µs | per second | sidecar ms | Redis ms |\n|---|---|---|---|---|---|---|\n",
			clients(n))
		for _, k := range callKinds() {
			fmt.Fprintf(w, "| %s | %s | %s |\n", k.name, k.via, samples[callKey{k.name, k.via, n}].row())
		}
	}
	fmt.Fprint(w, "\n## Targets\n\n")
	writeTargets(w, callRatios(samples))
}

// callRatios are what the project set out to reach for the cost of a call, over gRPC on TCP.
func callRatios(samples map[callKey]*callSample) (ts []target) {
	at := func(kind string, clients int) *callSample { return samples[callKey{kind, grpcTCP, clients}] }
	alone := func(kind string) time.Duration { return quantile(samples[callKey{kind, direct, 1}].waits, 0.5) }
	most := func(what string, got, limit float64) {
		ts = append(ts, target{what, fmt.Sprintf("≤ %.2f", limit), fmt.Sprintf("%.2f", got), got <= limit})
	}
	least := func(what string, got, limit float64) {
		ts = append(ts, target{what, fmt.Sprintf("≥ %.2f", limit), fmt.Sprintf("%.2f", got), got >= limit})
	}
	read, small := readCall(cartSizes[0].name), at(emptyCall, manyClients)
	cpu := func(kind string) float64 { return median(at(kind, manyClients).sidecarCPU) / median(small.sidecarCPU) }
	rate := func(kind string) float64 { return median(at(kind, manyClients).perSecond) / median(small.perSecond) }
	wait := func(kind, by string) float64 {
		return float64(quantile(at(kind, 1).waits, 0.5)) / float64(quantile(at(emptyCall, 1).waits, 0.5)+alone(by))
	}
	most("processor time of a read ÷ of an empty call, 16 clients, 0.25 kB", cpu(read), 1.7)
	most("processor time of an add ÷ of an empty call, 16 clients", cpu(addCall), 2.6)
	most("processor time of a put with etag, 1.4 kB ÷ of an empty call, 16 clients", cpu(putCall), 2.8)
	least("reads per second ÷ empty calls per second, 16 clients, 0.25 kB", rate(read), 0.65)
	least("adds per second ÷ empty calls per second, 16 clients", rate(addCall), 0.55)
	most("median of a lone read ÷ (empty call + GET)", wait(read, getRedis), 1.25)
	most("median of a lone add ÷ (empty call + GET and SET)", wait(addCall, getSet), 1.4)
	return ts
}
