package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tunables are settings that a kubelet writes to the kernel of the whole machine and reads back. Each gets a file in
// the place of the kernel's, so that the kernel's stays as it is.
var tunables = map[string]string{
	"/proc/sys/vm/overcommit_memory":      "1",
	"/proc/sys/vm/panic_on_oom":           "0",
	"/proc/sys/kernel/panic":              "10",
	"/proc/sys/kernel/panic_on_oops":      "1",
	"/proc/sys/kernel/keys/root_maxkeys":  "1000000",
	"/proc/sys/kernel/keys/root_maxbytes": "25000000",
}

// Machine is the first process of a machine. Its exported methods are called over the socket in the machine's folder.
// It reaps every process of the machine.
type Machine struct {
	mu       sync.Mutex
	programs map[string]int                    // process of each running program
	waiting  map[int]chan<- syscall.WaitStatus // who is told of a process's end
}

func bootMachine(name, folder string) error {
	if err := os.Setenv("PATH", machinePath); err != nil { // where programs are looked for
		return err
	}
	if err := furnish(name, folder); err != nil {
		return err
	}
	m := &Machine{programs: map[string]int{}, waiting: map[int]chan<- syscall.WaitStatus{}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go m.reap(ended)
	file := os.NewFile(3, "socket")
	listener, err := net.FileListener(file)
	if err != nil {
		return err
	}
	_ = file.Close()
	server := rpc.NewServer()
	if err := server.RegisterName("Machine", m); err != nil {
		return err
	}
	server.Accept(listener)
	return nil
}

// furnish gives this process, which is alone in new namespaces, the file system of a machine: its own /run and /tmp in
// memory, and its own /var in the folder. Everything else is as outside, but read-only, so that nothing that a pod
// writes into a hostPath reaches this machine.
func furnish(name, folder string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return err
	}
	// The two folders may lie under what is mounted over.
	sources := map[string]string{machineDir: folder, programsDir: filepath.Join(Root(), "bin")}
	fds := map[string]int{}
	for target, source := range sources {
		fd, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: source, Err: err}
		}
		fds[target] = fd
	}
	var errs []error
	mount := func(source, target, kind string, flags uintptr, data string) {
		if err := unix.Mount(source, target, kind, flags, data); err != nil {
			errs = append(errs, fmt.Errorf("mount %s on %s: %w", source, target, err))
		}
	}
	// No mount shows outside. Inside, volumes of pods are propagated, as on a system with systemd.
	mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
	writable := func(path string, recursive uint, yes bool) {
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if yes {
			attr = &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
		}
		if err := unix.MountSetattr(unix.AT_FDCWD, path, recursive, attr); err != nil {
			errs = append(errs, fmt.Errorf("make %s writable: %t: %w", path, yes, err))
		}
	}
	writable("/", unix.AT_RECURSIVE, false)
	for _, kernels := range []string{"/sys", "/dev"} { // cgroups and devices
		writable(kernels, unix.AT_RECURSIVE, true)
	}
	mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	mount("tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	for target, fd := range fds {
		errs = append(errs, os.Mkdir(target, 0o755))
		mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND, "")
		writable(target, 0, target == machineDir)
		_ = unix.Close(fd)
	}
	for _, dir := range []string{"lib", "log", "tmp"} {
		errs = append(errs, os.MkdirAll(filepath.Join(machineDir, "var", dir), 0o755))
	}
	if err := os.Symlink("/run", filepath.Join(machineDir, "var/run")); err != nil && !errors.Is(err, os.ErrExist) {
		errs = append(errs, err)
	}
	mount(filepath.Join(machineDir, "var"), "/var", "", unix.MS_BIND, "")
	mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	errs = append(errs, os.Mkdir("/run/tunables", 0o755))
	for path, value := range tunables {
		if _, err := os.Stat(path); err != nil {
			continue // not every kernel has keys
		}
		file := filepath.Join("/run/tunables", filepath.Base(path))
		errs = append(errs, os.WriteFile(file, []byte(value+"\n"), 0o644))
		mount(file, path, "", unix.MS_BIND, "")
	}
	return errors.Join(errs...)
}

func (m *Machine) reap(ended <-chan os.Signal) {
	for range ended {
		m.mu.Lock()
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if pid <= 0 {
				break
			}
			if waiting := m.waiting[pid]; waiting != nil {
				waiting <- status
				delete(m.waiting, pid)
			}
		}
		m.mu.Unlock()
	}
}

func (p Program) command() *exec.Cmd {
	cmd := exec.Command(p.Args[0], p.Args[1:]...)
	cmd.Env = []string{"PATH=" + machinePath, "HOME=/root"} // nothing of the test's own
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// launch starts a command and reports its end on the channel. os/exec must not wait for it, since reap does.
func (m *Machine) launch(cmd *exec.Cmd) (int, <-chan syscall.WaitStatus, error) {
	ended := make(chan syscall.WaitStatus, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	pid := cmd.Process.Pid
	m.waiting[pid] = ended
	_ = cmd.Process.Release()
	return pid, ended, nil
}

// Start starts a program that goes on by itself, with its output in the log folder.
func (m *Machine) Start(p Program, _ *struct{}) error {
	m.mu.Lock()
	_, running := m.programs[p.Name]
	m.mu.Unlock()
	if running {
		return fmt.Errorf("%s is running", p.Name)
	}
	log, err := os.OpenFile(filepath.Join(machineDir, "log", p.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = log, log
	pid, ended, err := m.launch(cmd)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.programs[p.Name] = pid
	m.mu.Unlock()
	go func() {
		<-ended
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.programs, p.Name)
	}()
	return nil
}

// Stop ends a program: by SIGTERM, and by SIGKILL if that takes longer than the patience.
func (m *Machine) Stop(order StopOrder, _ *struct{}) error {
	signalled, deadline := unix.SIGTERM, time.Now().Add(order.Patience)
	for first := true; ; first = false {
		m.mu.Lock()
		pid, running := m.programs[order.Name]
		if running && (first || signalled == unix.SIGTERM && time.Now().After(deadline)) {
			if !first || order.Patience <= 0 {
				signalled = unix.SIGKILL
			}
			_ = unix.Kill(pid, signalled)
		}
		m.mu.Unlock()
		switch {
		case !running && first:
			return fmt.Errorf("%s is not running", order.Name)
		case !running:
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Running answers whether a program runs.
func (m *Machine) Running(name string, running *bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, *running = m.programs[name]
	return nil
}

// Run runs a program to its end and answers with its output. The error of a failure has the output too.
func (m *Machine) Run(p Program, output *string) error {
	out, err := os.CreateTemp("/run", "output")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = out, out
	_, ended, err := m.launch(cmd)
	if err != nil {
		return err
	}
	status := <-ended
	text, err := os.ReadFile(out.Name())
	if err != nil {
		return err
	}
	*output = string(text)
	if status.ExitStatus() != 0 {
		return fmt.Errorf("%s: exit status %d, signal %d: %s", p.Args, status.ExitStatus(), status.Signal(), bytes.TrimSpace(text))
	}
	return nil
}
