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
	// server says that the fault breaks the server or the way to it; a file has neither.
	server bool
	do     func(ctx context.Context, w *workshop, rnd *rand.Rand, victim int)
}

// longerThanLease is how long a process or a connection stands still, so that it loses the locks that it held.
const longerThanLease = leaseTime + 300*time.Millisecond

// restarts is the fault of a server that comes back with what it had.
const restarts = "Redis restarts"

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
	{restarts, true, func(_ context.Context, w *workshop, _ *rand.Rand, _ int) {
		w.server.Kill()
		w.server.Restart()
	}},
	{"locking switched", false, func(_ context.Context, w *workshop, _ *rand.Rand, victim int) { w.modes[victim].flip(w.t) }},
}

// gentleFaults only make others wait. They are for mistakes that show without anything being killed.
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
	// sqlite has them share a file in place of a Redis, folder a folder of files, and memcached a Memcached, each by a
	// way of its own, and dynamodb a table.
	sqlite, folder, memcached, dynamodb bool
	// database starts the server of a database that they share in place of a Redis.
	database func(testserver.TB, ...testserver.DatabaseOption) *testserver.DatabaseServer
	// critical starts the server of a database that they share for checkouts; nil leaves these beside the carts.
	critical func(testserver.TB, ...testserver.DatabaseOption) *testserver.DatabaseServer
	// mutation is one of [mutations], "" for none.
	mutation string
	// mixed makes every second one the release before this one.
	mixed bool
}

// workshop is five sidecars on one file or folder, or on one server, each behind a proxy of its own.
type workshop struct {
	t        *testing.T
	server   server // nil with another backend
	proxies  []*toxiproxy.Proxy
	modes    []*modeFile
	sidecars []*sidecar
	// calm is the longest time between two faults beyond the usual one. spared says that the first sidecar is not
	// killed.
	calm   time.Duration
	spared bool
}

// server can crash and come back.
type server interface {
	Kill()
	Restart()
}

func newWorkshop(t *testing.T, f fleet) *workshop {
	t.Helper()
	w := &workshop{t: t}
	var backend func(i int) []string
	switch {
	case f.sqlite:
		url := "sqlite:" + filepath.Join(t.TempDir(), "carts.db")
		backend = func(int) []string {
			return []string{"--backend", "database", "--database-url", url, "--read-timeout", "2s", "--write-timeout", "2s"}
		}
	case f.folder:
		folder := t.TempDir()
		backend = func(int) []string {
			return []string{"--backend", "file", "--file-directory", folder, "--write-timeout", "2s"}
		}
	case f.memcached:
		backend = w.proxied(testserver.StartMemcached(t).Addr, "--backend", "memcached", "--memcached-address")
	case f.dynamodb:
		address := strings.TrimPrefix(testserver.StartDynalite(t).Endpoint, "http://")
		proxied := w.proxied(address, "--backend", "dynamodb", "--dynamodb-table", "carts", "--dynamodb-region", "local", "--dynamodb-create-table", "--dynamodb-endpoint")
		backend = func(i int) []string {
			args := proxied(i)
			at := slices.Index(args, "--dynamodb-endpoint") + 1
			args[at] = "http://" + args[at]
			return args
		}
	case f.database != nil:
		db := f.database(t, testserver.WithSync())
		url := db.NewDatabase(t)
		w.server = db
		proxied := w.proxied(db.Addr(), "--backend", "database", "--database-url")
		backend = func(i int) []string { // with the address of the proxy in the URL
			args := proxied(i)
			for n, arg := range args {
				if n > 0 && args[n-1] == "--database-url" {
					args[n] = strings.Replace(url, db.Addr(), arg, 1)
				}
			}
			return args
		}
	default:
		redis := testserver.StartRedis(t, testserver.WithAOF())
		w.server = redis
		backend = w.proxied(redis.Addr, "--backend", "redis", "--redis-address")
	}
	var critical []string
	if f.critical != nil {
		critical = []string{"--critical-backend", "database", "--critical-database-url", f.critical(t, testserver.WithSync()).NewDatabase(t)}
	}
	for i := range sidecars {
		m := newModeFile(t, "switched")
		w.modes = append(w.modes, m)
		s := prepare(t, slices.Concat(backend(i), critical, []string{"--lock-timeout", "2s"}, m.args)...)
		s.build = variant{clock: true, mutation: f.mutation, before: f.mixed && i%2 == 1}
		if w.server != nil { // whose clock it is; with another backend that of the machine is the same for all
			s.env = []string{"SHIFT=" + shifts[i]}
		}
		s.run()
		w.sidecars = append(w.sidecars, s)
	}
	return w
}

// proxied is the backend of a sidecar that has a proxy of its own before the server at addr.
func (w *workshop) proxied(addr string, flags ...string) func(i int) []string {
	net := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	return func(i int) []string {
		p := toxiproxy.NewProxy(net, fmt.Sprintf("sidecar-%d", i), "127.0.0.1:0", addr)
		if err := p.Start(); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(p.Stop)
		w.proxies = append(w.proxies, p)
		return append(slices.Clone(flags), p.Listen, "--read-timeout", "300ms", "--write-timeout", "300ms", "--dial-timeout", "300ms")
	}
}

// possible reports whether a fault is possible here: a file has no server, and a server that forgets its carts may not
// restart.
func (w *workshop) possible(f fault) bool {
	return !f.server || w.server != nil || w.proxies != nil && f.name != restarts
}

// breakThings breaks one thing after the other until ctx ends, and leaves everything whole.
func (w *workshop) breakThings(ctx context.Context, rnd *rand.Rand, with []fault, count map[string]int) {
	with = slices.DeleteFunc(slices.Clone(with), func(f fault) bool { return !w.possible(f) })
	if len(with) == 0 {
		return
	}
	for {
		pause(ctx, time.Duration(50+rnd.IntN(300))*time.Millisecond+time.Duration(rnd.Float64()*float64(w.calm)))
		if ctx.Err() != nil {
			return
		}
		f := with[rnd.IntN(len(with))]
		victim := rnd.IntN(sidecars)
		if w.spared && f.name == "SIGKILL" {
			victim = 1 + rnd.IntN(sidecars-1)
		}
		f.do(ctx, w, rnd, victim)
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
