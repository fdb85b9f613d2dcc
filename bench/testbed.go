package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/testserver"
)

// testbed is what everything is measured on: one Redis, a way to it that is slower, the sidecar as it is released, and
// writers.
type testbed struct {
	tb      *hostTB
	dir     string
	sidecar string // path of the program
	redis   string // address
	// redisPID is the process of redis.
	redisPID int
	slow     *delayProxy
	added    time.Duration // round trip that slow adds, as measured
	load     string        // of the last minute, before anything ran: other work spoils the numbers
}

func newTestbed(ctx context.Context, o options, progress io.Writer) (_ *testbed, err error) {
	b := &testbed{tb: new(hostTB), sidecar: o.sidecar, load: "unknown"}
	if raw, err := os.ReadFile("/proc/loadavg"); err == nil {
		b.load, _, _ = strings.Cut(string(raw), " ")
	}
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(fatal)
			if !ok {
				panic(r)
			}
			err = f.error
		}
		if err != nil {
			b.close()
		}
	}()
	b.dir = b.tb.TempDir()
	if b.sidecar == "" {
		fmt.Fprintln(progress, "building the sidecar")
		b.sidecar = filepath.Join(b.dir, "sidecar")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.sidecar, "github.com/sidecart/sidecart/cmd/sidecar")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the sidecar: %w\n%s", err, out)
		}
	}
	server := testserver.StartRedis(b.tb)
	b.redis, b.redisPID = server.Addr, server.PID()
	if b.slow, err = startDelayProxy(b.redis); err != nil {
		return nil, err
	}
	b.tb.Cleanup(b.slow.close)
	direct, through := pinger(ctx, b.redis), pinger(ctx, b.slow.addr)
	b.added, err = b.slow.calibrate(networkDelay, direct, through)
	return b, err
}

func pinger(ctx context.Context, addr string) func() error {
	r := redis.NewClient(&redis.Options{Addr: addr})
	return func() error { return r.Ping(ctx).Err() }
}

func (b *testbed) close() { b.tb.cleanup() }

// hostTB lets a program that is not a test use the servers of tests.
type hostTB struct{ cleanups []func() }

type fatal struct{ error }

func (*hostTB) Helper()             {}
func (*hostTB) Logf(string, ...any) {}
func (*hostTB) Fatalf(format string, args ...any) {
	panic(fatal{fmt.Errorf(format, args...)})
}
func (t *hostTB) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }
func (t *hostTB) TempDir() string {
	dir, err := os.MkdirTemp("", "sidecart-bench-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (t *hostTB) cleanup() {
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		f := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		f()
	}
}

// sidecarProcess is a running sidecar.
type sidecarProcess struct {
	cmd  *exec.Cmd
	args []string
	grpc string
	http string
	// admin is the address where it says whether it is ready.
	admin string
	// ready is how long it took from exec to the first 200 of /readyz.
	ready time.Duration
}

// startSidecar starts a sidecar on a Redis.
func (b *testbed) startSidecar(ctx context.Context, redisAddr, locking string) (*sidecarProcess, error) {
	return b.launch(ctx, locking, redisFlags(redisAddr))
}

// launch starts a sidecar on the backend that the flags name.
func (b *testbed) launch(ctx context.Context, locking string, backend []string) (*sidecarProcess, error) {
	ports, err := freeAddresses(3)
	if err != nil {
		return nil, err
	}
	p := &sidecarProcess{grpc: ports[0], http: ports[1], admin: ports[2], args: append(slices.Clone(backend), "--locking", locking,
		"--grpc-address", ports[0], "--http-address", ports[1], "--admin-address", ports[2], "--log-level", "error")}
	return p, b.start(ctx, p)
}

// start starts a sidecar, or restarts one that has ended, at the same addresses.
func (b *testbed) start(ctx context.Context, p *sidecarProcess) error {
	cmd := exec.Command(b.sidecar, p.args...)
	cmd.Dir = b.dir
	log := new(strings.Builder)
	cmd.Stderr = log
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := awaitReady(ctx, p.admin); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("%w: %s", err, log)
	}
	p.cmd, p.ready = cmd, time.Since(start)
	return nil
}

// awaitReady asks every half millisecond, which is the precision of the start time.
func awaitReady(ctx context.Context, admin string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		conn, err := net.Dial("tcp", admin)
		if err != nil {
			sleepUntil(monotonic() + int64(500*time.Microsecond))
			continue
		}
		status, err := askReady(conn)
		conn.Close()
		if err == nil && status == http.StatusOK {
			return nil
		}
		sleepUntil(monotonic() + int64(500*time.Microsecond))
	}
	return fmt.Errorf("the sidecar was not ready in time: %w", ctx.Err())
}

func askReady(conn net.Conn) (int, error) {
	req, err := http.NewRequest(http.MethodGet, "http://localhost/readyz", nil)
	if err != nil {
		return 0, err
	}
	req.Close = true
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if err := req.Write(conn); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}

func (p *sidecarProcess) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// kill ends a sidecar as a crash does.
func (p *sidecarProcess) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func freeAddresses(n int) ([]string, error) {
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at the end, so that no two are the same
		out = append(out, l.Addr().String())
	}
	return out, nil
}

// writer is a worker process.
type writer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startWriter(ctx context.Context) (*writer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, workerCommand)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &writer{cmd, in, json.NewDecoder(out)}, cmd.Start()
}

func (w *writer) stop() {
	w.in.Close()
	_ = w.cmd.Wait()
}

func (w *writer) send(o order) error { return json.NewEncoder(w.in).Encode(o) }

func (w *writer) answer() (tally, error) {
	var t tally
	if err := w.out.Decode(&t); err != nil {
		return t, fmt.Errorf("a writer ended: %w", err)
	}
	if t.Error != "" {
		return t, errors.New(t.Error)
	}
	return t, nil
}

// drive lets writers make the operations of an order at once, each on its target, and returns how long that took from
// the first beginning to the last end.
func drive(writers []*writer, targets []string, o order) (time.Duration, []tally, error) {
	writers = writers[:len(targets)]
	if err := begin(writers, targets, o); err != nil {
		return 0, nil, err
	}
	return finish(writers)
}

// begin lets all writers begin at once.
func begin(writers []*writer, targets []string, o order) error {
	for i, wr := range writers {
		o.Target, o.Worker = targets[i], i
		if err := wr.send(o); err != nil {
			return err
		}
	}
	for _, wr := range writers {
		if _, err := wr.answer(); err != nil {
			return err
		}
	}
	for _, wr := range writers {
		if _, err := io.WriteString(wr.in, goLine+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// finish waits until all writers have done what they were ordered.
func finish(writers []*writer) (time.Duration, []tally, error) {
	var tallies []tally
	var start, end int64
	for _, wr := range writers {
		t, err := wr.answer()
		if err != nil {
			return 0, nil, err
		}
		if start == 0 || t.Start < start {
			start = t.Start
		}
		end = max(end, t.End)
		tallies = append(tallies, t)
	}
	return time.Duration(end - start), tallies, nil
}
