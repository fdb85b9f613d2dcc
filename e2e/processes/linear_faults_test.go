package processes

import (
	"context"
	"fmt"
	"math/rand/v2"
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
	do   func(ctx context.Context, w *workshop, rnd *rand.Rand, victim int)
}

// longerThanLease is how long a process or a connection stands still: what it held then is lost.
const longerThanLease = leaseTime + 300*time.Millisecond

var allFaults = []fault{
	{"SIGKILL", func(_ context.Context, w *workshop, _ *rand.Rand, victim int) {
		w.sidecars[victim].kill()
		w.sidecars[victim].run()
	}},
	{"SIGSTOP", func(ctx context.Context, w *workshop, _ *rand.Rand, victim int) {
		p := w.sidecars[victim].cmd.Process
		_ = p.Signal(syscall.SIGSTOP)
		pause(ctx, longerThanLease)
		_ = p.Signal(syscall.SIGCONT)
	}},
	{"cut", func(ctx context.Context, w *workshop, rnd *rand.Rand, victim int) {
		p := w.proxies[victim]
		p.Stop()
		pause(ctx, time.Duration(rnd.IntN(200))*time.Millisecond)
		if err := p.Start(); err != nil {
			w.t.Errorf("proxy: %v", err)
		}
	}},
	{"slow", func(ctx context.Context, w *workshop, rnd *rand.Rand, victim int) {
		w.toxic(ctx, victim, fmt.Sprintf(`{"type":"latency","stream":%q,"attributes":{"latency":%d,"jitter":10}}`, direction(rnd), 10+rnd.IntN(60)), 500*time.Millisecond)
	}},
	{"half-open", func(ctx context.Context, w *workshop, rnd *rand.Rand, victim int) {
		// With timeout 0 nothing passes and nothing is closed.
		w.toxic(ctx, victim, fmt.Sprintf(`{"type":"timeout","stream":%q,"attributes":{"timeout":0}}`, direction(rnd)), longerThanLease)
	}},
	{"Redis restarts", func(_ context.Context, w *workshop, _ *rand.Rand, _ int) {
		w.server.Kill()
		w.server.Restart()
	}},
	{"locking switched", func(_ context.Context, w *workshop, _ *rand.Rand, victim int) { w.modes[victim].flip(w.t) }},
}

// gentleFaults are those that make others wait: what is wrong without them needs no killing to be seen.
var gentleFaults = []fault{allFaults[1], allFaults[6]}

func direction(rnd *rand.Rand) string { return []string{"upstream", "downstream"}[rnd.IntN(2)] }

// shifts are how many seconds the clock of each sidecar is ahead.
var shifts = [sidecars]string{1: "3600", 2: "-3600"}

// workshop is five sidecars on one Redis, each behind a proxy of its own.
type workshop struct {
	t        *testing.T
	server   *testserver.Redis
	proxies  []*toxiproxy.Proxy
	modes    []*modeFile
	sidecars []*sidecar
}

func newWorkshop(t *testing.T, server *testserver.Redis, mutation string) *workshop {
	t.Helper()
	w := &workshop{t: t, server: server}
	net := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	for i := range sidecars {
		p := toxiproxy.NewProxy(net, fmt.Sprintf("sidecar-%d", i), "127.0.0.1:0", server.Addr)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		m := newModeFile(t, "switched")
		w.proxies, w.modes = append(w.proxies, p), append(w.modes, m)
		s := prepare(t, append([]string{
			"--backend", "redis", "--redis-address", p.Listen, "--lock-timeout", "2s",
			"--read-timeout", "300ms", "--write-timeout", "300ms", "--dial-timeout", "300ms",
		}, m.args...)...)
		s.build = variant{clock: true, mutation: mutation}
		s.env = []string{"SHIFT=" + shifts[i]}
		s.run()
		w.sidecars = append(w.sidecars, s)
	}
	return w
}

// breakThings breaks one thing after the other until ctx ends, and leaves everything whole.
func (w *workshop) breakThings(ctx context.Context, rnd *rand.Rand, with []fault, count map[string]int) {
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
