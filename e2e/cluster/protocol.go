package cluster

import (
	"path/filepath"
	"time"
)

// Program is what to run in a machine.
type Program struct {
	// Name is the name of its log file, and the name by which to stop it.
	Name string
	// Args are the program's name or path, and its arguments.
	Args []string
}

// StopOrder says which program to stop and how long to wait for it; no patience kills it.
type StopOrder struct {
	Name     string
	Patience time.Duration
}

// Where a machine sees its folder and the programs, and where it looks for programs.
const (
	machineDir  = "/run/machine"
	programsDir = "/run/programs"
	machinePath = programsDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// cgroupName is the name of a machine's cgroup in every hierarchy: two kubelets on one kernel must not share one, since
// each removes the pods that it does not know.
func cgroupName(dir, machine string) string { return filepath.Base(dir) + "-" + machine }
