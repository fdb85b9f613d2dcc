package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/testserver"
)

// backend is a store to measure, with what a program would do on it without a sidecar. Another one is a file such as
// backend_redis.go and a line in backends.
type backend struct {
	product config.Product
	// start starts its server; nil if the carts need none.
	start func(tb testserver.TB) server
	// durable starts one that keeps what it acknowledged when it is killed; nil is start.
	durable func(tb testserver.TB) server
	// flags make a sidecar use the server at place. dir is an empty folder that all sidecars share.
	flags func(place, dir string) []string
	// alone says that all writers share one sidecar: the carts are in its memory.
	alone bool

	// plain says in words what a program does by itself: a correct loop of read, change and write. "" is nothing.
	plain string
	// prepare makes what the loop needs at place, such as a table.
	prepare func(ctx context.Context, place string) error
	// connect makes a client that goes the plain way.
	connect func(place string) (client, error)
	// hot is how many times the operations of the plain loop the sidecars are to make on one cart with five writers; 0
	// sets no target.
	hot float64
}

// server is where the carts of a backend are. A function is nil if the server cannot do that.
type server struct {
	place string
	// pause freezes it, and resume lets it go on.
	pause, resume func()
	// restart ends it at once and starts it again, with everything that it acknowledged.
	restart func()
}

var backends = []*backend{redisBackend, memcachedBackend, dynamodbBackend, postgresBackend, mysqlBackend, sqliteBackend, fileBackend, memoryBackend}

func (b *backend) String() string { return b.product.String() }

const (
	mostWriters = 5
	manyCarts   = 50
)

// scenario is how writers meet.
type scenario struct {
	name           string
	writers, carts int
	// clients, where it is not 0, are how many each writer has, which add as fast as they can for crowdTime.
	clients int
}

// crowdTime is how long a crowd adds in each round.
const crowdTime = 3 * time.Second

var (
	hotCart   = scenario{name: "five writers, one cart", writers: mostWriters, carts: 1}
	hotCrowd  = scenario{name: "five writers of 20 clients each, one cart", writers: mostWriters, carts: 1, clients: crowdClients}
	coldCart  = scenario{name: "one writer, one cart", writers: 1, carts: 1}
	scenarios = []scenario{
		hotCart,
		hotCrowd,
		{name: "five writers, 50 carts", writers: mostWriters, carts: manyCarts},
		coldCart,
	}
)

// backendWays are both ways to use a backend.
func (b *backend) ways() []*way {
	ways := []*way{{name: b.String() + ", sidecar", connect: connectSidecar, locking: "enabled"}}
	if b.connect != nil {
		ways = append(ways, &way{name: b.String() + ", " + b.plain, connect: b.connect})
	}
	return ways
}

func backendWay(name string) (*way, bool) {
	for _, b := range backends {
		for _, w := range b.ways() {
			if w.name == name {
				return w, true
			}
		}
	}
	return nil, false
}

// outcome is all rounds of a scenario in one way.
type outcome struct {
	perSecond []float64 // by round
	ops       []time.Duration
	lost      int64
	failed    int64
}

func (o *outcome) rate() float64 { return median(o.perSecond) }

type outcomeKey struct {
	backend *backend
	way     string
	scenario
}

// places are servers that run already, by the name of the backend.
type places map[string]string

// measureBackends measures every backend of this version that has a server. Both ways of a backend are interleaved.
func measureBackends(ctx context.Context, bed *testbed, o options, progress io.Writer) (map[outcomeKey]*outcome, []*survival, error) {
	outcomes := map[outcomeKey]*outcome{}
	var survivals []*survival
	for _, b := range backends {
		if len(o.only) > 0 && !slices.Contains(o.only, b.String()) {
			continue
		}
		if !config.IsBuilt(b.product.Type, b.product.Dialect) {
			fmt.Fprintf(progress, "%s is not built into this version\n", b)
			continue
		}
		if err := measureBackend(ctx, bed, b, o, o.at[b.String()], outcomes, progress); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", b, err)
		}
		if b.alone || !o.faults {
			continue // the carts of one that is alone end with the sidecar
		}
		for _, carts := range []int{1, manyCarts} {
			fmt.Fprintf(progress, "%s: faults, carts: %d\n", b, carts)
			s, err := survive(ctx, bed, b, carts, faultAdds)
			if err != nil {
				return nil, nil, fmt.Errorf("%s, faults: %w", b, err)
			}
			survivals = append(survivals, s)
		}
	}
	return outcomes, survivals, nil
}

func measureBackend(ctx context.Context, bed *testbed, b *backend, o options, place string, outcomes map[outcomeKey]*outcome, progress io.Writer) error {
	stage := new(hostTB) // its servers end with it
	defer stage.cleanup()
	if place == "" && b.start != nil {
		place = b.start(stage).place
	}
	dir := stage.TempDir()
	if place == "" {
		place = dir
	}
	if b.prepare != nil {
		if err := b.prepare(ctx, place); err != nil {
			return err
		}
	}
	var writers []*writer
	var sidecars, plain []string
	for range mostWriters {
		w, err := startWriter(ctx)
		if err != nil {
			return err
		}
		stage.Cleanup(w.stop)
		writers = append(writers, w)
		plain = append(plain, place)
		if b.alone && len(sidecars) > 0 {
			sidecars = append(sidecars, sidecars[0])
			continue
		}
		p, err := bed.launch(ctx, "enabled", b.flags(place, dir))
		if err != nil {
			return err
		}
		stage.Cleanup(p.stop)
		sidecars = append(sidecars, p.grpc)
	}
	for round := range o.rounds {
		fmt.Fprintf(progress, "%s: round %d of %d\n", b, round+1, o.rounds)
		for n, s := range scenarios {
			ways := b.ways()
			for i := range ways {
				w := ways[(i+round)%len(ways)] // no way always comes second
				targets := plain
				if w.viaSidecar() {
					targets = sidecars
				}
				key := outcomeKey{b, w.name, s}
				if outcomes[key] == nil {
					outcomes[key] = new(outcome)
				}
				r := order{Way: w.name, Key: fmt.Sprintf("r%d-s%d-w%d", round, n, (i+round)%len(ways)), Ops: o.ops / s.writers, Carts: s.carts}
				if s.clients > 0 {
					r.Carts, r.Ops, r.Clients, r.For = 0, 0, s.clients, crowdTime
				}
				if err := outcomes[key].add(ctx, w, writers, targets[:s.writers], r); err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, s.name, err)
				}
			}
		}
	}
	return nil
}

// add makes one round.
func (o *outcome) add(ctx context.Context, w *way, writers []*writer, targets []string, r order) error {
	took, tallies, err := drive(writers, targets, r)
	if err != nil {
		return err
	}
	made := 0
	for i := range tallies {
		o.ops = append(o.ops, tallies[i].durations()...)
		made += len(tallies[i].Ops)
		o.failed += tallies[i].Failed
	}
	o.perSecond = append(o.perSecond, float64(made)/took.Seconds())
	c, err := w.connect(targets[0])
	if err != nil {
		return err
	}
	defer c.Close()
	// Cart by cart, so that one which counts twice does not make up for one that is lost.
	want := map[string]int64{}
	for worker := range targets {
		r.Worker = worker
		for n := range r.Ops {
			want[r.key(n)]++
		}
	}
	if r.Clients > 0 {
		want[r.Key] = int64(made)
	}
	for key, n := range want {
		got, err := c.Quantity(ctx, key)
		if err != nil {
			return err
		}
		o.lost += max(n-got, got-n)
	}
	return nil
}

// optimistic repeats a round of read, change and conditional write until nobody was quicker. Without pauses with
// jitter, several such loops would keep each other from succeeding.
func optimistic(ctx context.Context, round func() (done bool, err error)) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 32*time.Millisecond) {
		done, err := round()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(pause)):
		}
	}
}
