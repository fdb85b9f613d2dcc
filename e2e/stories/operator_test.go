package stories

import (
	"strings"
	"sync"
	"testing"
)

var installed sync.Once

// install installs the operator as a user does; the first story that needs it calls this. The namespace admits only
// pods that are restricted and have limits.
func install(t *testing.T) {
	t.Helper()
	installed.Do(func() {
		world.MustApply(t, operatorNamespace)
		world.MustHelm(t, helmArgs("install", thisVersion)...)
	})
}

// restricted are the labels of a namespace that enforces the restricted Pod Security Standard.
var restricted = []string{"pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/enforce-version=latest"}

// operatorNamespace has room for two replicas, one more while they change over, two that end, and the pod of helm test.
var operatorNamespace = `
apiVersion: v1
kind: Namespace
metadata:
  name: ` + system + `
  labels: {` + strings.ReplaceAll(strings.Join(restricted, ", "), "=", ": ") + `}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: room, namespace: ` + system + `}
spec:
  hard: {pods: "6", requests.cpu: 400m, requests.memory: 512Mi, limits.cpu: "6", limits.memory: 3Gi}
`

// helmArgs is the command that installs or upgrades to a version.
func helmArgs(verb, version string, more ...string) []string {
	return append([]string{
		verb, "sidecart", world.chart, "--namespace", system, "--create-namespace", "--wait", "--timeout", "2m",
		"--set", "image.tag=" + version, "--set", "sidecarImage.tag=" + version,
	}, more...)
}
