package charts

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The roles, the policies, the CRD and the webhook are those of config/, except for the labels of the chart. So Helm
// installs what the operator's tests run with.
func TestShared(t *testing.T) {
	rendered := map[string]*unstructured.Unstructured{}
	for _, o := range objects(t, template(t, "--set", "rollouts.enabled=true")) {
		rendered[name(o)] = o
	}
	for _, pattern := range []string{"crd/bases/*.yaml", "rbac/*.yaml", "policy/*.yaml", "operator/webhook.yaml"} {
		files, err := filepath.Glob(filepath.Join("../config", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%d files are %s: %v", len(files), pattern, err)
		}
		for _, file := range files {
			for _, want := range objects(t, read(t, file)) {
				got := rendered[name(want)]
				if got == nil {
					t.Errorf("the chart has no %s", name(want))
					continue
				}
				if diff := cmp.Diff(want.Object, plain(t, got).Object); diff != "" {
					t.Errorf("%s (-config +chart):\n%s", name(want), diff)
				}
				delete(rendered, name(want))
			}
		}
	}
	for _, o := range rendered {
		if strings.HasSuffix(o.GetKind(), "Role") || strings.HasSuffix(o.GetKind(), "RoleBinding") || strings.HasPrefix(o.GetKind(), "ValidatingAdmission") {
			t.Errorf("the chart has %s and config/ has not", name(o))
		}
	}
}

// plain is an object of the chart without the chart's own labels and the like.
func plain(t *testing.T, o *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	o = o.DeepCopy()
	own := o.GetLabels()
	for _, label := range []string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version",
		"app.kubernetes.io/part-of", "app.kubernetes.io/managed-by", "helm.sh/chart"} {
		if own[label] == "" {
			t.Errorf("%s has no label %s", name(o), label)
		}
		delete(own, label)
	}
	o.SetLabels(own)
	if len(own) == 0 {
		o.SetLabels(nil)
	}
	if o.GetKind() == "CustomResourceDefinition" {
		annotations := o.GetAnnotations()
		if annotations["helm.sh/resource-policy"] != "keep" {
			t.Errorf("%s would be removed with the release, and all CartStorages with it", name(o))
		}
		delete(annotations, "helm.sh/resource-policy")
		o.SetAnnotations(annotations)
	}
	return o
}

// Roles follow the namespace of the release.
func TestNamespace(t *testing.T) {
	out := template(t, "--namespace", "shop-infrastructure")
	if strings.Contains(out, namespace) {
		t.Errorf("%s is named in a release of another namespace", namespace)
	}
	for _, o := range objects(t, out) {
		cluster := slices.Contains([]string{"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
			"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}, o.GetKind())
		if want := map[bool]string{true: "", false: "shop-infrastructure"}[cluster]; o.GetNamespace() != want {
			t.Errorf("%s is in namespace %q, want %q", name(o), o.GetNamespace(), want)
		}
	}
}
