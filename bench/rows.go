package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// networkDelay is what the slow way to Redis adds to each round trip.
const networkDelay = time.Millisecond

// row is one cell of the tables: a way, over so many processes, at a delay.
type row struct {
	way       string
	processes int
	delay     time.Duration
}

// sample is all rounds of a row.
type sample struct {
	rounds []time.Duration // how long each took in all
	ops    []time.Duration // every operation of every round
	lost   []int64         // of opsPerRound, by round
}

// measureRows measures every row once in each round, so that other load on the machine affects all rows alike.
func measureRows(ctx context.Context, b *testbed, rounds int, progress io.Writer) (map[row]*sample, error) {
	f, err := newFleet(ctx, b)
	if err != nil {
		return nil, err
	}
	defer f.close()
	samples := map[row]*sample{}
	for round := range rounds {
		fmt.Fprintf(progress, "round %d of %d\n", round+1, rounds)
		for _, delay := range []time.Duration{0, networkDelay} {
			for _, n := range processCounts {
				for i := range ways {
					// No way always comes after the same other.
					w := &ways[(i+round)%len(ways)]
					r := row{w.name, n, delay}
					if samples[r] == nil {
						samples[r] = new(sample)
					}
					key := fmt.Sprintf("r%d-d%d-n%d-w%d", round, delay.Microseconds(), n, (i+round)%len(ways))
					if err := f.measure(ctx, w, r, key, samples[r]); err != nil {
						return nil, fmt.Errorf("%s, %d processes: %w", r.way, n, err)
					}
				}
			}
		}
	}
	return samples, nil
}

// fleet are writers and sidecars that stand ready.
type fleet struct {
	bed     *testbed
	writers []*writer
	// locked are sidecars in locked mode, by delay.
	locked map[time.Duration][]*sidecarProcess
	// simple are sidecars in simple mode that never met another writer.
	simple map[time.Duration]*sidecarProcess
}

func newFleet(ctx context.Context, b *testbed) (f *fleet, err error) {
	f = &fleet{bed: b, locked: map[time.Duration][]*sidecarProcess{}, simple: map[time.Duration]*sidecarProcess{}}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	most := processCounts[len(processCounts)-1]
	for range most {
		w, err := startWriter(ctx)
		if err != nil {
			return f, err
		}
		f.writers = append(f.writers, w)
	}
	for _, delay := range []time.Duration{0, networkDelay} {
		for range most {
			p, err := b.startSidecar(ctx, f.redis(delay), "enabled")
			if err != nil {
				return f, err
			}
			f.locked[delay] = append(f.locked[delay], p)
		}
		if f.simple[delay], err = b.startSidecar(ctx, f.redis(delay), "disabled"); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *fleet) close() {
	for _, w := range f.writers {
		w.stop()
	}
	for _, ps := range f.locked {
		for _, p := range ps {
			p.stop()
		}
	}
	for _, p := range f.simple {
		if p != nil {
			p.stop()
		}
	}
}

func (f *fleet) redis(delay time.Duration) string {
	if delay > 0 {
		return f.bed.slow.addr
	}
	return f.bed.redis
}

// targets are the addresses that the writers talk to, one for each.
func (f *fleet) targets(ctx context.Context, w *way, r row) (targets []string, done func(), err error) {
	done = func() {}
	if !w.viaSidecar() {
		for range r.processes {
			targets = append(targets, f.redis(r.delay))
		}
		return targets, done, nil
	}
	ps := f.locked[r.delay]
	switch {
	case w.name == waySimple && r.processes == 1:
		ps = []*sidecarProcess{f.simple[r.delay]}
	case w.name == waySimple:
		// A sidecar in simple mode that meets another writer turns locking on for itself, and stays so. New ones in
		// each round show what that costs.
		ps = nil
		done = func() {
			for _, p := range ps {
				p.stop()
			}
		}
		for range r.processes {
			p, err := f.bed.startSidecar(ctx, f.redis(r.delay), w.locking)
			if err != nil {
				done()
				return nil, nil, err
			}
			ps = append(ps, p)
		}
	}
	for _, p := range ps[:r.processes] {
		targets = append(targets, p.grpc)
	}
	return targets, done, nil
}

func (f *fleet) measure(ctx context.Context, w *way, r row, key string, s *sample) error {
	targets, done, err := f.targets(ctx, w, r)
	if err != nil {
		return err
	}
	defer done()
	took, tallies, err := drive(f.writers, targets, order{Way: w.name, Key: key, Ops: opsPerRound / r.processes})
	if err != nil {
		return err
	}
	for i := range tallies {
		s.ops = append(s.ops, tallies[i].durations()...)
	}
	s.rounds = append(s.rounds, took)

	c, err := w.connect(targets[0])
	if err != nil {
		return err
	}
	defer c.Close()
	got, err := c.Quantity(ctx, key)
	s.lost = append(s.lost, opsPerRound-got)
	return err
}
