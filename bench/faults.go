package main

import (
	"context"
	"fmt"
	"time"
)

const (
	// faultAdds are how many adds are acknowledged in all.
	faultAdds = 5000
	// frozenFor is longer than a lease and a wait.
	frozenFor = 6 * time.Second
)

// survival says how adds ended while things broke.
type survival struct {
	backend    *backend
	carts      int
	faults     []string
	took       time.Duration
	ops        []time.Duration // of acknowledged adds, from the first attempt on
	unanswered int64           // attempts
	lost       int64           // acknowledged, and not in the cart
	twice      int64           // in the cart, and neither acknowledged nor without an answer
}

// fault is what breaks in the middle of a phase.
type fault struct {
	name   string
	strike func() error
}

// survive lets five writers add to carts, each through a sidecar of its own, while one thing after the other breaks.
func survive(ctx context.Context, bed *testbed, b *backend, carts, adds int) (*survival, error) {
	stage := new(hostTB)
	defer stage.cleanup()
	dir := stage.TempDir()
	at := server{place: dir}
	if start := b.durable; start != nil {
		at = start(stage)
	} else if b.start != nil {
		at = b.start(stage)
	}
	var writers []*writer
	var sidecars []*sidecarProcess
	var targets []string
	for range mostWriters {
		w, err := startWriter(ctx)
		if err != nil {
			return nil, err
		}
		stage.Cleanup(w.stop)
		p, err := bed.launch(ctx, "enabled", b.flags(at.place, dir))
		if err != nil {
			return nil, err
		}
		stage.Cleanup(p.stop)
		writers, sidecars, targets = append(writers, w), append(sidecars, p), append(targets, p.grpc)
	}
	s := &survival{backend: b, carts: carts}
	faults := at.faults(ctx, func() error {
		sidecars[0].kill()
		return bed.start(ctx, sidecars[0])
	})
	count := newCount()
	for i, f := range faults {
		s.faults = append(s.faults, f.name)
		o := order{Way: b.ways()[0].name, Key: "survivor", Carts: carts, Stubborn: true, Ops: adds / len(faults) / mostWriters}
		if i == 0 { // which makes up for what is rounded
			o.Ops += (adds - o.Ops*len(faults)*mostWriters) / mostWriters
		}
		took, tallies, err := breakIn(writers, targets, o, f.strike)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		s.took += took
		for worker := range tallies {
			o.Worker = worker
			s.ops = append(s.ops, tallies[worker].durations()...)
			s.unanswered += int64(len(tallies[worker].Unanswered))
			count.add(&o, &tallies[worker])
		}
	}
	c, err := connectSidecar(targets[0])
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s.lost, s.twice, err = count.compare(ctx, c)
	return s, err
}

// faults are those that the server can have, and the end of a sidecar.
func (s *server) faults(ctx context.Context, sidecar func() error) []fault {
	all := []fault{{"sidecar killed", sidecar}}
	if s.restart != nil {
		all = append(all, fault{"server killed", func() error { s.restart(); return nil }})
	}
	if s.pause != nil {
		all = append(all, fault{"server frozen", func() error {
			s.pause()
			defer s.resume()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(frozenFor):
				return nil
			}
		}})
	}
	return all
}

// breakIn carries out a stubborn order, and strikes when the first writer has done half of it.
func breakIn(writers []*writer, targets []string, o order, strike func() error) (time.Duration, []tally, error) {
	if err := begin(writers, targets, o); err != nil {
		return 0, nil, err
	}
	if _, err := writers[0].answer(); err != nil {
		return 0, nil, err
	}
	if err := strike(); err != nil {
		return 0, nil, err
	}
	for _, w := range writers[1:] {
		if _, err := w.answer(); err != nil {
			return 0, nil, err
		}
	}
	return finish(writers)
}

// count says how much must be in each cart: at least what was acknowledged, and at most that and what had no answer.
type count struct{ acknowledged, unanswered map[string]int64 }

func newCount() *count { return &count{map[string]int64{}, map[string]int64{}} }

func (c *count) add(o *order, t *tally) {
	for n := range t.Ops {
		c.acknowledged[o.key(n)]++
	}
	for _, n := range t.Unanswered {
		c.unanswered[o.key(n)]++
	}
}

// compare reads the carts and compares them one by one, so that an add that counts twice does not make up for one that
// is lost.
func (c *count) compare(ctx context.Context, carts client) (lost, twice int64, err error) {
	for key, n := range c.acknowledged {
		got, err := carts.Quantity(ctx, key)
		if err != nil {
			return 0, 0, err
		}
		lost += max(0, n-got)
		twice += max(0, got-n-c.unanswered[key])
	}
	return lost, twice, nil
}
