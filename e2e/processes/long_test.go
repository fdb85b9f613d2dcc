//go:build long

package processes

import (
	"maps"
	"slices"
	"testing"

	"github.com/sidecart/sidecart/internal/testserver"
)

// defaultRuns is how many histories each test makes, and defaultOps how many operations each of them has; without the
// build tag long there are fewer.
const (
	defaultRuns = 10
	defaultOps  = 10_000
)

// adds is how many adds TestNothingLost makes; without the build tag long there are fewer.
const adds = 5_000

// failovers are every strike on every form, with and without replicas that confirm.
var failovers = func() (all []failover) {
	for _, form := range []string{"Sentinel", "Cluster"} {
		for _, strike := range []string{"SIGKILL", "SIGSTOP", "replication breaks, then SIGKILL"} {
			for _, minReplicas := range []int{0, 1} {
				all = append(all, failover{form, strike, minReplicas})
			}
		}
	}
	return all
}()

// movedPairs are between which backends carts move: all.
var movedPairs = func() (all [][2]string) {
	names := slices.Sorted(maps.Keys(movable))
	for _, from := range names {
		for _, to := range names {
			if from != to {
				all = append(all, [2]string{from, to})
			}
		}
	}
	return all
}()

// movedSlots is how many slots of a Cluster move: all but one of a node. A master without slots would become a replica
// of the one that has them, and have all carts again.
const movedSlots = 5460

// lockings are how a backend is locked while clients add.
func lockings(string) []string { return []string{"enabled", "disabled", "switched"} }

// crowds are how many carts clients add to.
func crowds(string, string) []int { return []int{1, 50} }

// caught are the mutations that must not pass: all.
func caught() []string { return slices.Sorted(maps.Keys(mutations)) }

// bounded are the backends with which a sidecar's memory is measured.
func bounded() []string { return []string{"redis", "sqlite"} }

// TestLinearizableFolder is the same on a folder of files.
func TestLinearizableFolder(t *testing.T) {
	linearizables(t, fleet{folder: true}, max(1, *linearRuns/2), allFaults)
}

// TestLinearizableMariaDB is the same on MariaDB.
func TestLinearizableMariaDB(t *testing.T) {
	linearizables(t, fleet{database: testserver.StartMariaDB}, max(1, *linearRuns/2), allFaults)
}
