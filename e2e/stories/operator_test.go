package stories

import (
	"sync"
	"testing"
)

var installed sync.Once

// install is how a user installs the operator; the first story to need it does.
func install(t *testing.T) {
	t.Helper()
	installed.Do(func() {
		world.MustHelm(t, helmArgs("install", thisVersion)...)
	})
}

// helmArgs is the command that installs or upgrades to a version.
func helmArgs(verb, version string, more ...string) []string {
	return append([]string{
		verb, "sidecart", world.chart, "--namespace", system, "--create-namespace", "--wait", "--timeout", "2m",
		"--set", "image.tag=" + version, "--set", "sidecarImage.tag=" + version,
	}, more...)
}
