package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sidecart/sidecart/bench/chart"
)

// plotFolder is where the plots of a page are, beside it.
const plotFolder = "plots"

// page is what a run prints, as Markdown.
type page struct {
	bytes.Buffer
	// illustrated says that it shows plots. One that is only printed shows none.
	illustrated bool
	plots       []namedPlot
}

type namedPlot struct {
	name string
	chart.Chart
}

// show puts a plot here. alt says in words what can be seen on it.
func (p *page) show(name, alt string, c chart.Chart) {
	if !p.illustrated {
		return
	}
	fmt.Fprintf(p, "\n![%s](%s/%s.svg)\n", alt, plotFolder, name)
	p.plots = append(p.plots, namedPlot{name, c})
}

// save writes the page to a file and its plots beside it.
func (p *page) save(file string) error {
	folder := filepath.Join(filepath.Dir(file), plotFolder)
	if len(p.plots) > 0 {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	for _, plot := range p.plots {
		svg, err := plot.SVG()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, plot.name+".svg"), svg, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(file, p.Bytes(), 0o644)
}

// wayColors are those of the ways in every plot.
var wayColors = map[string]color.Color{
	wayLocked:      chart.Blue,
	waySimple:      chart.Sky,
	wayLinear:      chart.Orange,
	wayExponential: chart.Vermillion,
	wayRueidis:     chart.Green,
}

func waySeries(names []string) (series []chart.Series) {
	for _, name := range names {
		series = append(series, chart.Series{Name: name, Color: wayColors[name]})
	}
	return series
}

// medianAndTail are the series of plots of waits by kind.
var medianAndTail = []chart.Series{{Name: "median", Color: chart.Blue}, {Name: "99th percentile", Color: chart.Orange}}

func inMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func inMicroseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// ratio is NaN, which is not drawn, if there is nothing to divide by.
func ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}

func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

func clients(n int) string {
	if n == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%d clients", n)
}

// redisAt is where Redis is.
func redisAt(delay time.Duration) string {
	if delay == 0 {
		return "Redis on loopback"
	}
	return fmt.Sprintf("Redis at %s of network delay", milliseconds(delay))
}

// plottedWays leave out the way without a lock: what it gains it loses of the cart.
var plottedWays = []string{waySimple, wayLocked, wayLinear, wayExponential}

// showRows shows the time of all operations against the network delay and the number of processes.
func showRows(p *page, samples map[row]*sample) {
	c := chart.Chart{Title: fmt.Sprintf("Time of %d add-item operations on one cart", opsPerRound), Series: waySeries(plottedWays)}
	for _, delay := range []time.Duration{0, networkDelay} {
		panel := chart.Bars{Title: redisAt(delay), Axis: "milliseconds"}
		for _, n := range processCounts {
			g := chart.Group{Name: processes(n)}
			for _, way := range plottedWays {
				g.Values = append(g.Values, inMilliseconds(samples[row{way, n, delay}].total()))
			}
			panel.Groups = append(panel.Groups, g)
		}
		c.Panels = append(c.Panels, panel)
	}
	most := processCounts[len(processCounts)-1]
	at := func(way string) string { return milliseconds(samples[row{way, most, networkDelay}].total()) }
	p.show("time", fmt.Sprintf("Bars of the time of %d operations, by network delay and number of processes. With %d processes and Redis at %s: sidecars in locked mode %s, in simple mode %s; redislock with 5 ms back-off %s, with exponential back-off %s.",
		opsPerRound, most, milliseconds(networkDelay), at(wayLocked), at(waySimple), at(wayLinear), at(wayExponential)), c)
}

// showCrowd shows how long the operations of a crowd waited.
func showCrowd(p *page, crowds map[row]*crowd) {
	c := chart.Chart{Title: fmt.Sprintf("How long one of %d clients waits to change one cart", crowdProcesses*crowdClients), Series: waySeries(crowdWays)}
	var longest []string
	for _, delay := range []time.Duration{0, networkDelay} {
		panel := chart.Waits{Title: redisAt(delay)}
		for _, way := range crowdWays {
			ops := crowds[row{way, crowdProcesses, delay}].ops
			panel.Series = append(panel.Series, ops)
			longest = append(longest, fmt.Sprintf("%s %s", strings.TrimPrefix(way, "no sidecar, "), milliseconds(quantile(ops, 1))))
		}
		c.Panels = append(c.Panels, panel)
	}
	n := len(crowdWays)
	p.show("crowd", fmt.Sprintf("Lines of the waits by the share of operations that took no longer. The longest wait on loopback: %s. At %s: %s.",
		strings.Join(longest[:n], "; "), milliseconds(networkDelay), strings.Join(longest[n:], "; ")), c)
}

// manyClients is the number of clients of the targets and of the plot by front.
const manyClients = 16

// frontKinds are the calls that reach the sidecar on every front, and puts, which are measured over gRPC only.
func frontKinds() (kinds []string) {
	for _, size := range cartSizes {
		kinds = append(kinds, readCall(size.name))
	}
	return append(kinds, addCall, putCall)
}

// showCalls shows what calls cost beside an empty one, by clients and by front, and how long a lone call takes.
func showCalls(p *page, samples map[callKey]*callSample) {
	cpu := func(s *callSample) float64 { return median(s.sidecarCPU) }
	rate := func(s *callSample) float64 { return median(s.perSecond) }
	// beside is the value of a call, as a multiple of that of an empty one by gRPC on TCP.
	beside := func(of func(*callSample) float64, kind, via string, n int) float64 {
		s, empty := samples[callKey{kind, via, n}], samples[callKey{emptyCall, grpcTCP, n}]
		if s == nil || empty == nil {
			return math.NaN()
		}
		return ratio(of(s), of(empty))
	}
	var byClients, byFront chart.Chart
	byClients.Title = "A call beside an empty call, gRPC on TCP"
	for i, n := range callClients {
		byClients.Series = append(byClients.Series, chart.Series{Name: clients(n), Color: []color.Color{chart.Sky, chart.Blue, chart.Orange}[i]})
	}
	work := chart.Bars{Title: "Processor time of the sidecar", Axis: "times that of an empty call (less is better)", Mark: 1}
	speed := chart.Bars{Title: "Calls per second", Axis: "times the empty calls per second (more is better)", Mark: 1}
	for _, kind := range frontKinds() {
		w, s := chart.Group{Name: kind}, chart.Group{Name: kind}
		for _, n := range callClients {
			w.Values, s.Values = append(w.Values, beside(cpu, kind, grpcTCP, n)), append(s.Values, beside(rate, kind, grpcTCP, n))
		}
		work.Groups, speed.Groups = append(work.Groups, w), append(speed.Groups, s)
	}
	byClients.Panels = []chart.Panel{work, speed}
	small := readCall(cartSizes[0].name)
	p.show("calls", fmt.Sprintf("Bars of processor time and of calls per second beside an empty call, by call and number of clients. With %s, a small read takes %.2f times the processor time of an empty call, an add %.2f times and a put with etag %.2f times.",
		clients(manyClients), beside(cpu, small, grpcTCP, manyClients), beside(cpu, addCall, grpcTCP, manyClients), beside(cpu, putCall, grpcTCP, manyClients)), byClients)

	byFront.Title = "Processor time of the sidecar by front, " + clients(manyClients)
	fronts := []string{grpcTCP, grpcSocket, httpTCP, httpSocket}
	for i, via := range fronts {
		byFront.Series = append(byFront.Series, chart.Series{Name: via, Color: []color.Color{chart.Blue, chart.Sky, chart.Vermillion, chart.Orange}[i]})
	}
	work = chart.Bars{Axis: "times that of an empty call by gRPC on TCP (less is better)", Mark: 1}
	for _, kind := range frontKinds() {
		g := chart.Group{Name: kind}
		for _, via := range fronts {
			g.Values = append(g.Values, beside(cpu, kind, via, manyClients))
		}
		work.Groups = append(work.Groups, g)
	}
	byFront.Panels = []chart.Panel{work}
	p.show("calls-fronts", fmt.Sprintf("Bars of the sidecar's processor time beside an empty call, by call and front. An add takes %.2f times that of an empty call over gRPC on TCP, %.2f times over HTTP.",
		beside(cpu, addCall, grpcTCP, manyClients), beside(cpu, addCall, httpTCP, manyClients)), byFront)
	showLoneCalls(p, samples)
}

// showLoneCalls shows how long a call of the only client takes, beside Redis without a sidecar.
func showLoneCalls(p *page, samples map[callKey]*callSample) {
	wait := func(kind, via string, q float64) time.Duration {
		return quantile(samples[callKey{kind, via, 1}].waits, q)
	}
	panel := chart.Bars{Axis: "microseconds (less is better)"}
	for _, k := range callKinds() {
		if k.via != grpcTCP && k.via != direct {
			continue
		}
		panel.Groups = append(panel.Groups, chart.Group{
			Name:   strings.Replace(k.via, grpcTCP, "sidecar", 1) + ": " + k.name,
			Values: []float64{inMicroseconds(wait(k.name, k.via, 0.5)), inMicroseconds(wait(k.name, k.via, 0.99))},
		})
	}
	p.show("calls-alone", fmt.Sprintf("Bars of the median and the 99th percentile of a lone call. Medians: empty call %s µs, small read %s µs, add %s µs; GET by Redis itself %s µs.",
		microseconds(wait(emptyCall, grpcTCP, 0.5)), microseconds(wait(readCall(cartSizes[0].name), grpcTCP, 0.5)), microseconds(wait(addCall, grpcTCP, 0.5)), microseconds(wait(getRedis, direct, 0.5))),
		chart.Chart{Title: "Time of a call while nothing else is called, gRPC on TCP and go-redis", Series: medianAndTail, Panels: []chart.Panel{panel}})
}

// showBackends shows how many operations the sidecars make beside a plain loop.
func showBackends(p *page, outcomes map[outcomeKey]*outcome) {
	c := chart.Chart{Title: "Operations per second of sidecars beside a plain loop"}
	for i, s := range scenarios {
		c.Series = append(c.Series, chart.Series{Name: s.name, Color: []color.Color{chart.Blue, chart.Orange, chart.Sky, chart.Green}[i]})
	}
	panel := chart.Bars{Axis: "times the operations per second of the loop (more is better)", Log: true, From: 1}
	var crowds []string
	for _, b := range backends {
		ways := b.ways()
		if len(ways) < 2 || outcomes[outcomeKey{b, ways[1].name, hotCart}] == nil {
			continue
		}
		g := chart.Group{Name: b.String()}
		for _, s := range scenarios {
			g.Values = append(g.Values, ratio(outcomes[outcomeKey{b, ways[0].name, s}].rate(), outcomes[outcomeKey{b, ways[1].name, s}].rate()))
			if s == hotCrowd {
				crowds = append(crowds, fmt.Sprintf("%s %.1f", b, g.Values[len(g.Values)-1]))
			}
		}
		panel.Groups = append(panel.Groups, g)
	}
	if len(panel.Groups) == 0 {
		return // only backends were measured that no program uses by itself
	}
	c.Panels = []chart.Panel{panel}
	p.show("backends", fmt.Sprintf("Bars of the operations per second of sidecars as multiples of a plain loop's, by backend. With %s: %s.", hotCrowd.name, strings.Join(crowds, ", ")), c)
}

// showEvents shows how long events take.
func showEvents(p *page, delays []eventDelays) {
	panel := chart.Bars{Axis: "milliseconds from the call to the event", Log: true, From: 0.1}
	var medians []string
	for _, d := range delays {
		panel.Groups = append(panel.Groups, chart.Group{Name: d.backend.String(), Values: []float64{inMilliseconds(quantile(d.took, 0.5)), inMilliseconds(quantile(d.took, 0.99))}})
		medians = append(medians, fmt.Sprintf("%v %s", d.backend, milliseconds(quantile(d.took, 0.5))))
	}
	p.show("events", "Bars of the median and the 99th percentile of the time to an event, by backend. Medians: "+strings.Join(medians, ", ")+".",
		chart.Chart{Title: "Time from a change through one sidecar to the event in another", Series: medianAndTail, Panels: []chart.Panel{panel}})
}
