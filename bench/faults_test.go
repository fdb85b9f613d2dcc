package main

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sidecart/sidecart/internal/testserver"
)

// Stubborn writers make all of their adds although the server ends in between. Nothing is lost on a server that keeps
// what it acknowledged; on others, losses are noticed.
func TestStubbornWriters(t *testing.T) {
	r := testserver.StartRedis(t, testserver.WithAOF())
	m := testserver.StartMemcached(t)
	for _, tc := range []struct {
		backend *backend
		place   string
		strike  func()
		forgets bool
	}{
		{redisBackend, r.Addr, func() { r.Kill(); r.Restart() }, false},
		{memcachedBackend, m.Addr, func() { m.Kill(); m.Restart() }, true},
	} {
		t.Run(tc.backend.String(), func(t *testing.T) {
			w := tc.backend.ways()[1]
			writers := []*writer{startInProcess(t), startInProcess(t)}
			o := order{Way: w.name, Key: "k", Ops: 100, Carts: 2, Stubborn: true}
			_, tallies, err := breakIn(writers, []string{tc.place, tc.place}, o, func() error { tc.strike(); return nil })
			if err != nil {
				t.Fatal(err)
			}
			c := newCount()
			for worker := range tallies {
				if n := len(tallies[worker].Ops); n != o.Ops {
					t.Errorf("writer %d made %d adds", worker, n)
				}
				// A client of Memcached does not try again by itself.
				if n := len(tallies[worker].Unanswered); worker == 0 && tc.forgets && n == 0 {
					t.Error("nobody noticed that the server was gone")
				}
				o.Worker = worker
				c.add(&o, &tallies[worker])
			}
			carts, err := w.connect(tc.place)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = carts.Close() }()
			lost, twice, err := c.compare(t.Context(), carts)
			if err != nil || twice != 0 || tc.forgets != (lost > 0) {
				t.Errorf("%d lost, %d twice, %v", lost, twice, err)
			}
		})
	}
}

// A cart has at least the adds that were acknowledged, and at most those and the ones without an answer. Fewer means a
// loss; more means that some count twice.
func TestCount(t *testing.T) {
	r := testserver.StartRedis(t)
	carts, err := redisBackend.connect(r.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = carts.Close() }()
	for range 5 {
		if err := carts.AddItem(t.Context(), "k", itemID); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ acknowledged, unanswered, lost, twice int64 }{
		{5, 0, 0, 0}, {5, 2, 0, 0}, {3, 2, 0, 0}, {8, 1, 3, 0}, {3, 1, 0, 1}, {1, 0, 0, 4},
	} {
		c := &count{map[string]int64{"k": tc.acknowledged}, map[string]int64{"k": tc.unanswered}}
		if lost, twice, err := c.compare(t.Context(), carts); err != nil || lost != tc.lost || twice != tc.twice {
			t.Errorf("%+v: %d lost, %d twice, %v", tc, lost, twice, err)
		}
	}
}

// Each fault that a server can have is struck, and undone.
func TestFaultsOfServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the server is frozen for a while
		var done []string
		note := func(what string) func() { return func() { done = append(done, what) } }
		all := server{pause: note("pause"), resume: note("resume"), restart: note("restart")}
		none := server{}
		for want, faults := range map[string][]fault{
			"sidecar":                      none.faults(t.Context(), func() error { note("sidecar")(); return nil }),
			"sidecar restart pause resume": all.faults(t.Context(), func() error { note("sidecar")(); return nil }),
		} {
			done = nil
			for _, f := range faults {
				if err := f.strike(); err != nil {
					t.Errorf("%s: %v", f.name, err)
				}
			}
			if got := strings.Join(done, " "); got != want {
				t.Errorf("%q was done, want %q", got, want)
			}
		}
	})
}
