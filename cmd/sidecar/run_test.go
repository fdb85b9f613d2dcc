package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestRunCommands(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		args           string
		code           int
		stdout, stderr string // parts
	}{
		"help":             {"--help", exitOK, "sidecar validate FILE", ""},
		"short help":       {"-h", exitOK, "Exit codes:", ""},
		"help command":     {"help", exitOK, "Listeners:", ""},
		"version":          {"version", exitOK, "sidecar devel (commit ", ""},
		"version of what":  {"version x", exitUsage, "", "version takes no arguments"},
		"version flag":     {"--version", exitOK, "sidecar devel (commit ", ""},
		"version, no load": {"--version --ttl soon --config " + dir + "/none", exitOK, "sidecar devel (commit ", ""},
		"version flag of":  {"--version x", exitUsage, "", `"x" is neither a flag nor, at this place, a command`},
		"version is what":  {"--version=s3cret", exitUsage, "", "--version takes true or false"},
		"one dash":         {"-database-url=postgres://me:s3cret@db/shop", exitUsage, "", "unknown flag -database-url…: flags begin with two dashes"},
		"bad syntax":       {"--=postgres://me:s3cret@db/shop", exitUsage, "", "bad flag syntax: --…"},
		"url as command":   {"postgres://me:s3cret@db/shop", exitUsage, "", `"postgres…" is no command`},
		"url left over":    {"--backend memory me:s3cret@db/shop", exitUsage, "", `"me…" is neither a flag nor`},
		"url as address":   {"--backend redis --redis-address redis://me:s3cret@r:6379", exitUsage, "", `must be host:port, for example redis:6379, is "redis://me:xxxxx@r:6379"`},
		"url of postgres":  {"--database-url postgres://me:s3cret@db", exitUsage, "", `must be postgres://host/name, is "postgres://me:xxxxx@db"`},
		"no url":           {"--database-url db?password=s3cret", exitUsage, "", `must start with sqlite:, postgres:// or mysql://, is "xxxxx"`},
		"no command":       {"serve", exitUsage, "", `"serve" is no command: there are validate, move, observe and version`},
		"no flag":          {"--lockin auto", exitUsage, "", "unknown flag: --lockin"},
		"no value":         {"--ttl", exitUsage, "", "flag needs an argument: --ttl"},
		"left over":        {"--backend memory validate", exitUsage, "", `"validate" is neither a flag nor, at this place, a command`},
		"left for move":    {"move --backend memory x", exitUsage, "", `"x" is no flag of move`},
		"left to observe":  {"observe --pattern c:* x", exitUsage, "", `"x" is no flag of observe`},
		"bad value":        {"--ttl soon", exitUsage, "", "sidecar: the configuration is wrong: --ttl: \"soon\" is no duration"},
		"secret not there": {"--backend redis --redis-address r:1 --redis-password-file " + dir + "/none", exitUsage, "", "backend.redis.passwordFile: open " + dir + "/none: no such file"},
		"cannot open":      {"--database-url sqlite:" + dir + "/no/such/folder/carts.db", exitFailed, "", "cannot start"},
		"validate what":    {"validate", exitUsage, "", "validate takes one argument, the file"},
		"validate two":     {"validate a b", exitUsage, "", "validate takes one argument, the file"},
		"validate nothing": {"validate " + dir + "/none", exitFailed, "", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Run(t.Context(), strings.Fields(tc.args), nil, &stdout, &stderr)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if strings.Contains(stdout.String()+stderr.String(), "s3cret") {
				t.Error("the password is told")
			}
			if !strings.Contains(stdout.String(), tc.stdout) || (tc.stdout == "") != (stdout.Len() == 0) {
				t.Errorf("stdout: %s\nwant %s", &stdout, tc.stdout)
			}
			if !strings.Contains(stderr.String(), tc.stderr) || (tc.stderr == "") != (stderr.Len() == 0) {
				t.Errorf("stderr: %s\nwant %s", &stderr, tc.stderr)
			}
		})
	}
}

// testdata/validate has configurations and, beside each, the output of validate.
func TestValidateGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/validate/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("golden files: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Run(t.Context(), []string{"validate", file}, nil, &stdout, &stderr)
			golden := strings.TrimSuffix(file, ".yaml") + ".out"
			if *update {
				if err := os.WriteFile(golden, stdout.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), stdout.String()); d != "" {
				t.Error(d)
			}
			good := strings.HasPrefix(filepath.Base(file), "good")
			if good != (code == exitOK) || !good && code != exitFailed || stderr.Len() > 0 {
				t.Errorf("exit code %d, stderr %q", code, &stderr)
			}
		})
	}
}

// The whole program, through Run and a real signal to this process.
func TestRunServesUntilSignal(t *testing.T) {
	l := newLogs()
	s := &sidecarUnderTest{t: t, logs: l, exited: make(chan struct{})}
	env := []string{"SIDECART_BACKEND=memory", "SIDECART_GRPC_ADDRESS=127.0.0.1:0", "SIDECART_HTTP_ADDRESS=127.0.0.1:0", "SIDECART_ADMIN_ADDRESS=127.0.0.1:0", "SIDECART_LOG_FORMAT=json", "CART_CACHE_LOCKING=true"}
	go func() {
		defer close(s.exited)
		s.code = Run(context.Background(), nil, env, io.Discard, l)
	}()
	line := s.await("serving")
	s.http = "http://" + line["http"].(string)
	if line["backend"] != "Memory" || line["locking"] != false || line["reason"] != "MemoryCannotLockAcrossReplicas" {
		t.Errorf("start-up line: %v", line)
	}
	if w := s.await("locking is enabled, but backend Memory cannot lock across replicas: run one replica only, or use another backend"); w["level"] != "WARN" {
		t.Errorf("the fallback is not a warning: %v", w)
	}
	s.mustPut("u1", 2)
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, l)
	}
}

func TestSQLiteSurvivesARestart(t *testing.T) {
	url := sqliteURL(t)
	s := launch(t, "--backend", "database", "--database-url", url)
	s.ready(true)
	if got := s.serving["backend"]; got != "Database "+url {
		t.Errorf("backend = %v", got)
	}
	s.mustPut("u1", 3)
	if code := s.stop(); code != exitOK {
		t.Fatalf("exit code %d:\n%s", code, s.logs)
	}
	s = launch(t, "--backend", "database", "--database-url", url)
	if q := s.quantity("u1"); q != 3 {
		t.Errorf("quantity after the restart = %d, want 3", q)
	}
}

func TestSocketServes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if len(path) > 100 {
		t.Fatalf("the test folder is too deep for a socket: %s", path)
	}
	s := launch(t, "--backend=memory", "--socket="+path)
	s.mustPut("u1", 1)
	resp, err := unixClient(path).Get("http://sidecart/v1/carts/u1/default")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	if !strings.Contains(string(body), "sku-1") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// A sidecar starts while its backend is down, says so, and gets ready by itself.
func TestStartsBeforeItsBackend(t *testing.T) {
	server := testserver.StartRedis(t)
	server.Stop()
	s := launch(t, "--backend=redis", "--redis-address="+server.Addr, "--locking=auto")
	if s.serving["locking"] != true || s.serving["reason"] != reasonShared {
		t.Errorf("start-up line: %v", s.serving)
	}
	s.await("backend does not answer yet, ready when it does")
	if code, _ := s.get(s.admin + "/livez"); code != http.StatusOK {
		t.Errorf("livez = %d", code)
	}
	s.ready(false)
	if code, body, err := request(http.MethodGet, s.http+"/v1/carts/u1/default", ""); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "BACKEND_UNAVAILABLE") {
		t.Errorf("a request without a backend: %d %s %v", code, body, err)
	}
	server.Restart()
	s.ready(true)
	s.mustPut("u1", 4)
	if q := s.quantity("u1"); q != 4 {
		t.Errorf("quantity %d", q)
	}
	if st := s.status(); !st.Backend.Healthy || st.Backend.Type != "Redis" || st.Locking.Mode != "auto" || !st.Locking.Enabled {
		t.Errorf("status %+v", st)
	}
}

// blockedPut starts a PUT that waits for a lock which somebody else holds in the backend, and returns once the sidecar
// works on it.
func blockedPut(t *testing.T, s *sidecarUnderTest, server *testserver.Redis) (result <-chan error) {
	t.Helper()
	if _, err := server.Do("SET", "lock.cart.u1.default", "somebody-else-holds-it", "PX", "60000"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.put("u1", 5) }()
	for s.status().Counters.InFlight == 0 {
		select {
		case err := <-done:
			t.Fatalf("the lock of another program was not honoured: %v", err)
		default:
		}
	}
	return done
}

func TestGracefulStop(t *testing.T) {
	server := testserver.StartRedis(t)
	args := []string{"--backend=redis", "--redis-address=" + server.Addr, "--lock-timeout=20s"}
	s := launch(t, args...)
	s.ready(true)
	result := blockedPut(t, s, server)
	s.signals <- syscall.SIGTERM
	s.await("stopping")
	s.ready(false)
	for { // new ones are refused
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.http, "http://"))
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	if _, err := server.Do("DEL", "lock.cart.u1.default"); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Errorf("the request under way: %v\n%s", err, s.logs)
	}
	if code := s.wait(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, s.logs)
	}
	if q := launch(t, args...).quantity("u1"); q != 5 {
		t.Errorf("what was acknowledged is not there: quantity %d", q)
	}
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	server := testserver.StartRedis(t)
	s := launch(t, "--backend=redis", "--redis-address="+server.Addr, "--lock-timeout=20s")
	s.ready(true)
	result := blockedPut(t, s, server)
	s.signals <- syscall.SIGINT
	s.await("stopping")
	s.signals <- syscall.SIGINT
	if code := s.wait(); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	s.await("stopped at once by a second signal")
	if _, err := server.Do("DEL", "lock.cart.u1.default"); err != nil {
		t.Fatal(err)
	}
	<-result // the process lives on in this test, and so does the call
}

func TestMemoryLimit(t *testing.T) {
	for raw, want := range map[string]int64{"100000000\n": 90_000_000, "max\n": 0, "": 0, "0": 0, "9223372036854771712": 0} {
		if got, ok := memoryLimit(raw); got != want || ok != (want > 0) {
			t.Errorf("memoryLimit(%q) = %d, %v, want %d", raw, got, ok, want)
		}
	}
}

// A variable with a misspelt name is logged at the start, together with the one that was meant. Its value is not, since
// it may be a password.
func TestUnknownVariablesAreToldAtTheStart(t *testing.T) {
	s := beginWith(t, map[string]string{
		"SIDECART_REDIS_PASSWORD": "s3cret", "SIDECART_COLOUR": "s3cret", "SIDECART_KEY_PREFIX": "cart", "SIDECART_HTTP_URL": "http://127.0.0.1:7421",
		"SIDECART_GRPC_TARGET": "127.0.0.1:7420", "SIDECART_SERVICE_HOST": "10.0.0.1", "CART_CACHE_LOCKING": "true", "CART_COLOUR": "red",
	}, "--backend=memory", "--grpc-address=127.0.0.1:0", "--http-address=127.0.0.1:0", "--admin-address=127.0.0.1:0", "--log-format=json")
	s.await("serving")
	if code := s.stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	var told []string
	for _, line := range s.logs.lines {
		if v, ok := line["variable"]; ok {
			told = append(told, fmt.Sprint(v, ": ", line["level"], ": ", line["msg"]))
		}
	}
	want := []string{
		"SIDECART_COLOUR: WARN: environment variable is unknown and has no effect",
		"SIDECART_REDIS_PASSWORD: WARN: environment variable is unknown and has no effect: did you mean SIDECART_REDIS_PASSWORD_FILE?",
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Error(d)
	}
	if strings.Contains(s.logs.String(), "s3cret") {
		t.Error("a value is told")
	}
}

// heavyStore is a store with memory outside of Go's heap.
type heavyStore struct{ storage.Store }

func (heavyStore) OutsideHeap() int64 { return 30 << 20 }

// The collector's limit leaves room for the memory that it does not see.
func TestFitMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	for _, row := range []struct {
		limit int64
		store storage.Store
		want  int64
	}{
		{math.MaxInt64, heavyStore{}, math.MaxInt64},
		{115 << 20, nil, 115<<20 - programMemory},
		{115 << 20, heavyStore{}, 85<<20 - programMemory},
		{40 << 20, heavyStore{}, 20 << 20}, // half at least
	} {
		debug.SetMemoryLimit(before)
		if got := fitMemory(row.limit, row.store); got != row.want {
			t.Errorf("%d: %d, want %d", row.limit, got, row.want)
		}
		if got := debug.SetMemoryLimit(-1); row.limit != math.MaxInt64 && got != row.want {
			t.Errorf("%d: the collector has %d", row.limit, got)
		}
	}
}
