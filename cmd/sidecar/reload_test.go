package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/testserver"
)

// volume is a projected volume as the kubelet writes it: each file is a link through ..data, and an update swaps that
// link.
type volume struct {
	t   *testing.T
	dir string
	n   int
}

const volumeFile = "sidecar.yaml"

func newVolume(t *testing.T, content string) *volume {
	t.Helper()
	v := &volume{t: t, dir: t.TempDir()}
	v.update(content)
	if err := os.Symlink(filepath.Join(dataLink, volumeFile), v.file()); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *volume) file() string { return filepath.Join(v.dir, volumeFile) }

func (v *volume) update(content string) {
	v.t.Helper()
	old, _ := os.Readlink(filepath.Join(v.dir, dataLink))
	v.n++
	next := fmt.Sprintf("..2026_11_25_%d", v.n)
	if err := os.Mkdir(filepath.Join(v.dir, next), 0o700); err != nil {
		v.t.Fatal(err)
	}
	writeFile(v.t, filepath.Join(v.dir, next, volumeFile), content)
	swap := filepath.Join(v.dir, "..data_tmp")
	if err := os.Symlink(next, swap); err != nil {
		v.t.Fatal(err)
	}
	if err := os.Rename(swap, filepath.Join(v.dir, dataLink)); err != nil {
		v.t.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(filepath.Join(v.dir, old)); err != nil {
			v.t.Fatal(err)
		}
	}
}

// keepWriting writes carts until stop is called, which returns how many writes there were. None may fail.
func keepWriting(s *sidecarUnderTest) (stop func() int64) {
	var wg sync.WaitGroup
	var writes atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	for w := range 4 {
		wg.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				if err := s.put(fmt.Sprintf("writer-%d", w), 1+i%9); err != nil {
					s.t.Errorf("a write failed: %v", err)
					return
				}
				writes.Add(1)
			}
		})
	}
	return func() int64 {
		cancel()
		wg.Wait()
		return writes.Load()
	}
}

func TestReloadSettingsWhileRequestsRun(t *testing.T) {
	generation := func(n int64) string {
		return render(t, func(c *config.Config) {
			c.Generation = n
			c.TTL = config.Duration(time.Duration(n) * time.Hour)
			c.Limits.MaxQuantity = 100 * n
			c.Locking.WaitTimeout = config.Duration(time.Duration(n) * time.Second)
			c.Timeouts.Request = config.Duration(time.Duration(n+1) * time.Second)
		})
	}
	v := newVolume(t, generation(1))
	s := launchFile(t, v.file())
	s.ready(true)
	s.mustPut("kept", 7)
	stop := keepWriting(s)
	for n := int64(2); n <= 6; n++ {
		v.update(generation(n))
		if line := s.await("configuration taken over"); line["changed"] != "settings" || line["generation"] != float64(n) {
			t.Errorf("taken over: %v", line)
		}
		if st := s.status(); st.Generation != n || st.Config.State != stateAccepted {
			t.Errorf("status after generation %d: %+v", n, st)
		}
	}
	if n := stop(); n == 0 {
		t.Error("nothing was written meanwhile")
	}
	if q := s.quantity("kept"); q != 7 {
		t.Errorf("memory was opened anew: quantity %d", q)
	}
	s.mustPut("u1", 600)
	if got := s.life("u1"); got != 6*time.Hour {
		t.Errorf("a cart lives %s, want the 6h of the last generation", got)
	}
	if err := s.put("u1", 601); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("the new limit does not hold: %v", err)
	}
}

func TestReloadReplacesTheBackendWhileRequestsRun(t *testing.T) {
	urls := []string{sqliteURL(t), sqliteURL(t)}
	at := func(n int) string {
		return render(t, func(c *config.Config) {
			c.Generation = int64(n)
			c.Backend = config.Backend{Type: config.BackendDatabase, Database: &config.Database{URL: config.URL(urls[n%2])}}
		})
	}
	v := newVolume(t, at(0))
	s := launchFile(t, v.file())
	s.ready(true)
	s.mustPut("first", 7)
	stop := keepWriting(s)
	for n := 1; n <= 4; n++ {
		v.update(at(n))
		if line := s.await("configuration taken over"); line["changed"] != "backend" || line["backend"] != "Database "+urls[n%2] {
			t.Errorf("taken over: %v", line)
		}
		want := 7 * (1 - n%2) // the cart is in the database of the even generations
		if q := s.quantity("first"); q != want {
			t.Errorf("generation %d serves another database: quantity %d, want %d", n, q, want)
		}
		if code, body := s.get(s.admin + "/readyz"); code != http.StatusOK {
			t.Errorf("readyz: %d %s", code, body)
		}
	}
	if n := stop(); n == 0 {
		t.Error("nothing was written meanwhile")
	}
	if code := s.stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(s.logs.String(), "cut off") || strings.Contains(s.logs.String(), "cleanly") {
		t.Errorf("an old backend was not drained:\n%s", s.logs)
	}
}

func TestReloadKeepsTheLastGood(t *testing.T) {
	good := render(t, func(c *config.Config) { c.Generation = 1 })
	v := newVolume(t, good)
	s := launchFile(t, v.file())
	s.ready(true)
	s.mustPut("u1", 2)
	for name, tc := range map[string]struct {
		file string
		want []string
	}{
		"many problems": {good + "ttll: 1h\n", []string{"ttll: unknown field"}},
		"all at once": {render(t, func(c *config.Config) {
			c.Generation, c.KeyPrefix, c.LogLevel = 2, "lock", "loud"
		}), []string{"keyPrefix: must not start with", "logLevel: must be one of"}},
		"no YAML": {"{", []string{"line 1"}},
		"empty":   {"", []string{"file: is empty"}},
		"critical, unreachable": {render(t, func(c *config.Config) {
			c.CriticalBackend = &config.Backend{Type: config.BackendDatabase, Database: &config.Database{URL: "postgres://127.0.0.1:1/shop"}}
		}), []string{"criticalBackend: Database postgres://127.0.0.1:1/shop does not answer: "}},
		"unreachable": {render(t, func(c *config.Config) {
			c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{"127.0.0.1:1"}}}
		}), []string{"backend: Redis 127.0.0.1:1 does not answer: "}},
		"no secret": {render(t, func(c *config.Config) {
			c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{"127.0.0.1:1"}, PasswordFile: "/does/not/exist"}}
		}), []string{"backend.redis.passwordFile: open /does/not/exist: no such file"}},
		"listeners": {render(t, func(c *config.Config) {
			c.Listen.HTTP, c.Listen.Socket = "127.0.0.1:7421", "/run/s"
		}), []string{
			`listen.http: changed from "127.0.0.1:0" to "127.0.0.1:7421", which needs a restart`, `listen.socket: changed from "" to "/run/s", which needs a restart`}},
	} {
		v.update(tc.file)
		line := s.await("configuration rejected, the last good one goes on")
		st := s.status()
		if st.Config.State != stateRejected || st.Generation != 1 || st.Backend.Type != "Memory" || !st.Backend.Healthy {
			t.Errorf("%s: status %+v", name, st)
		}
		for _, w := range tc.want {
			if !strings.Contains(st.Config.Message, w) || !strings.Contains(line["problems"].(string), w) {
				t.Errorf("%s: problems %q lack %q", name, st.Config.Message, w)
			}
		}
		if code, _ := s.get(s.admin + "/readyz"); code != http.StatusOK {
			t.Errorf("%s: not ready any more", name)
		}
		if q := s.quantity("u1"); q != 2 {
			t.Errorf("%s: quantity %d", name, q)
		}
	}
	if err := os.Remove(v.file()); err != nil {
		t.Fatal(err)
	}
	s.await("configuration rejected, the last good one goes on")
	if err := os.Symlink(filepath.Join(dataLink, volumeFile), v.file()); err != nil {
		t.Fatal(err)
	}
	v.update(good)
	s.await("configuration is good again")
	if st := s.status(); st.Config.State != stateAccepted || st.Config.Message != "" {
		t.Errorf("status %+v", st)
	}
}

// Flags stay on top of the file at each reload, and SIGHUP reads it at once.
func TestFlagsStayOnTop(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), render(t, func(c *config.Config) { c.Limits.MaxQuantity = 10 }))
	s := launchFile(t, file, "--max-quantity=3")
	s.signals <- syscall.SIGHUP
	s.await("configuration is unchanged")
	writeFile(t, file, render(t, func(c *config.Config) { c.Generation, c.Limits.MaxQuantity = 2, 20 }))
	s.await("configuration taken over")
	s.mustPut("u1", 3)
	if err := s.put("u1", 4); err == nil {
		t.Error("the file won over the flag")
	}
}

// A file that is a link into another folder raises no event: the poll finds the change.
func TestPollFindsWhatNoEventTells(t *testing.T) {
	pollFast(t)
	target := writeFile(t, filepath.Join(t.TempDir(), "target"), render(t, func(c *config.Config) {}))
	link := filepath.Join(t.TempDir(), "link.yaml")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	s := launchFile(t, link)
	writeFile(t, target, render(t, func(c *config.Config) { c.Generation = 2 }))
	s.await("configuration taken over")
	if g := s.status().Generation; g != 2 {
		t.Errorf("generation %d", g)
	}
}

// A backend that was refused because it did not answer is tried again.
func TestReplacingBackendIsTriedAgain(t *testing.T) {
	pollFast(t)
	server := testserver.StartRedis(t)
	server.Stop()
	file := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), render(t, func(*config.Config) {}))
	s := launchFile(t, file)
	writeFile(t, file, render(t, func(c *config.Config) {
		c.Generation = 2
		c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{server.Addr}}}
	}))
	s.await("configuration rejected, the last good one goes on")
	if _, metrics := s.get(s.admin + "/metrics"); !strings.Contains(metrics, "\nsidecart_config_rejected 1\n") {
		t.Error("the metric does not say that the configuration is refused")
	}
	server.Restart()
	s.await("configuration taken over")
	if st := s.status(); st.Generation != 2 || st.Backend.Type != "Redis" || st.Config.State != stateAccepted {
		t.Errorf("status %+v", st)
	}
	if _, metrics := s.get(s.admin + "/metrics"); !strings.Contains(metrics, "\nsidecart_config_rejected 0\n") {
		t.Error("the metric does not say that the configuration is accepted")
	}
	s.mustPut("u1", 1)
}

// Auto means off, with a loud warning, if the backend is not shared, and on if it is.
func TestLockingDecision(t *testing.T) {
	for args, want := range map[string]struct {
		on     bool
		reason string
		warned bool
	}{
		"--backend=memory --locking=auto":       {false, reasonNotShared, true},
		"--backend=memory --locking=enabled":    {false, "MemoryCannotLockAcrossReplicas", true},
		"--backend=memory --locking=disabled":   {false, reasonConfigured, true},
		"--backend=database --locking=auto":     {true, reasonShared, false},
		"--backend=database --locking=enabled":  {true, reasonConfigured, false},
		"--backend=database --locking=disabled": {false, reasonConfigured, false},
	} {
		all := strings.Fields(args)
		if !want.warned {
			all = append(all, "--database-url="+sqliteURL(t))
		}
		s := launch(t, all...)
		st := s.status()
		if st.Locking.Enabled != want.on || st.Locking.Reason != want.reason || s.serving["locking"] != want.on || s.serving["reason"] != want.reason {
			t.Errorf("%s: %+v, start-up line %v", args, st.Locking, s.serving)
		}
		if code := s.stop(); code != exitOK {
			t.Errorf("exit code %d", code)
		}
		if warned := strings.Contains(s.logs.String(), "cannot lock across replicas"); warned != want.warned {
			t.Errorf("%s: warned = %v:\n%s", args, warned, s.logs)
		}
	}
}
