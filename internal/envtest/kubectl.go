package envtest

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Kubectl runs kubectl as an administrator and returns what it prints. The test fails if kubectl does.
func (c *Cluster) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	stdout, stderr, err := c.TryKubectl(t, "", args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout
}

// TryKubectl runs kubectl with stdin. The error is that of the process, and stderr says why.
func (c *Cluster) TryKubectl(t testing.TB, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.kubectl, args...)
	// HOME is where kubectl caches what the server has; another server's must not be found there.
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "HOME="+c.dir)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// Apply applies a manifest and returns what the server said: the error is nil if it was accepted.
func (c *Cluster) Apply(t testing.TB, namespace, manifest string) (message string, err error) {
	t.Helper()
	stdout, stderr, err := c.TryKubectl(t, manifest, "apply", "--namespace", namespace, "--filename", "-")
	return stdout + stderr, err
}
