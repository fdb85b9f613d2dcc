//go:build !long

package processes

// defaultRuns is how many histories each test makes; with the build tag long there are more.
const defaultRuns = 2

// failovers are one of each form; with the build tag long there are all.
var failovers = []failover{
	{"Sentinel", "SIGKILL", 1},
	{"Cluster", "SIGKILL", 1},
}

// movedSlots is how many slots of a Cluster move.
const movedSlots = 200
