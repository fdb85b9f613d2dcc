package cluster

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a pod writes into a hostPath is on its node, and never on the machine that runs the cluster.
func TestHostPath(t *testing.T) {
	c := Start(t, Options{Nodes: 1})
	archive := filepath.Join(t.TempDir(), "redis.tar")
	if err := Redis("redis:e2e").Build(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	if err := c.Load(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	name := "sidecart-" + strings.ToLower(rand.Text())
	pod := func(name, path string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  containers:
  - name: redis
    image: redis:e2e
    imagePullPolicy: Never
    securityContext: {runAsUser: 0}
    command: [redis-server, --dir, /data, --appendonly, "yes"]
    volumeMounts: [{name: data, mountPath: /data}]
    readinessProbe: {tcpSocket: {port: 6379}, periodSeconds: 1}
  volumes:
  - name: data
    hostPath: {path: %s, type: DirectoryOrCreate}
---
`, name, path)
	}
	for _, dir := range []string{"/tmp", "/var/lib"} {
		c.MustApply(t, pod("in"+strings.ReplaceAll(dir, "/", "-"), filepath.Join(dir, name)))
		c.MustKubectl(t, "wait", "--for=condition=Ready", "pod/in"+strings.ReplaceAll(dir, "/", "-"), "--timeout=90s")
		if _, err := os.Stat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s is on this machine: %v", filepath.Join(dir, name), err)
		}
	}
	c.MustApply(t, pod("in-root", filepath.Join("/", name)))
	within := time.Now().Add(90 * time.Second)
	for events := ""; !strings.Contains(events, "read-only file system"); <-time.After(500 * time.Millisecond) {
		events = c.MustKubectl(t, "get", "events", "--field-selector=involvedObject.name=in-root", "--output=jsonpath={.items[*].message}")
		if time.Now().After(within) {
			t.Fatalf("the root of the node can be written: %s", events)
		}
	}
	if _, err := os.Stat(filepath.Join("/", name)); !os.IsNotExist(err) {
		t.Errorf("/%s is on this machine: %v", name, err)
	}
}
