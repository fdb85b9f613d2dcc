package processes

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sidecart/sidecart/internal/testserver"
)

const (
	sidecars = 5
	clients  = 20
)

// count is what one client knows of its own item in one cart.
type count struct{ acknowledged, unknown int }

// TestNothingLost lets clients add to carts through several sidecars on one backend, while one of the sidecars is
// killed and restarted. Every acknowledged add must be in the cart exactly once, and one without an answer at most
// once.
func TestNothingLost(t *testing.T) {
	for _, backend := range sharedBackends {
		for _, locking := range lockings(backend.name) {
			for _, carts := range crowds(backend.name, locking) {
				t.Run(fmt.Sprintf("%s/%s/carts=%d", backend.name, locking, carts), func(t *testing.T) {
					nothingLost(t, backend.args(t), locking, carts, adds, func(int) variant { return variant{race: true} })
				})
			}
		}
	}
}

// sharedBackends are those that several sidecars can use at once.
var sharedBackends = []struct {
	name string
	args func(t *testing.T) []string
}{
	{"redis", func(t *testing.T) []string {
		return []string{"--backend", "redis", "--redis-address", testserver.StartRedis(t).Addr}
	}},
	{"postgres", func(t *testing.T) []string {
		return []string{"--backend", "database", "--database-url", testserver.SharedPostgres(t).NewDatabase(t)}
	}},
	{"mariadb", func(t *testing.T) []string {
		return []string{"--backend", "database", "--database-url", testserver.SharedMariaDB(t).NewDatabase(t)}
	}},
	{"sqlite", func(t *testing.T) []string {
		return []string{"--backend", "database", "--database-url", "sqlite:" + filepath.Join(t.TempDir(), "carts.db")}
	}},
}

// nothingLost runs sidecars that are built as build says. The one that is killed comes back as its neighbour is.
func nothingLost(t *testing.T, args []string, locking string, carts, adds int, build func(n int) variant) {
	// The test is about losses, not about the speed of a busy disk.
	args = append(args, "--read-timeout", "5s", "--write-timeout", "5s", "--lock-timeout", "10s")
	fleet := make([]*sidecar, sidecars)
	modes := make([]*modeFile, sidecars)
	for i := range fleet {
		modes[i] = newModeFile(t, locking)
		fleet[i] = prepare(t, append(args, modes[i].args...)...)
		fleet[i].build = build(i)
		fleet[i].run()
	}

	var (
		wg    sync.WaitGroup
		done  atomic.Int64
		known [clients][]count
		half  = make(chan struct{})
		back  = make(chan struct{})
	)
	for n := range clients {
		known[n] = make([]count, carts)
		wg.Go(func() {
			s := fleet[n%sidecars]
			for i := range adds / clients {
				c := (n*7 + i) % carts
				body := fmt.Sprintf(`{"item":{"id":"client-%d","quantity":1}}`, n)
				status, answer, err := s.call(context.Background(), http.MethodPost, fmt.Sprintf("/v1/carts/u%d/default/items", c), body)
				switch {
				case err == nil && status == http.StatusOK:
					known[n][c].acknowledged++
				case err != nil || status == http.StatusServiceUnavailable || status == http.StatusLocked:
					known[n][c].unknown++
				default:
					t.Errorf("add: %d %s", status, answer)
				}
				if done.Add(1) == int64(adds/2) {
					close(half)
				}
				if err != nil {
					<-back // the killed sidecar is to be met again, not just asked a hundred times while it is away
				}
			}
		})
	}
	<-half
	fleet[0].kill()
	for _, m := range modes {
		m.flip(t)
	}
	fleet[0].build = build(1)
	fleet[0].run()
	close(back)
	wg.Wait()

	total := count{}
	for c := range carts {
		q := fleet[1].quantities(fmt.Sprintf("u%d/default", c))
		for n := range clients {
			k := known[n][c]
			total.acknowledged += k.acknowledged
			total.unknown += k.unknown
			if got := q[fmt.Sprintf("client-%d", n)]; got < k.acknowledged || got > k.acknowledged+k.unknown {
				t.Errorf("cart %d, client %d: %d adds are in the cart; %d were acknowledged, %d had no answer", c, n, got, k.acknowledged, k.unknown)
			}
		}
	}
	t.Logf("%d acknowledged, %d without an answer", total.acknowledged, total.unknown)
	// Each client of the killed sidecar may see its one add under way fail; the others may meet a lock that the dead
	// one held for longer than they wait.
	if total.unknown > 2*clients {
		t.Errorf("%d of %d adds had no answer", total.unknown, adds)
	}
	for _, s := range fleet {
		if code := s.stop(); code != 0 {
			t.Errorf("exit code %d after SIGTERM\n%s", code, tail(s.log.String(), 2000))
		}
	}
}

// modeFile is a configuration file whose locking mode is switched while the sidecar runs; for a fixed mode it is a
// flag.
type modeFile struct {
	args []string
	path string
	on   bool
}

func newModeFile(t *testing.T, locking string) *modeFile {
	t.Helper()
	if locking != "switched" {
		return &modeFile{args: []string{"--locking", locking}}
	}
	m := &modeFile{path: filepath.Join(t.TempDir(), "sidecar.yaml")}
	m.args = []string{"--config", m.path}
	m.flip(t)
	return m
}

func (m *modeFile) flip(t *testing.T) {
	t.Helper()
	if m.path == "" {
		return
	}
	m.on = !m.on
	mode := "disabled"
	if m.on {
		mode = "enabled"
	}
	text := "apiVersion: sidecar.sidecart.dev/v1alpha1\nkind: SidecarConfig\nlocking: {mode: " + mode + "}\n"
	next := m.path + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, m.path); err != nil {
		t.Fatal(err)
	}
}
