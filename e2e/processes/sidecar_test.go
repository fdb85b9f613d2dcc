package processes

import (
	"bytes"
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
	"strings"
	"syscall"
	"testing"
	"time"
)

// sidecar is one process. Its application programming interface is on a socket of its own, so that a restart finds the
// same address.
type sidecar struct {
	t      *testing.T
	build  variant
	args   []string
	env    []string
	socket string
	client *http.Client
	cmd    *exec.Cmd
	log    *bytes.Buffer
	exited chan struct{}
}

// start runs a sidecar, built with the race detector, and waits until it serves.
func start(t *testing.T, args ...string) *sidecar {
	t.Helper()
	s := prepare(t, args...)
	s.build.race = true
	s.run()
	return s
}

// prepare makes a sidecar that is yet to run.
func prepare(t *testing.T, args ...string) *sidecar {
	t.Helper()
	dir, err := os.MkdirTemp("", "sc") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &sidecar{t: t, socket: filepath.Join(dir, "s"), args: args}
	s.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 32,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket)
		},
	}}
	t.Cleanup(s.client.CloseIdleConnections)
	t.Cleanup(func() {
		if s.cmd == nil {
			return
		}
		s.kill()
		if t.Failed() {
			t.Logf("log of the sidecar on %s:\n%s", strings.Join(s.args, " "), tail(s.log.String(), 4000))
		}
	})
	return s
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (s *sidecar) run() {
	s.t.Helper()
	path, err := s.build.binary()
	if err != nil {
		s.t.Fatal(err)
	}
	args := append([]string{
		"--socket", s.socket, "--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0",
	}, s.args...)
	s.cmd = exec.Command(path, args...)
	s.log = new(bytes.Buffer)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.Env = append(append(os.Environ(), "GOMAXPROCS=2"), s.env...)
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		s.t.Fatal(err)
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(s.cmd, s.exited)
	s.waitUntilServing()
}

// waitUntilServing asks until the answer is 200.
func (s *sidecar) waitUntilServing() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if status, _, err := s.call(ctx, http.MethodGet, "/v1/carts/probe/default", ""); err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-s.exited:
			s.t.Fatalf("the sidecar ended at its start:\n%s", s.log)
		case <-ctx.Done():
			s.kill()
			s.t.Fatalf("the sidecar does not serve:\n%s", s.log)
		case <-tick.C:
		}
	}
}

// kill is SIGKILL.
func (s *sidecar) kill() {
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	<-s.exited
}

// stop is SIGTERM; it returns the exit code.
func (s *sidecar) stop() int {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.exited
	return s.cmd.ProcessState.ExitCode()
}

// call makes one request; body "" is none.
func (s *sidecar) call(ctx context.Context, method, path, body string, header ...string) (int, []byte, error) {
	status, _, answer, err := s.ask(ctx, method, path, body, header...)
	return status, answer, err
}

// ask is call with the headers of the answer.
func (s *sidecar) ask(ctx context.Context, method, path, body string, header ...string) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://sidecar"+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, b, err
}

// must is call for what has to succeed; it decodes the answer.
func (s *sidecar) must(method, path, body string, header ...string) map[string]any {
	s.t.Helper()
	status, b, err := s.call(s.t.Context(), method, path, body, header...)
	if err != nil || status != http.StatusOK {
		s.t.Fatalf("%s %s: %d %s %v", method, path, status, b, err)
	}
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		s.t.Fatal(errors.Join(err, fmt.Errorf("%s", b)))
	}
	return v
}

// quantities are those of the items of a cart.
func (s *sidecar) quantities(cart string) map[string]int {
	s.t.Helper()
	q := map[string]int{}
	items, _ := s.must(http.MethodGet, "/v1/carts/"+cart+"/items", "")["items"].(map[string]any)
	for id, item := range items {
		q[id] = int(item.(map[string]any)["quantity"].(float64))
	}
	return q
}
