package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The crowd: more clients than anybody wants on one cart, for a while.
const (
	crowdProcesses = 5
	crowdClients   = 20 // in each process
	crowdItems     = 10 // in each process
	// crowdPatience is how long an operation may still wait after the end. The redislock rows need it.
	crowdPatience = 20 * time.Second
)

var crowdWays = []string{wayLocked, wayLinear, wayExponential, wayRueidis}

// crowd is the result of one way at one delay.
type crowd struct {
	took    time.Duration
	ops     []time.Duration
	clients []int64 // operations that each client made
	failed  int64
	lost    int64
}

func (c *crowd) perSecond() float64 { return float64(len(c.ops)) / c.took.Seconds() }

// fairness is the least served client's share of the most served one's.
func (c *crowd) fairness() float64 {
	return float64(slices.Min(c.clients)) / float64(max(1, slices.Max(c.clients)))
}

// carryOutCrowd makes operations by many clients at once until the time is up.
func carryOutCrowd(ctx context.Context, c client, o order) tally {
	var (
		t    tally
		mu   sync.Mutex
		wg   sync.WaitGroup
		over = time.Now().Add(o.For)
		bad  atomic.Int64
	)
	ctx, cancel := context.WithDeadline(ctx, over.Add(crowdPatience))
	defer cancel()
	t.Start = monotonic()
	for n := range o.Clients {
		// A sidecar admits 10,000 pieces of an item: some items more hold what all clients add.
		id := fmt.Sprintf("sku-%d-%d", o.Worker, n%crowdItems)
		wg.Go(func() {
			var mine []int64
			for time.Now().Before(over) {
				before := monotonic()
				if err := c.AddItem(ctx, o.Key, id); err != nil {
					bad.Add(1)
					continue
				}
				mine = append(mine, monotonic()-before)
			}
			mu.Lock()
			defer mu.Unlock()
			t.Ops = append(t.Ops, mine...)
			t.Clients = append(t.Clients, int64(len(mine)))
		})
	}
	wg.Wait()
	t.End = monotonic()
	t.Failed = bad.Load()
	return t
}

// measureCrowd measures each way with the crowd, once at each delay. Once is enough: every row is thousands of
// operations, and only factors matter.
func measureCrowd(ctx context.Context, b *testbed, d time.Duration, progress io.Writer) (map[row]*crowd, error) {
	f, err := newFleet(ctx, b)
	if err != nil {
		return nil, err
	}
	defer f.close()
	crowds := map[row]*crowd{}
	for _, delay := range []time.Duration{0, networkDelay} {
		for _, name := range crowdWays {
			fmt.Fprintf(progress, "%s, %s\n", name, delay)
			r := row{name, crowdProcesses, delay}
			if crowds[r], err = f.face(ctx, r, d); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return crowds, nil
}

// face is one row.
func (f *fleet) face(ctx context.Context, r row, d time.Duration) (*crowd, error) {
	w, _ := wayCalled(r.way)
	targets, done, err := f.targets(ctx, w, r)
	if err != nil {
		return nil, err
	}
	defer done()
	o := order{Way: r.way, Key: fmt.Sprintf("crowd-%d-%s", r.delay.Microseconds(), r.way), For: d, Clients: crowdClients}
	c := &crowd{}
	var tallies []tally
	if c.took, tallies, err = drive(f.writers, targets, o); err != nil {
		return nil, err
	}
	for i := range tallies {
		t := &tallies[i]
		c.ops = append(c.ops, t.durations()...)
		c.clients = append(c.clients, t.Clients...)
		c.failed += t.Failed
	}
	if len(c.ops) == 0 {
		return nil, errors.New("nobody was served")
	}
	conn, err := w.connect(targets[0])
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	got, err := conn.Quantity(ctx, o.Key)
	c.lost = int64(len(c.ops)) - got
	return c, err
}

func writeCrowd(w *page, b *testbed, d time.Duration, crowds map[row]*crowd) {
	fmt.Fprintf(w, "# A crowd on one cart\n\nWhat `make bench-crowd` printed. %d processes with %d clients each add an item to one and the same cart, as fast as they can, for %s; "+
		"a process has a sidecar of its own, or uses Redis by itself. The machine's load was %s when it began.\n", crowdProcesses, crowdClients, d, b.load)
	showCrowd(w, crowds)
	for _, delay := range []time.Duration{0, networkDelay} {
		fmt.Fprintf(w, "\n## %s\n\n| way | per second | median | 99th percentile | longest | least ÷ most served client | failed | lost |\n|---|---|---|---|---|---|---|---|\n", redisAt(delay))
		for _, name := range crowdWays {
			c := crowds[row{name, crowdProcesses, delay}]
			fmt.Fprintf(w, "| %s | %.0f | %s | %s | %s | %.2f | %d | %d |\n", name, c.perSecond(), milliseconds(quantile(c.ops, 0.5)),
				milliseconds(quantile(c.ops, 0.99)), milliseconds(quantile(c.ops, 1)), c.fairness(), c.failed, c.lost)
		}
	}
	fmt.Fprint(w, "\n## Targets\n\n")
	writeTargets(w, crowdTargets(crowds))
}

func crowdTargets(crowds map[row]*crowd) (ts []target) {
	for _, delay := range []time.Duration{0, networkDelay} {
		at := func(name string) *crowd { return crowds[row{name, crowdProcesses, delay}] }
		place := map[bool]string{true: "loopback", false: "1 ms"}[delay == 0]
		ours, linear, exponential := at(wayLocked), at(wayLinear), at(wayExponential)
		rate := ours.perSecond() / max(linear.perSecond(), exponential.perSecond())
		wait := float64(quantile(ours.ops, 1)) / float64(min(quantile(linear.ops, 1), quantile(exponential.ops, 1)))
		ts = append(ts,
			target{"operations per second ÷ those of the better redislock row, " + place, "≥ 10", fmt.Sprintf("%.1f", rate), rate >= 10},
			target{"longest wait ÷ that of the better redislock row, " + place, "≤ 0.10", fmt.Sprintf("%.3f", wait), wait <= 0.1},
			target{"least ÷ most served client, " + place, "≥ 0.50", fmt.Sprintf("%.2f", ours.fairness()), ours.fairness() >= 0.5},
			target{"lost or counted twice, " + place, "0", fmt.Sprint(ours.lost), ours.lost == 0},
		)
	}
	return ts
}
