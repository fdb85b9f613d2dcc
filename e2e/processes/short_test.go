//go:build !long

package processes

// defaultRuns is how many histories each test makes, and defaultOps how many operations each of them has; with the
// build tag long there are more.
const (
	defaultRuns = 1
	defaultOps  = 5_000
)

// adds is how many adds TestNothingLost makes; with the build tag long there are more.
const adds = 2_000

// failovers are one of each form; with the build tag long there are all.
var failovers = []failover{
	{"Sentinel", "SIGKILL", 1},
	{"Cluster", "SIGKILL", 1},
}

// movedPairs are between which backends carts move: each is left once and reached once. With the build tag long, all
// pairs are tried.
var movedPairs = [][2]string{
	{"Redis", "PostgreSQL"}, {"PostgreSQL", "DynamoDB"}, {"DynamoDB", "MySQL"}, {"MySQL", "SQLite"}, {"SQLite", "Redis"},
}

// movedSlots is how many slots of a Cluster move.
const movedSlots = 200

// lockings are how a backend is locked while clients add; with the build tag long, all are tried on each.
func lockings(backend string) []string {
	if backend == "redis" {
		return []string{"enabled", "disabled", "switched"}
	}
	return []string{"switched"}
}

// crowds are how many carts clients add to: one is where they meet. With the build tag long, all are tried.
func crowds(backend, locking string) []int {
	if backend == "redis" && locking == "switched" {
		return []int{1, 50}
	}
	return []int{1}
}

// caught are the mutations that must not pass: one of what a commit checks, one of keys and one of checkouts. With the
// build tag long, there are all.
func caught() []string {
	return []string{"the version is not checked", "an idempotency key is ignored", "a checkout is settled twice"}
}

// bounded are the backends with which a sidecar's memory is measured. With the build tag long, there are more.
func bounded() []string { return []string{"redis"} }
