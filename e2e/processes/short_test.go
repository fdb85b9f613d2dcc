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

// lockings are how a backend is locked while clients add; with the build tag long, all are tried on each.
func lockings(backend string) []string {
	if backend == "redis" || backend == "sqlite" {
		return []string{"enabled", "disabled", "switched"}
	}
	return []string{"switched"}
}
