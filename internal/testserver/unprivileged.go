//go:build !linux

package testserver

import (
	"os/exec"
	"syscall"
)

// isolate changes nothing: only on Linux do tests run as root.
func (p *process) isolate(*exec.Cmd) {}

// giveAway changes nothing.
func (p *process) giveAway(string) error { return nil }

// begin starts a program.
func (p *process) begin(cmd *exec.Cmd) error { return cmd.Start() }

// signalChildren does nothing: a server of many processes is frozen on Linux only.
func (p *process) signalChildren(syscall.Signal) {}
