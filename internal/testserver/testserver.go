package testserver

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// TB is the part of a *testing.T or *testing.B that this package needs. A program that is not a test can bring its own.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

const (
	// startTimeout is generous: the machine may be running many tests at once.
	startTimeout = 20 * time.Second
	// stopTimeout is how long a server may take to stop by itself.
	stopTimeout = 5 * time.Second
	pollEvery   = 5 * time.Millisecond
)

// process is a server process that can be stopped and started again.
type process struct {
	tb   TB
	name string
	bin  string
	dir  string
	log  string
	// unprivileged: it runs as a user without rights, and ends with the test whatever becomes of that.
	unprivileged bool

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
}

// newProcess finds the binary, which must be there.
func newProcess(tb TB, name string) *process {
	tb.Helper()
	bin, err := exec.LookPath(name)
	if err != nil {
		tb.Fatalf("%s is needed for this test and was not found: %v", name, err)
	}
	dir := tb.TempDir()
	p := &process{tb: tb, name: name, bin: bin, dir: dir, log: filepath.Join(dir, name+".log")}
	tb.Cleanup(p.Kill)
	return p
}

// start runs the binary and waits until ready says nil or the process has ended.
func (p *process) start(args []string, ready func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return fmt.Errorf("%s runs already", p.name)
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(p.bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, out, out
	p.isolate(cmd)
	if err := p.begin(cmd); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	p.cmd, p.exited = cmd, exited
	err = poll(exited, ready)
	if err != nil {
		_ = cmd.Process.Kill()
		<-exited
		p.cmd = nil
		return fmt.Errorf("%s did not start: %w\n%s", p.name, err, p.tail())
	}
	return nil
}

// poll asks ready until it says nil, gone is closed or startTimeout is over.
func poll(gone <-chan struct{}, ready func() error) error {
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-gone:
			return fmt.Errorf("it ended: %w", err)
		case <-deadline.C:
			return err
		case <-tick.C:
		}
	}
}

// PID is the process id; 0 while the server is stopped.
func (p *process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Stop asks the server to stop and waits until it has.
func (p *process) Stop() { p.end(syscall.SIGTERM) }

// Kill ends the server at once, as a crash does, and waits until it is gone. A server that does not run is left alone.
func (p *process) Kill() { p.end(syscall.SIGKILL) }

func (p *process) end(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	select {
	case <-p.exited: // a test that fails because of that should say so
		p.tb.Logf("%s had ended by itself (%s), and wrote at last:\n%s", p.name, p.cmd.ProcessState, p.tail())
	default:
	}
	_ = p.cmd.Process.Signal(sig)
	if sig != syscall.SIGKILL {
		_ = p.cmd.Process.Signal(syscall.SIGCONT) // a frozen process cannot stop by itself
	}
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	p.cmd = nil
}

// Pause freezes the server: connections stay open, and nothing answers.
func (p *process) Pause() {
	p.tb.Helper()
	p.signal(syscall.SIGSTOP)
	p.awaitStopped()
}

// awaitStopped waits until every thread has stopped, where the system tells: on a busy machine some go on for a while.
func (p *process) awaitStopped() {
	threads := fmt.Sprintf("/proc/%d/task/*/stat", p.PID())
	for deadline := time.Now().Add(stopTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		all, _ := filepath.Glob(threads)
		running := slices.ContainsFunc(all, func(stat string) bool {
			raw, err := os.ReadFile(stat)
			_, state, _ := bytes.Cut(raw, []byte(") ")) // behind the name
			return err == nil && !bytes.HasPrefix(state, []byte("T"))
		})
		if !running {
			return
		}
	}
	p.tb.Fatalf("%s does not stop", p.name)
}

// Resume lets a frozen server go on.
func (p *process) Resume() { p.signal(syscall.SIGCONT) }

func (p *process) signal(sig syscall.Signal) {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		p.tb.Fatalf("%s does not run", p.name)
		return
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.tb.Fatalf("%s: %v: %v", p.name, sig, err)
	}
	p.signalChildren(sig)
}

// tail is the end of what the server wrote.
func (p *process) tail() []byte {
	const last = 20
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return nil
	}
	lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-last):], []byte("\n"))
}

// freePort is a TCP port on loopback on which nothing listens now. Another process may take it before the server does;
// then the start is tried again with another port.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
