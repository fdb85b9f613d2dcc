package processes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/sidecart/sidecart/internal/testserver"
)

// fault breaks something for a while and makes it whole again.
type fault struct {
	name string
	// server says that it breaks the server or the way to it: a file has neither.
	server bool
	do     func(ctx context.Context, w *workshop, rnd *rand.Rand, victim int)
}

// longerThanLease is how long a process or a connection stands still: what it held then is lost.
const longerThanLease = leaseTime + 300*time.Millisecond

var allFaults = []fault{
	{"SIGKILL", false, func(_ context.Context, w *workshop, _ *rand.Rand, victim int) {
		w.sidecars[victim].kill()
		w.sidecars[victim].run()
	}},
	{"SIGSTOP", false, func(ctx context.Context, w *workshop, _ *rand.Rand, victim int) {
		p := w.sidecars[victim].cmd.Process
		_ = p.Signal(syscall.SIGSTOP)
		pause(ctx, longerThanLease)
		_ = p.Signal(syscall.SIGCONT)
	}},
	{"cut", true, func(ctx context.Context, w *workshop, rnd *rand.Rand, victim int) {
		p := w.proxies[victim]
		p.Stop()
		pause(ctx, time.Duration(rnd.IntN(200))*time.Millisecond)
		if err := p.Start(); err != nil {
			w.t.Errorf("proxy: %v", err)
		}
	}},
	{"slow", true, func(ctx context.Context, w *workshop, rnd *rand.Rand, victim int) {
		w.toxic(ctx, victim, fmt.Sprintf(`{"type":"latency","stream":%q,"attributes":{"latency":%d,"jitter":10}}`, direction(rnd), 10+rnd.IntN(60)), 500*time.Millisecond)
	}},
	{"half-open", true, func(ctx context.Context, w *workshop, rnd *rand.Rand, victim int) {
		// With timeout 0 nothing passes and nothing is closed.
		w.toxic(ctx, victim, fmt.Sprintf(`{"type":"timeout","stream":%q,"attributes":{"timeout":0}}`, direction(rnd)), longerThanLease)
	}},
	{"Redis restarts", true, func(_ context.Context, w *workshop, _ *rand.Rand, _ int) {
		w.server.Kill()
		w.server.Restart()
	}},
	{"locking switched", false, func(_ context.Context, w *workshop, _ *rand.Rand, victim int) { w.modes[victim].flip(w.t) }},
}

// gentleFaults are those that make others wait: what is wrong without them needs no killing to be seen.
var gentleFaults = []fault{allFaults[1], allFaults[6]}

func direction(rnd *rand.Rand) string { return []string{"upstream", "downstream"}[rnd.IntN(2)] }

// shifts are how many seconds the clock of each sidecar is ahead.
var shifts = [sidecars]string{1: "3600", 2: "-3600"}

// otherVersion ends a sidecar in good order and starts it again as the other of two releases.
var otherVersion = fault{"other version", false, func(_ context.Context, w *workshop, _ *rand.Rand, victim int) {
	s := w.sidecars[victim]
	s.stop()
	s.build.before = !s.build.before
	s.run()
}}

// fleet is what the sidecars of a history are.
type fleet struct {
	// sqlite has them share a file in place of a Redis.
	sqlite bool
	// mutation is one of [mutations], "" for none.
	mutation string
	// mixed makes every second one the release before this one.
	mixed bool
}

// workshop is five sidecars on one file, or on one Redis, each behind a proxy of its own.
type workshop struct {
	t        *testing.T
	server   *testserver.Redis // nil with a file
	proxies  []*toxiproxy.Proxy
	modes    []*modeFile
	sidecars []*sidecar
}

func newWorkshop(t *testing.T, f fleet) *workshop {
	t.Helper()
	w := &workshop{t: t}
	var backend func(i int) []string
	if f.sqlite {
		url := "sqlite:" + filepath.Join(t.TempDir(), "carts.db")
		backend = func(int) []string {
			return []string{"--backend", "database", "--database-url", url, "--read-timeout", "2s", "--write-timeout", "2s"}
		}
	} else {
		w.server = testserver.StartRedis(t, testserver.WithAOF())
		net := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
		backend = func(i int) []string {
			p := toxiproxy.NewProxy(net, fmt.Sprintf("sidecar-%d", i), "127.0.0.1:0", w.server.Addr)
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Stop)
			w.proxies = append(w.proxies, p)
			return []string{
				"--backend", "redis", "--redis-address", p.Listen,
				"--read-timeout", "300ms", "--write-timeout", "300ms", "--dial-timeout", "300ms",
			}
		}
	}
	for i := range sidecars {
		m := newModeFile(t, "switched")
		w.modes = append(w.modes, m)
		s := prepare(t, slices.Concat(backend(i), []string{"--lock-timeout", "2s"}, m.args)...)
		s.build = variant{clock: true, mutation: f.mutation, before: f.mixed && i%2 == 1}
		if !f.sqlite { // whose clock is the machine's, the same for all
			s.env = []string{"SHIFT=" + shifts[i]}
		}
		s.run()
		w.sidecars = append(w.sidecars, s)
	}
	return w
}

// breakThings breaks one thing after the other until ctx ends, and leaves everything whole.
func (w *workshop) breakThings(ctx context.Context, rnd *rand.Rand, with []fault, count map[string]int) {
	if w.server == nil {
		with = slices.DeleteFunc(slices.Clone(with), func(f fault) bool { return f.server })
	}
	if len(with) == 0 {
		return
	}
	for {
		pause(ctx, time.Duration(50+rnd.IntN(300))*time.Millisecond)
		if ctx.Err() != nil {
			return
		}
		f := with[rnd.IntN(len(with))]
		f.do(ctx, w, rnd, rnd.IntN(sidecars))
		count[f.name]++
	}
}

// toxic lays a toxic on a sidecar's way to the server for some time.
func (w *workshop) toxic(ctx context.Context, victim int, description string, d time.Duration) {
	toxic, err := w.proxies[victim].Toxics.AddToxicJson(strings.NewReader(description))
	if err != nil {
		w.t.Errorf("toxic: %v", err)
		return
	}
	pause(ctx, d)
	if err := w.proxies[victim].Toxics.RemoveToxic(context.WithoutCancel(ctx), toxic.Name); err != nil {
		w.t.Errorf("toxic: %v", err)
	}
}

// pause is how long a fault lasts; nothing is waited for by it.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
