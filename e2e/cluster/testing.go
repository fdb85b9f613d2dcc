package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// startTimeout is generous: a start takes 15 s on two idle cores.
const startTimeout = 2 * time.Minute

// errElsewhere is why a cluster cannot run on this machine at all.
var errElsewhere = errors.New("a cluster needs Linux and root: run `sudo --preserve-env=HOME,PATH make e2e`")

// elsewhere says whether a test is to be skipped because of that error. With SIDECART_E2E=required, as in CI, no test
// is.
func elsewhere(err error) bool {
	return errors.Is(err, errElsewhere) && os.Getenv("SIDECART_E2E") != "required"
}

// Possible says what is missing for a cluster, and what to do about it.
func Possible() error {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return errElsewhere
	}
	for _, tool := range []string{"ip", "nft", "iptables", "nsenter", "mount", "sysctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("a cluster needs the program %s: run `make setup`", tool)
		}
	}
	for _, program := range []string{"etcd", "kube-apiserver", "kubelet", "containerd", "runc", "cni/bridge", "kubectl", "helm", "mkimage"} {
		path := filepath.Join(Root(), "bin", program)
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("a cluster needs %s: run `e2e/cluster/build.sh`", path)
		}
	}
	return nil
}

// Start starts a cluster for a test and stops it at its end. If the test failed, it writes the output of Diagnose to
// cluster.txt in the test's artifact folder, and the most important part to the test's log. On machines that cannot run
// a cluster it skips, unless SIDECART_E2E=required.
func Start(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	if err := Possible(); elsewhere(err) {
		tb.Skip(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	c, err := New(ctx, options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			c.report(tb)
		}
		if err := c.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

func (c *Cluster) report(tb testing.TB) {
	var b bytes.Buffer
	c.Diagnose(context.Background(), &b) // the test's own has ended
	path := filepath.Join(tb.ArtifactDir(), "cluster.txt")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		tb.Error(err)
	}
	const most = 64 << 10 // nodes, pods and events come first
	text := b.Bytes()
	if len(text) > most {
		text = append(text[:most:most], fmt.Sprintf("\n… %d bytes more; run with -artifacts to keep all", b.Len()-most)...)
	}
	tb.Logf("the cluster at the end of the test:\n%s", text)
}

// MustKubectl is Kubectl, and fails the test at once if that fails.
func (c *Cluster) MustKubectl(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := c.Kubectl(tb.Context(), args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// MustHelm is Helm, and fails the test at once if that fails.
func (c *Cluster) MustHelm(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := c.Helm(tb.Context(), args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// MustApply is Apply, and fails the test at once if that fails.
func (c *Cluster) MustApply(tb testing.TB, manifest string) {
	tb.Helper()
	if err := c.Apply(tb.Context(), manifest); err != nil {
		tb.Fatal(err)
	}
}

// Eventually polls until f succeeds, and fails the test with its last error if that takes longer than within.
func Eventually(tb testing.TB, within time.Duration, f func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), within)
	defer cancel()
	if err := Poll(ctx, f, nil); err != nil {
		tb.Fatal(err)
	}
}
