package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// role is set in the environment of this same program when it runs as one of a cluster's own processes.
const role = "SIDECART_CLUSTER_ROLE"

// A cluster's first processes are this program, run again, so that a test needs no second program.
func init() {
	switch os.Getenv(role) {
	case "":
		return
	case "supervisor":
		// The kernel kills the machines when the thread that started them ends, so that must be the one that ends last.
		runtime.LockOSThread()
		exitWith(supervise(os.Args[1]))
	case "machine":
		exitWith(bootMachine(os.Args[1], os.Args[2]))
	}
}

// self is this program, also after go run or go test has deleted its file.
const self = "/proc/self/exe"

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", os.Getenv(role)+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// The file descriptors that a supervisor is started with.
const (
	lockFD  = 3 + iota // the locked lock file: held as long as this process lives
	ownerFD            // ends when the owner does; absent for a detached cluster
)

// Supervisor is the process that owns a cluster's machines. Its exported methods are called over the socket in the
// cluster's folder.
type Supervisor struct {
	dir  string
	done chan struct{}
	end  func()
	// Machines are started by the main goroutine only, whose thread lives longest.
	main chan func()

	mu       sync.Mutex
	machines map[string]*exec.Cmd
}

func supervise(dir string) error {
	syscall.CloseOnExec(lockFD)
	s := &Supervisor{dir: dir, done: make(chan struct{}), main: make(chan func()), machines: map[string]*exec.Cmd{}}
	s.end = sync.OnceFunc(func() { close(s.done) })

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	go func() { <-signals; s.end() }()
	if owner := os.NewFile(ownerFD, "owner"); os.Getenv("SIDECART_CLUSTER_DETACHED") == "" {
		syscall.CloseOnExec(ownerFD)
		go func() { _, _ = io.Copy(io.Discard, owner); s.end() }()
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "supervisor.sock"))
	if err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.RegisterName("Supervisor", s); err != nil {
		return err
	}
	go server.Accept(listener)

	for {
		select {
		case f := <-s.main:
			f()
		case <-s.done:
			return s.clear()
		}
	}
}

// Boot starts the machine of that name and answers with its first process, as the caller sees it.
func (s *Supervisor) Boot(name string, pid *int) error {
	reply := make(chan error, 1)
	boot := func() { reply <- s.boot(name, pid) }
	select {
	case s.main <- boot:
		return <-reply
	case <-s.done:
		return errors.New("the cluster is stopping")
	}
}

func (s *Supervisor) boot(name string, pid *int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machines[name] != nil {
		return fmt.Errorf("machine %s is running", name)
	}
	folder := filepath.Join(s.dir, name)
	log, err := os.OpenFile(filepath.Join(folder, "log", "machine.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	socket := filepath.Join(folder, "machine.sock")
	_ = os.Remove(socket)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)
	defer listener.Close()
	file, err := listener.File()
	if err != nil {
		return err
	}
	defer file.Close()
	if err := makeCgroups(cgroupName(s.dir, name)); err != nil {
		return err
	}
	cmd := exec.Command(self, name, folder)
	cmd.Env = append(os.Environ(), role+"=machine")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start machine %s: %w", name, err)
	}
	s.machines[name] = cmd
	*pid = cmd.Process.Pid
	return nil
}

// Halt pulls the plug of a machine: when it returns, nothing that ran there is left.
func (s *Supervisor) Halt(name string, _ *struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.halt(name)
}

func (s *Supervisor) halt(name string) error {
	cmd := s.machines[name]
	if cmd == nil {
		return fmt.Errorf("machine %s is not running", name)
	}
	delete(s.machines, name)
	// The kernel ends the first process of a namespace after all the others.
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return removeCgroups(cgroupName(s.dir, name))
}

// Machines answers with the first process of each machine that runs.
func (s *Supervisor) Machines(_ struct{}, pids *map[string]int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	*pids = map[string]int{}
	for name, cmd := range s.machines {
		(*pids)[name] = cmd.Process.Pid
	}
	return nil
}

// Shutdown ends all machines and then the supervisor, whose connections break when everything is cleared.
func (s *Supervisor) Shutdown(struct{}, *struct{}) error {
	s.end()
	return nil
}

func (s *Supervisor) clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for name := range s.machines {
		errs = append(errs, s.halt(name))
	}
	if err := errors.Join(errs...); err != nil {
		return err // told in the folder, which stays
	}
	return os.RemoveAll(s.dir)
}

// spawnSupervisor starts the supervisor of the folder. It ends with this process, unless it is detached. It takes over
// the lock.
func spawnSupervisor(dir string, lock *os.File, detached bool) (alive io.Closer, exited <-chan error, err error) {
	log, err := os.Create(filepath.Join(dir, "supervisor.log"))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd := exec.Command(self, dir)
	cmd.Env = append(os.Environ(), role+"=supervisor")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the owner
	if detached {
		cmd.Env = append(cmd.Env, "SIDECART_CLUSTER_DETACHED=yes")
		alive = io.NopCloser(nil)
	} else {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		defer read.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, read)
		alive = write
	}
	if err := cmd.Start(); err != nil {
		_ = alive.Close()
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); close(ended) }()
	return alive, ended, nil
}
