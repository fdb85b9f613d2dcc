package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/config"
)

// Every backend of this version is measured, and the plain loops that it can be compared with lose nothing.
func TestPlainLoopsLoseNothing(t *testing.T) {
	for _, p := range config.Built {
		if !slices.ContainsFunc(backends, func(b *backend) bool { return b.product.Type == p.Type && b.product.Dialect == p.Dialect }) {
			t.Errorf("%s is not measured", p)
		}
	}
	for _, b := range backends {
		if b.connect == nil || b.start == nil && b != sqliteBackend {
			continue
		}
		t.Run(b.String(), func(t *testing.T) {
			place := t.TempDir()
			if b.start != nil {
				place = b.start(t).place
			}
			if b.prepare != nil {
				if err := b.prepare(t.Context(), place); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var o outcome
			w := b.ways()[1]
			writers := []*writer{startInProcess(t), startInProcess(t), startInProcess(t)}
			for key, carts := range map[string]int{"hot": 1, "many": 7} {
				if err := o.add(ctx, w, writers, []string{place, place, place}, order{Way: w.name, Key: key, Ops: 20, Carts: carts}); err != nil {
					t.Fatal(err)
				}
			}
			if len(o.ops) != 120 || len(o.perSecond) != 2 || o.lost != 0 {
				t.Errorf("%d operations in %d rounds, %d lost", len(o.ops), len(o.perSecond), o.lost)
			}
			// A lost operation is noticed.
			c, err := w.connect(place)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if err := c.AddItem(ctx, "hot-0", itemID); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Quantity(ctx, "hot-0"); err != nil || n != 61 {
				t.Errorf("%d pieces are in the cart, %v", n, err)
			}
			if n, err := c.Quantity(ctx, "nobody's"); err != nil || n != 0 {
				t.Errorf("%d pieces are in a cart that is not there, %v", n, err)
			}
		})
	}
}

// Writers share 50 carts evenly and begin apart.
func TestCartsOfWriters(t *testing.T) {
	of := func(worker, n int) string { return (&order{Key: "k", Carts: manyCarts, Worker: worker}).key(n) }
	seen := map[string]int{}
	for worker := range mostWriters {
		for n := range manyCarts {
			seen[of(worker, n)]++
		}
	}
	if len(seen) != manyCarts || slices.Max(slices.Collect(maps.Values(seen))) != mostWriters {
		t.Errorf("operations per cart: %v", seen)
	}
	if of(0, 0) == of(1, 0) || of(0, 10) != of(1, 0) {
		t.Error("writers do not begin apart")
	}
}

func TestBackendTargets(t *testing.T) {
	outcomes := map[outcomeKey]*outcome{}
	for _, w := range dynamodbBackend.ways() {
		for _, s := range scenarios {
			outcomes[outcomeKey{dynamodbBackend, w.name, s}] = &outcome{perSecond: []float64{100}, ops: []time.Duration{10}}
		}
	}
	missed := func() (out []string) {
		for _, x := range backendTargets(outcomes, nil) {
			if !x.met {
				out = append(out, x.what)
			}
		}
		return out
	}
	// Equally many are too few on a hot cart, be it of a few or of a crowd.
	if got := missed(); len(got) != 2 || !strings.HasSuffix(got[0], hotCart.name) || !strings.HasSuffix(got[1], hotCrowd.name) {
		t.Errorf("missed %q", got)
	}
	ours, plain := dynamodbBackend.ways()[0].name, dynamodbBackend.ways()[1].name
	outcomes[outcomeKey{dynamodbBackend, ours, hotCart}].perSecond = []float64{1, 150, 1000}
	outcomes[outcomeKey{dynamodbBackend, ours, hotCrowd}].perSecond = []float64{150}
	outcomes[outcomeKey{dynamodbBackend, ours, coldCart}].ops = []time.Duration{17}
	outcomes[outcomeKey{dynamodbBackend, plain, coldCart}].lost = 1
	if got := missed(); len(got) != 2 || !strings.Contains(got[0], "lost") || !strings.Contains(got[1], "DynamoDB: median operation") {
		t.Errorf("missed %q", got)
	}
	var report page
	writeBackends(&report, &testbed{load: "0"}, options{rounds: 3, ops: 100}, outcomes, nil)
	if !strings.Contains(report.String(), "| DynamoDB, sidecar | 150 | 0.00 ms | 0.00 ms | 0.00 ms | 0 | 0 |") || strings.Contains(report.String(), "Redis") {
		t.Error(report.String())
	}
}
