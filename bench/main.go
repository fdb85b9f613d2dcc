package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// opsPerRound is how many operations all processes of a round make together.
const opsPerRound = 100

// processCounts are over how many processes a round is split.
var processCounts = []int{1, 2, 5}

type options struct {
	rounds   int
	starts   int
	markdown string
	sidecar  string
	crowd    time.Duration
	backends bool
	events   bool
	faults   bool
	ops      int
	calls    time.Duration
	only     []string // backends; none stands for all
	at       places
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == workerCommand {
		os.Exit(runWorker(os.Stdin, os.Stdout))
	}
	o := options{at: places{}}
	flag.IntVar(&o.rounds, "rounds", 15, "how often each row is measured; the median counts")
	flag.IntVar(&o.starts, "starts", 15, "how often the start of a sidecar is measured")
	flag.StringVar(&o.markdown, "markdown", "", "write the result to this `file` as well, and plots of it to the folder plots beside it")
	flag.StringVar(&o.sidecar, "sidecar", "", "measure this `program` instead of building cmd/sidecar")
	flag.DurationVar(&o.crowd, "crowd", 0, "measure a crowd of clients on one cart for this `time` for each row, and nothing else")
	flag.DurationVar(&o.calls, "calls", 0, "measure what each call costs for this `time` for each row of a round, and nothing else")
	flag.BoolVar(&o.backends, "backends", false, "measure every backend of this version, and nothing else")
	flag.BoolVar(&o.events, "events", false, "measure how long events take on every backend, and what streams cost, and nothing else")
	flag.BoolVar(&o.faults, "faults", true, "with -backends, break each backend under load as well, which takes minutes")
	flag.IntVar(&o.ops, "ops", 1000, "operations in a round, with -backends")
	flag.Func("only", "with -backends, the `NAME` of a backend to measure, such as PostgreSQL; may be repeated", func(s string) error {
		if !slices.ContainsFunc(backends, func(b *backend) bool { return b.String() == s }) {
			return fmt.Errorf("must be one of %v", backends)
		}
		o.only = append(o.only, s)
		return nil
	})
	flag.Func("at", "with -backends, `NAME=PLACE` of a server that runs already, such as DynamoDB=http://127.0.0.1:8000", func(s string) error {
		name, place, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("must be NAME=PLACE")
		}
		o.at[name] = place
		return nil
	})
	flag.Parse()

	if err := bounded(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bounded runs everything and ends on a signal. The time is far more than it takes: a benchmark that hangs must end.
func bounded(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	most := 10 * time.Minute
	if o.backends || o.calls > 0 {
		most = 2 * time.Hour
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return run(ctx, o, os.Stdout, os.Stderr)
}

func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	bed, err := newTestbed(ctx, o, progress)
	if err != nil {
		return err
	}
	defer bed.close()

	p := &page{illustrated: o.markdown != ""}
	if err := measure(ctx, bed, o, p, progress); err != nil {
		return err
	}
	if _, err := out.Write(p.Bytes()); err != nil || o.markdown == "" {
		return err
	}
	return p.save(o.markdown)
}

// measure measures what the options say, and writes the page.
func measure(ctx context.Context, bed *testbed, o options, p *page, progress io.Writer) error {
	switch {
	case o.crowd > 0:
		crowds, err := measureCrowd(ctx, bed, o.crowd, progress)
		if err != nil {
			return err
		}
		writeCrowd(p, bed, o.crowd, crowds)
	case o.calls > 0:
		samples, err := measureCalls(ctx, bed, o, progress)
		if err != nil {
			return err
		}
		writeCalls(p, bed, o, samples)
	case o.events:
		delays, err := measureEvents(ctx, bed, o, progress)
		if err != nil {
			return err
		}
		var costs []streamCosts
		for _, front := range []string{"gRPC", "HTTP/1.1"} {
			fmt.Fprintln(progress, "streams over", front)
			c, err := measureStreams(ctx, bed, front)
			if err != nil {
				return err
			}
			costs = append(costs, c)
		}
		writeEvents(p, bed, delays, costs)
	case o.backends:
		outcomes, survivals, err := measureBackends(ctx, bed, o, progress)
		if err != nil {
			return err
		}
		writeBackends(p, bed, o, outcomes, survivals)
	default:
		foot, err := measureFootprint(ctx, bed, o.starts)
		if err != nil {
			return err
		}
		samples, err := measureRows(ctx, bed, o.rounds, progress)
		if err != nil {
			return err
		}
		writeReport(p, bed, o, samples, foot)
	}
	return nil
}
