package envtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// Programs that are not there must fail a test run with the command that makes them.
func TestMissingBinaries(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "etcd"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	_, err := binaries("/project")
	if err == nil {
		t.Fatal("no error")
	}
	want := "no kube-apiserver, kubectl in " + dir + ": build them with\n\t/project/e2e/cluster/build.sh envtest"
	if err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
}

func TestBinariesDefault(t *testing.T) {
	root := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", "")
	t.Setenv("K8S_ROOT", root)
	if _, err := binaries("/project"); err == nil || !strings.Contains(err.Error(), filepath.Join(root, "bin")) {
		t.Errorf("error is %v, want one that names %s/bin", err, root)
	}
}

func TestCluster(t *testing.T) {
	c := Start(t)
	if again := Start(t); again != c {
		t.Error("a second Start started a second cluster")
	}
	a, b := c.Namespace(t), c.Namespace(t)
	if a == b {
		t.Errorf("both namespaces are %s", a)
	}
	if out := c.Kubectl(t, "get", "namespaces", "--output", "name"); !strings.Contains(out, "namespace/"+a+"\n") {
		t.Errorf("kubectl sees no namespace %s in\n%s", a, out)
	}
	if out := c.Kubectl(t, "api-resources", "--categories", "sidecart", "--no-headers"); !strings.Contains(out, "cst") {
		t.Errorf("the CRD is not installed:\n%s", out)
	}
	if _, stderr, err := c.TryKubectl(t, "", "get", "nonsense"); err == nil || !strings.Contains(stderr, "nonsense") {
		t.Errorf("kubectl get nonsense: error %v, stderr %q", err, stderr)
	}
}
