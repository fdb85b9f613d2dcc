package render

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// In a pod that was injected before a change of the resource, exactly the changed settings are named as outdated.
func TestOutdated(t *testing.T) {
	base := read[v1alpha1.CartStorage](t, "{metadata: {name: shop}, spec: {backend: {type: Redis, redis: {addresses: [\"redis:6379\"]}}, sidecar: {image: \"sidecar:1\"}}}")
	o := PodOptions{Image: "default:1"}
	pod, err := Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}}}, base, o)
	if err != nil {
		t.Fatal(err)
	}
	// Changes that other webhooks and limit ranges make to the container do not matter.
	pod.Spec.InitContainers[0].Resources.Limits[corev1.ResourceCPU] = resource.MustParse("1")
	pod.Spec.InitContainers[0].Image = "mirror.example.com/sidecar:1"
	for _, r := range []struct {
		name   string
		change func(*v1alpha1.CartStorage)
		want   []string
	}{
		{"nothing", func(*v1alpha1.CartStorage) {}, nil},
		{"what sidecars are told", func(cs *v1alpha1.CartStorage) { cs.Spec.KeyPrefix, cs.Spec.Limits.MaxItems = "other", 7 }, nil},
		{"image", func(cs *v1alpha1.CartStorage) { cs.Spec.Sidecar.Image = "sidecar:2" }, []string{"image"}},
		{"the operator's image", func(cs *v1alpha1.CartStorage) { cs.Spec.Sidecar.Image = "" }, []string{"image"}},
		{"image of the longest name", func(cs *v1alpha1.CartStorage) { cs.Spec.Sidecar.Image = strings.Repeat("x", 512) }, []string{"image"}},
		{"pull policy", func(cs *v1alpha1.CartStorage) { cs.Spec.Sidecar.ImagePullPolicy = corev1.PullAlways }, []string{"imagePullPolicy"}},
		{"CPU", func(cs *v1alpha1.CartStorage) {
			cs.Spec.Sidecar.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		}, []string{"resources"}},
		{"memory", func(cs *v1alpha1.CartStorage) {
			cs.Spec.Sidecar.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("160Mi")}
		}, []string{"resources"}},
		{"ports", func(cs *v1alpha1.CartStorage) {
			cs.Spec.Sidecar.Ports = v1alpha1.Ports{GRPC: 8420, HTTP: 8421, Admin: 7422}
		}, []string{"ports"}},
		{"secrets", func(cs *v1alpha1.CartStorage) {
			cs.Spec.Backend.Redis.CredentialsSecretRef = &v1alpha1.RedisCredentials{Name: "redis-auth"}
		}, []string{"secrets"}},
		{"order", func(cs *v1alpha1.CartStorage) { cs.Spec.Injection.Order = v1alpha1.InjectLast }, []string{"order"}},
		{"order as by default", func(cs *v1alpha1.CartStorage) { cs.Spec.Injection.Order = v1alpha1.InjectFirst }, nil},
		{"readiness", func(cs *v1alpha1.CartStorage) { cs.Spec.Sidecar.Readiness = v1alpha1.ReadyBackend }, []string{"readiness"}},
		{"volumes", func(cs *v1alpha1.CartStorage) { cs.Spec.Backend = v1alpha1.Backend{Type: v1alpha1.BackendFile} }, []string{"container", "volumes"}},
	} {
		cs := base.DeepCopy()
		r.change(cs)
		if diff := cmp.Diff(r.want, WantedOf(cs, o).Outdated(pod)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.name, diff)
		}
		// The operator's cache cuts annotations, and a pod that is injected now is not outdated.
		now, err := Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}}}, cs, o)
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		if n := len(now.Annotations[v1alpha1.InjectedAsAnnotation]); n > 600 {
			t.Errorf("%s: the annotation has %d bytes", r.name, n)
		}
		if names := WantedOf(cs, o).Outdated(now); names != nil {
			t.Errorf("%s: a new pod is outdated: %v", r.name, names)
		}
	}
	for _, unknown := range []string{"", "nonsense", "[]", "null"} {
		pod.Annotations[v1alpha1.InjectedAsAnnotation] = unknown
		if diff := cmp.Diff([]string{OlderOperator}, WantedOf(base, o).Outdated(pod)); diff != "" {
			t.Errorf("annotation %q (-want +got):\n%s", unknown, diff)
		}
	}
}
