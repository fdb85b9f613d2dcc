//go:build compat

package processes

import (
	"fmt"
	"slices"
	"testing"
)

// releasedBackends are the shared backends that the release before this one has.
var releasedBackends = []string{"redis", "sqlite"}

// TestMixedVersionsLoseNothing is [TestNothingLost] while a rollout is under way: every second sidecar is the release
// before this one. One is killed and comes back as the other release, so that each reads what the other wrote.
func TestMixedVersionsLoseNothing(t *testing.T) {
	for _, backend := range sharedBackends {
		if !slices.Contains(releasedBackends, backend.name) {
			continue
		}
		for name, first := range map[string]int{"to the release before": 0, "to this release": 1} {
			for _, carts := range []int{1, 50} {
				t.Run(fmt.Sprintf("%s/%s/carts=%d", backend.name, name, carts), func(t *testing.T) {
					nothingLost(t, backend.args(t), "switched", carts, 5_000, func(n int) variant {
						return variant{before: (n+first)%2 == 1}
					})
				})
			}
		}
	}
}

// TestMixedVersionsLinearizable is [TestLinearizable] with both releases, each sidecar now being one and now the other.
func TestMixedVersionsLinearizable(t *testing.T) {
	for name, f := range map[string]fleet{"redis": {mixed: true}, "sqlite": {mixed: true, sqlite: true}} {
		t.Run(name, func(t *testing.T) {
			linearizables(t, f, *linearRuns, slices.Concat(allFaults, []fault{otherVersion, otherVersion}))
		})
	}
}
