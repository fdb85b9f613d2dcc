package charts

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/envtest"
	"github.com/sidecart/sidecart/internal/render"
)

// cluster is a real API server that knows the resources of the Prometheus operator and of cert-manager too, by the
// definitions that these projects publish.
func cluster(t *testing.T) *envtest.Cluster {
	t.Helper()
	c := envtest.Start(t)
	foreign.Do(func() {
		for module, files := range map[string][]string{
			"github.com/cert-manager/cert-manager": {
				"deploy/crds/cert-manager.io_certificates.yaml",
				"deploy/crds/cert-manager.io_issuers.yaml",
			},
			"github.com/prometheus-operator/prometheus-operator": {
				"example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
				"example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
				"example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
			},
		} {
			dir := moduleDir(t, module)
			for _, file := range files {
				c.Kubectl(t, "apply", "--server-side", "--filename", filepath.Join(dir, file))
			}
		}
		c.Kubectl(t, "wait", "--for", "condition=Established", "--all", "crd")
	})
	return c
}

var foreign sync.Once

// moduleDir is where the files of a module of tools/promql are.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir = "../tools/promql"
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go mod download %s: %v\n%s", module, err, out)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m.Dir
}

// A real API server, which also refuses fields that it does not know, accepts every object that the chart can render.
func TestServerAccepts(t *testing.T) {
	c := cluster(t)
	ns := restricted(t, c)
	for _, name := range []string{"shop", "closed"} { // which get a network policy
		if err := c.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, values := range cases(t) {
		t.Run(strings.TrimSuffix(filepath.Base(values), ".values.yaml"), func(t *testing.T) {
			manifest := template(t, "--namespace", ns, "--values", values)
			_, message, err := c.TryKubectl(t, manifest, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename", "-")
			if err != nil || strings.Contains(message, "Warning") {
				t.Errorf("%v\n%s", err, message)
			}
			admit(t, c, ns, manifest)
		})
	}
}

// restricted is a namespace that admits only pods of the restricted Pod Security Standard, with requests and limits of
// all that a quota can count.
func restricted(t *testing.T, c *envtest.Cluster) string {
	t.Helper()
	ns := c.Namespace(t)
	c.Kubectl(t, "label", "namespace", ns, "pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted")
	hard := corev1.ResourceList{}
	for _, r := range []corev1.ResourceName{corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory} {
		hard[r] = resource.MustParse("64Gi")
	}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "all"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	if err := c.Client.Create(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	// No controller here counts the usage.
	quota.Status.Hard, quota.Status.Used = hard, corev1.ResourceList{}
	for r := range hard {
		quota.Status.Used[r] = resource.MustParse("0")
	}
	if err := c.Client.Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	// It refuses what it should.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "bad"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "b"}}}}
	if err := c.Client.Create(t.Context(), pod, client.DryRunAll); err == nil {
		t.Fatal("the namespace admits every pod")
	}
	return ns
}

// admit creates the pods of a manifest in a dry run: the operator's, and that of helm test with the sidecar that the
// operator gives it.
func admit(t *testing.T, c *envtest.Cluster, ns, manifest string) {
	t.Helper()
	operator, check, cs := &appsv1.Deployment{}, &corev1.Pod{}, &v1alpha1.CartStorage{}
	for _, o := range objects(t, manifest) {
		if to, ok := map[string]any{"Deployment": operator, "Pod": check, "CartStorage": cs}[o.GetKind()]; ok {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	check, err := render.Pod(check, cs, render.PodOptions{Image: "sidecar:1"})
	if err != nil || len(check.Spec.InitContainers) != 1 {
		t.Fatalf("the pod of helm test is given no sidecar: %v", err)
	}
	pod := &corev1.Pod{ObjectMeta: *operator.Spec.Template.ObjectMeta.DeepCopy(), Spec: operator.Spec.Template.Spec}
	pod.Namespace, pod.Name = ns, "operator"
	for _, p := range []*corev1.Pod{pod, check} {
		if err := c.Client.Create(t.Context(), p, client.DryRunAll); err != nil {
			t.Errorf("pod %s is refused: %v", p.Name, err)
		}
	}
}

// kubeconfig is a file by which Helm reaches the cluster.
func kubeconfig(t *testing.T, c *envtest.Cluster) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(c.Kubectl(t, "config", "view", "--raw", "--flatten")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
