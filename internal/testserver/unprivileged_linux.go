package testserver

import (
	"os"
	"os/exec"
	"runtime"
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
