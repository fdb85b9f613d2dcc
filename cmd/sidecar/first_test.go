package main

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/testserver"
)

// onRedis is a configuration of a generation with carts in a Redis.
func onRedis(t *testing.T, generation int64, address string, more ...func(*config.Config)) string {
	t.Helper()
	return render(t, func(c *config.Config) {
		c.Generation = generation
		c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{address}}}
		for _, f := range more {
			f(c)
		}
	})
}

// A sidecar restarts on a configuration that it would have refused while it ran. It comes up on the one that it had,
// says so, serves, and changes to the newest as soon as that is right.
func TestStartsOnTheLastGood(t *testing.T) {
	pollFast(t)
	server := testserver.StartRedis(t)
	good := onRedis(t, 4, server.Addr)
	repaired := onRedis(t, 6, server.Addr, func(c *config.Config) { c.Limits.MaxItems = 5 })
	for name, r := range map[string]struct{ file, says string }{
		"problems":                       {onRedis(t, 5, server.Addr, func(c *config.Config) { c.KeyPrefix = "lock" }), "keyPrefix: must not start with"},
		"a field of a newer release":     {good + "colour: red\n", "colour: unknown field"},
		"no file":                        {"", "file: open "},
		"a backend that does not answer": {onRedis(t, 5, "127.0.0.1:1"), "backend: Redis 127.0.0.1:1 does not answer: "},
		"a secret that is not mounted":   {onRedis(t, 5, server.Addr, func(c *config.Config) { c.Backend.Redis.PasswordFile = "/does/not/exist" }), "backend.redis.passwordFile: open /does/not/exist"},
		"a folder that is not mounted": {render(t, func(c *config.Config) {
			c.Backend = config.Backend{Type: config.BackendDatabase, Database: &config.Database{URL: "sqlite:/does/not/exist/carts.db"}}
		}), "/does/not/exist"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, lastGood := filepath.Join(dir, "c.yaml"), writeFile(t, filepath.Join(dir, "lastgood.yaml"), good)
			if r.file != "" {
				writeFile(t, file, r.file)
			}
			s := beginWith(t, map[string]string{config.LastGoodVariable: lastGood}, "--config", file)
			s.serving = s.await("serving")
			s.http, s.admin = "http://"+s.serving["http"].(string), "http://"+s.serving["admin"].(string)
			if line := s.await("configuration rejected, started on the last good one"); line["level"] != "ERROR" || !strings.Contains(line["problems"].(string), r.says) {
				t.Errorf("the log says %v, want %q", line, r.says)
			}
			s.ready(true)
			s.mustPut("u1", 2)
			st := s.status()
			if st.Generation != 4 || st.Config.State != stateRejected || !strings.Contains(st.Config.Message, r.says) || !st.Backend.Healthy || st.Backend.Type != "Redis" {
				t.Errorf("status %+v", st)
			}
			if _, metrics := s.get(s.admin + "/metrics"); !strings.Contains(metrics, "\nsidecart_config_rejected 1\n") {
				t.Error("the metric does not say that the configuration is refused")
			}
			writeFile(t, file, repaired)
			s.await("configuration taken over")
			if st := s.status(); st.Generation != 6 || st.Config.State != stateAccepted {
				t.Errorf("status after the repair: %+v", st)
			}
		})
	}
}

// The newest configuration is used at once if a running sidecar would accept it.
func TestStartsOnTheNewest(t *testing.T) {
	server, dead := testserver.StartRedis(t), testserver.StartRedis(t)
	dead.Stop()
	for name, r := range map[string]struct{ file, lastGood string }{
		"another backend that answers":         {onRedis(t, 5, server.Addr), render(t, func(c *config.Config) { c.Generation = 4 })},
		"other settings of the same backend":   {onRedis(t, 5, dead.Addr, func(c *config.Config) { c.Limits.MaxItems = 5 }), onRedis(t, 4, dead.Addr)},
		"none that worked":                     {onRedis(t, 5, dead.Addr), ""},
		"one that is of no use any more":       {onRedis(t, 5, dead.Addr), "{"},
		"one whose backend cannot be opened":   {onRedis(t, 5, dead.Addr), onRedis(t, 4, server.Addr, func(c *config.Config) { c.Backend.Redis.PasswordFile = "/does/not/exist" })},
		"other listeners of the same backend":  {onRedis(t, 5, server.Addr, func(c *config.Config) { c.Listen.Admin = "127.0.0.2:0" }), onRedis(t, 4, server.Addr)},
		"a file that is the last good one too": {onRedis(t, 5, dead.Addr), onRedis(t, 5, dead.Addr)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lastGood := filepath.Join(dir, "lastgood.yaml")
			if r.lastGood != "" {
				writeFile(t, lastGood, r.lastGood)
			}
			s := launchFile(t, writeFile(t, filepath.Join(dir, "c.yaml"), r.file), "--last-good", lastGood)
			if st := s.status(); st.Generation != 5 || st.Config.State != stateAccepted || st.Backend.Type != "Redis" {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// If neither backend answers, carts stay where they were.
func TestStartsOnTheLastGoodWhileBothAreAway(t *testing.T) {
	server := testserver.StartRedis(t)
	server.Stop()
	dir := t.TempDir()
	s := launchFile(t, writeFile(t, filepath.Join(dir, "c.yaml"), onRedis(t, 5, "127.0.0.1:1")),
		"--last-good", writeFile(t, filepath.Join(dir, "lastgood.yaml"), onRedis(t, 4, server.Addr)))
	s.ready(false)
	server.Restart()
	s.ready(true)
	s.mustPut("u1", 1)
	if st := s.status(); st.Generation != 4 || st.Config.State != stateRejected {
		t.Errorf("status %+v", st)
	}
}

// The reported problems are those of the newest configuration, and the last line has them all.
func TestLastWords(t *testing.T) {
	dir := t.TempDir()
	two := writeFile(t, filepath.Join(dir, "two.yaml"), render(t, func(c *config.Config) { c.KeyPrefix, c.LogLevel = "lock", "loud" }))
	for name, r := range map[string]struct {
		args []string
		last string
	}{
		"one problem":       {[]string{"--ttl=soon"}, `sidecar: the configuration is wrong: --ttl: "soon" is no duration`},
		"two problems":      {[]string{"--config", two}, `sidecar: the configuration has 2 problems: keyPrefix: must not start with "lock"`},
		"the second of two": {[]string{"--config", two}, `; logLevel: must be one of`},
		"a useless last good one": {[]string{"--config", two, "--last-good", writeFile(t, filepath.Join(dir, "none.yaml"), "{")},
			`sidecar: the configuration has 2 problems: keyPrefix`},
		"cannot be opened": {[]string{"--database-url=sqlite:" + dir + "/no/such/folder/carts.db"}, "sidecar: cannot start: "},
		"a port is taken":  {[]string{"--backend=memory", "--http-address=" + taken(t)}, "address already in use"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := Run(t.Context(), append([]string{"--grpc-address=127.0.0.1:0", "--admin-address=127.0.0.1:0", "--log-format=json"}, r.args...), nil, &stdout, &stderr); code == exitOK {
				t.Error("exit code 0")
			}
			lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
			if last := lines[len(lines)-1]; !strings.HasPrefix(last, "sidecar: ") || !strings.Contains(last, r.last) {
				t.Errorf("the last line is\n%s\nwant\n%s", last, r.last)
			}
		})
	}
}

// taken is an address on which somebody listens.
func taken(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// Addresses in arguments belong to the pod, and win over the file for as long as the pod lives. A file that names
// others is accepted all the same, and a restart listens on the same addresses as before, on both loopbacks.
func TestListenersOfFlagsStay(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), render(t, func(c *config.Config) { c.Generation = 1 }))
	first := launch(t, "--config", file)
	var flags []string
	for _, front := range []string{"grpc", "http", "admin"} {
		flags = append(flags, "--"+front+"-address="+first.serving[front].(string))
	}
	if code := first.stop(); code != exitOK {
		t.Fatalf("exit code %d", code)
	}

	s := launchFile(t, file, flags...)
	writeFile(t, file, render(t, func(c *config.Config) {
		c.Generation, c.Limits.MaxItems = 2, 5
		c.Listen = config.Listen{GRPC: "127.0.0.1:17420", HTTP: "127.0.0.1:17421", Admin: "127.0.0.1:17422"}
	}))
	s.await("configuration taken over")
	if st := s.status(); st.Generation != 2 || st.Config.State != stateAccepted {
		t.Errorf("status %+v", st)
	}
	if code := s.stop(); code != exitOK {
		t.Fatalf("exit code %d", code)
	}

	s = launchFile(t, file, flags...)
	for _, front := range []string{"grpc", "http", "admin"} {
		if s.serving[front] != first.serving[front] {
			t.Errorf("%s is served at %v after the restart, before at %v", front, s.serving[front], first.serving[front])
		}
	}
	s.mustPut("u1", 1)
	if !strings.Contains(s.logs.String(), "not served on [::1] too") { // where the machine has it
		twin := strings.Replace(s.http, "127.0.0.1", "[::1]", 1)
		if code, body := s.get(twin + "/v1/carts/u1/default"); code != http.StatusOK {
			t.Errorf("%s: %d %s", twin, code, body)
		}
	}
}

// The log format follows the file, as its level does.
func TestLogFormatFollowsTheFile(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), render(t, func(c *config.Config) { c.Generation = 1 }))
	s := launchFile(t, file)
	inFormat := func(format config.LogFormat, generation int64) {
		t.Helper()
		if err := os.WriteFile(file, []byte(render(t, func(c *config.Config) { c.Generation, c.LogFormat = generation, format })), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inFormat(config.LogText, 2)
	s.awaitText(`msg="configuration taken over" changed=settings generation=2`)
	inFormat(config.LogJSON, 3)
	s.awaitText(`"msg":"configuration taken over","changed":"settings","generation":3`)
	if st := s.status(); st.Generation != 3 || st.Config.State != stateAccepted {
		t.Errorf("status %+v", st)
	}
}

func TestContainerLimit(t *testing.T) {
	for _, r := range []struct {
		name, told, cgroup string
		have               bool
		want               int64 // 0 is none
	}{
		{"both", "100", "200\n", true, 90},
		{"the cgroup is smaller", "200", "100\n", true, 90},
		{"told alone", "100", "", false, 90},
		{"the cgroup alone", "", "100\n", true, 90},
		{"none: the node's memory is told", "64000000000", "max\n", true, 0},
		{"nothing", "", "", false, 0},
		{"nonsense", "much", "", false, 0},
	} {
		if got, ok := containerLimit(r.told, r.cgroup, r.have); got != r.want || ok != (r.want > 0) {
			t.Errorf("%s: %d, %v, want %d", r.name, got, ok, r.want)
		}
	}
}

// The container's memory limit reaches the garbage collector, unless GOMEMLIMIT says otherwise.
func TestMemoryLimitOfTheContainer(t *testing.T) {
	before, where := debug.SetMemoryLimit(-1), cgroupLimit
	t.Cleanup(func() {
		debug.SetMemoryLimit(before)
		cgroupLimit = where
	})
	cgroupLimit = filepath.Join(t.TempDir(), "none")
	if got := tuneMemory(map[string]string{config.MemoryLimitVariable: "200000000"}); got != 180_000_000 {
		t.Errorf("the limit is %d, want nine tenths of what is told", got)
	}
	writeFile(t, cgroupLimit, "100000000\n")
	if got := tuneMemory(map[string]string{config.MemoryLimitVariable: "200000000"}); got != 90_000_000 {
		t.Errorf("the limit is %d, want nine tenths of the cgroup's", got)
	}
	debug.SetMemoryLimit(70_000_000) // as the runtime does
	if got := tuneMemory(map[string]string{config.MemoryLimitVariable: "200000000", "GOMEMLIMIT": "70000000"}); got != 70_000_000 {
		t.Errorf("the limit is %d, want that of GOMEMLIMIT", got)
	}
}
