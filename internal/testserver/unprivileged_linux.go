package testserver

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// nobody is the user without rights of every Linux.
const nobody = 65534

// isolate lets a program run as nobody, where the test runs as root and the program must not, and end with the test.
func (p *process) isolate(cmd *exec.Cmd) {
	if !p.unprivileged {
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "TMPDIR="+p.dir) // the test's own is not for others
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
}

// giveAway gives a folder to nobody, where the test runs as root.
func (p *process) giveAway(dir string) error {
	if os.Getuid() != 0 {
		return nil
	}
	return os.Chown(dir, nobody, nobody)
}

// begin starts a program. Linux takes the thread that starts it for its parent, and ends it with that thread: so it is
// one that lasts.
func (p *process) begin(cmd *exec.Cmd) error {
	if !p.unprivileged {
		return cmd.Start()
	}
	started := make(chan error)
	starts <- func() { started <- cmd.Start() }
	return <-started
}

var starts = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
}

// signalChildren signals the processes that a server has started, of which each may serve a client.
func (p *process) signalChildren(sig syscall.Signal) {
	if !p.unprivileged {
		return
	}
	pid := strconv.Itoa(p.cmd.Process.Pid)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		raw, _ := os.ReadFile(file) // one that has ended is gone
		// pid (name) state ppid …, where the name may hold anything.
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		if len(fields) > 1 && fields[1] == pid {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				_ = syscall.Kill(child, sig)
			}
		}
	}
}
