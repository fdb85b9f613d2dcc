package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binaries is a folder with the sidecar and the shop, both with the race detector, built once.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sidecart-shop-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-race", "-o", dir+"/", "github.com/sidecart/sidecart/cmd/sidecar", ".").CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := binaries(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func binary(t *testing.T, name string) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// deadline is how long a test waits for what must happen.
const deadline = 30 * time.Second

// process is a program that a test has started.
type process struct {
	cmd    *exec.Cmd
	lines  chan string // of its output; closed at its end
	exited chan struct{}
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, make(chan string, 10_000), make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		_ = w.Close()
		close(p.exited)
	}()
	go func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			p.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	return p
}

// await returns the first line that matches, with what the groups of the expression found, and the lines before it.
func (p *process) await(t *testing.T, expression string) ([]string, []string) {
	t.Helper()
	matcher := regexp.MustCompile(expression)
	var before []string
	timeout := time.After(deadline)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("%s ended without %s:\n%s", p.cmd.Path, expression, strings.Join(before, "\n"))
			}
			before = append(before, line)
			if found := matcher.FindStringSubmatch(line); found != nil {
				return found, before
			}
		case <-timeout:
			t.Fatalf("%s does not say %s:\n%s", p.cmd.Path, expression, strings.Join(before, "\n"))
		}
	}
}

// end sends a signal and returns the exit code.
func (p *process) end(signal os.Signal) int {
	_ = p.cmd.Process.Signal(signal)
	<-p.exited
	return p.cmd.ProcessState.ExitCode()
}

// rest is all of the output that was not read yet, of a process that has ended.
func (p *process) rest() []string {
	var all []string
	for line := range p.lines {
		all = append(all, line)
	}
	return all
}

// startSidecar starts a sidecar on free ports and returns the address of its HTTP API.
func startSidecar(t *testing.T, args ...string) (*process, string) {
	t.Helper()
	args = append([]string{"--http-address", "127.0.0.1:0", "--grpc-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"}, args...)
	p := start(t, exec.Command(binary(t, "sidecar"), args...))
	found, _ := p.await(t, `msg=serving .*http=(\S+)`)
	return p, "http://" + found[1]
}

// shopAt is one command of the shop, as a process, against the sidecar at url.
func shopAt(t *testing.T, url string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(binary(t, "shop"), args...)
	cmd.Env = append(os.Environ(), "SIDECART_HTTP_URL="+url)
	return cmd
}

// command runs one command of the shop in this process.
func command(t *testing.T, url, stdin string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	getenv := func(name string) string { return map[string]string{"SIDECART_HTTP_URL": url}[name] }
	err := Run(t.Context(), args, getenv, strings.NewReader(stdin), &out)
	return out.String(), err
}

// startShop serves the shop in this process and returns its address and what stops it.
func startShop(t *testing.T, url string) (string, func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		getenv := func(string) string { return url }
		err := Run(ctx, []string{"--address", "127.0.0.1:0"}, getenv, strings.NewReader(""), w)
		w.CloseWithError(io.EOF)
		done <- err
	}()
	lines := bufio.NewReader(r)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("the shop does not serve: %v", <-done)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(first), stop
}

func do(t *testing.T, client *http.Client, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}
