package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/config"
)

// patience is much longer than anything takes, also on a busy machine.
const patience = 30 * time.Second

// Only the tests of the poll itself may pass because of it.
func TestMain(m *testing.M) {
	pollEvery = time.Hour
	os.Exit(m.Run())
}

// pollFast makes the poll of one test fast.
func pollFast(t *testing.T) {
	before := pollEvery
	pollEvery = 20 * time.Millisecond
	t.Cleanup(func() { pollEvery = before })
}

// logs keeps what a sidecar logs, as JSON, and wakes those who wait for a line.
type logs struct {
	mu      sync.Mutex
	text    bytes.Buffer
	lines   []map[string]any
	partial []byte
	more    chan struct{} // closed at each new line
	read    int           // lines that await has passed
}

func newLogs() *logs { return &logs{more: make(chan struct{})} }

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	l.partial = append(l.partial, p...)
	for {
		line, rest, ok := bytes.Cut(l.partial, []byte("\n"))
		if !ok {
			break
		}
		l.partial = rest
		m := map[string]any{}
		if json.Unmarshal(line, &m) != nil {
			m["msg"] = string(line)
		}
		l.lines = append(l.lines, m)
	}
	close(l.more)
	l.more = make(chan struct{})
	return len(p), nil
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// next returns the first line with that message that was not read yet.
func (l *logs) next(msg string) (map[string]any, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := l.read; i < len(l.lines); i++ {
		if l.lines[i]["msg"] == msg {
			l.read = i + 1
			return l.lines[i], nil
		}
	}
	return nil, l.more
}

// code is the first line about a warning of the backend.
func (l *logs) code(code string) (map[string]any, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line["code"] == code {
			return line, nil
		}
	}
	return nil, l.more
}

// sidecarUnderTest is a running sidecar.
type sidecarUnderTest struct {
	t       *testing.T
	logs    *logs
	signals chan os.Signal
	exited  chan struct{} // closed at the end
	code    int           // valid then
	http    string
	admin   string
	serving map[string]any // its first log line
}

// launch runs a sidecar on free ports and waits until it serves. It is stopped at the end of the test.
func launch(t *testing.T, args ...string) *sidecarUnderTest {
	t.Helper()
	s := begin(t, append([]string{"--grpc-address=127.0.0.1:0", "--http-address=127.0.0.1:0", "--admin-address=127.0.0.1:0", "--log-format=json"}, args...)...)
	s.serving = s.await("serving")
	s.http, s.admin = "http://"+s.serving["http"].(string), "http://"+s.serving["admin"].(string)
	return s
}

// launchFile runs a sidecar with a file only, which must name free ports; see render.
func launchFile(t *testing.T, file string, args ...string) *sidecarUnderTest {
	t.Helper()
	s := begin(t, append([]string{"--config", file}, args...)...)
	s.serving = s.await("serving")
	s.http, s.admin = "http://"+s.serving["http"].(string), "http://"+s.serving["admin"].(string)
	return s
}

func begin(t *testing.T, args ...string) *sidecarUnderTest {
	t.Helper()
	return beginWith(t, nil, args...)
}

// beginWith is begin with an environment.
func beginWith(t *testing.T, env map[string]string, args ...string) *sidecarUnderTest {
	t.Helper()
	s := &sidecarUnderTest{t: t, logs: newLogs(), signals: make(chan os.Signal, 4), exited: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(s.exited)
		s.code = runServe(ctx, args, env, s.signals, io.Discard, s.logs)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-s.exited:
		case <-time.After(patience):
			t.Errorf("the sidecar did not stop:\n%s", s.logs)
		}
	})
	return s
}

// await waits for a log line that came after the last one that was awaited.
func (s *sidecarUnderTest) await(msg string) map[string]any {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		line, more := s.logs.next(msg)
		if line != nil {
			return line
		}
		select {
		case <-more:
		case <-s.exited:
			if line, _ := s.logs.next(msg); line != nil {
				return line
			}
			s.t.Fatalf("the sidecar ended with %d before it logged %q:\n%s", s.code, msg, s.logs)
		case <-deadline:
			s.t.Fatalf("nothing logged %q:\n%s", msg, s.logs)
		}
	}
}

// awaitText waits until the log has a text, in whatever format.
func (s *sidecarUnderTest) awaitText(text string) {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		_, more := s.logs.code("") // no line has it
		if strings.Contains(s.logs.String(), text) {
			return
		}
		select {
		case <-more:
		case <-deadline:
			s.t.Fatalf("nothing logged %q:\n%s", text, s.logs)
		}
	}
}

// stop sends SIGTERM and returns the exit code.
func (s *sidecarUnderTest) stop() int {
	s.t.Helper()
	s.signals <- syscall.SIGTERM
	return s.wait()
}

func (s *sidecarUnderTest) wait() int {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Fatalf("the sidecar did not end:\n%s", s.logs)
	}
	return s.code
}

// ready waits until readyz says that the sidecar is ready, or not ready.
func (s *sidecarUnderTest) ready(want bool) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		if code, _ := s.get(s.admin + "/readyz"); (code == http.StatusOK) == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("readyz did not become %v:\n%s", want, s.logs)
		}
	}
}

func (s *sidecarUnderTest) get(url string) (int, string) {
	s.t.Helper()
	code, body, err := request(http.MethodGet, url, "")
	if err != nil {
		s.t.Fatal(err)
	}
	return code, body
}

// put replaces the items of a cart with one item.
func (s *sidecarUnderTest) put(identifier string, quantity int) error {
	code, body, err := request(http.MethodPut, s.http+"/v1/carts/"+identifier+"/default/items",
		fmt.Sprintf(`{"items":{"sku-1":{"id":"sku-1","quantity":%d}}}`, quantity))
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("PUT items: %d %s", code, body)
	}
	return err
}

func (s *sidecarUnderTest) mustPut(identifier string, quantity int) {
	s.t.Helper()
	if err := s.put(identifier, quantity); err != nil {
		s.t.Fatalf("%v\n%s", err, s.logs)
	}
}

// quantity reads the item that put wrote; 0 if there is none.
func (s *sidecarUnderTest) quantity(identifier string) int {
	s.t.Helper()
	code, body := s.get(s.http + "/v1/carts/" + identifier + "/default")
	var c struct {
		Items map[string]struct{ Quantity int }
	}
	if err := json.Unmarshal([]byte(body), &c); err != nil || code != http.StatusOK {
		s.t.Fatalf("GET: %d %s %v", code, body, err)
	}
	return c.Items["sku-1"].Quantity
}

// life is the time to live that a cart got at its last change.
func (s *sidecarUnderTest) life(identifier string) time.Duration {
	s.t.Helper()
	_, body := s.get(s.http + "/v1/carts/" + identifier + "/default")
	var c struct{ UpdatedAt, ExpiresAt time.Time }
	if err := json.Unmarshal([]byte(body), &c); err != nil {
		s.t.Fatalf("%v: %s", err, body)
	}
	return c.ExpiresAt.Sub(c.UpdatedAt)
}

// status is the status page for programs.
type status struct {
	Generation int64
	Config     struct{ State, Message string }
	Backend    struct {
		Type    string
		Healthy bool
	}
	Locking struct {
		Mode, Reason string
		Enabled      bool
	}
	Counters struct{ InFlight int }
	Move     struct {
		From, State string
		Walking     bool
		Carried     int
		Left        int
	}
}

func (s *sidecarUnderTest) status() (st status) {
	s.t.Helper()
	_, body := s.get(s.admin + "/statusz")
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		s.t.Fatalf("%v: %s", err, body)
	}
	return st
}

var client = &http.Client{Timeout: patience}

func request(method, url, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

// sqliteURL is a database in a folder of the test.
func sqliteURL(t *testing.T) string {
	return "sqlite:" + filepath.Join(t.TempDir(), "carts.db")
}

// render is a configuration file as the operator would write it.
func render(t *testing.T, change func(*config.Config)) string {
	t.Helper()
	c := config.Default()
	c.Backend = config.Backend{Type: config.BackendMemory}
	c.Listen = config.Listen{GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", Admin: "127.0.0.1:0"}
	c.LogFormat = config.LogJSON
	change(c)
	data, err := config.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// unixClient speaks HTTP over a socket.
func unixClient(path string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
}
