package render

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

func read[T any](t *testing.T, text string) *T {
	t.Helper()
	out := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), out); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return out
}

func TestPodRefusals(t *testing.T) {
	shop := read[v1alpha1.CartStorage](t, "{metadata: {name: shop}, spec: {backend: {type: Memory}}}")
	for _, r := range []struct {
		name, pod string
		options   PodOptions
		want      []string
	}{
		{"name of a container", "{containers: [{name: sidecart}]}", PodOptions{Image: "i"},
			[]string{"a container of the pod is called sidecart, as the sidecar would be: give it another name"}},
		{"name of an init container", "{initContainers: [{name: sidecart}], containers: [{name: web}]}", PodOptions{Image: "i"},
			[]string{"a container of the pod is called sidecart, as the sidecar would be: give it another name"}},
		{"name of a volume", "{containers: [{name: web}], volumes: [{name: sidecart-config, emptyDir: {}}]}", PodOptions{Image: "i"},
			[]string{"a volume of the pod is called sidecart-config, as one of the sidecar's would be: give it another name"}},
		{"port", "{containers: [{name: web, ports: [{containerPort: 7421}]}]}", PodOptions{Image: "i"},
			[]string{"container web has port 7421, where the sidecar would listen: set spec.sidecar.ports.http of CartStorage shop to another"}},
		{"image", "{containers: [{name: web}]}", PodOptions{},
			[]string{"no image for the sidecar: set spec.sidecar.image of CartStorage shop, or the operator's"}},
		{"host network", "{hostNetwork: true, containers: [{name: web}]}", PodOptions{Image: "i"},
			[]string{"the pod is on the network of its node, where everybody could reach its carts: remove hostNetwork, or the label sidecart.dev/inject"}},
		{"windows", "{os: {name: windows}, containers: [{name: web}]}", PodOptions{Image: "i"},
			[]string{"the pod runs on Windows and the sidecar on Linux: remove the label sidecart.dev/inject"}},
		{"all at once", "{containers: [{name: sidecart, ports: [{containerPort: 7420}, {containerPort: 7422, protocol: TCP}]}]}", PodOptions{Image: "i"}, []string{
			"a container of the pod is called sidecart, as the sidecar would be: give it another name",
			"container sidecart has port 7420, where the sidecar would listen: set spec.sidecar.ports.grpc of CartStorage shop to another",
			"container sidecart has port 7422, where the sidecar would listen: set spec.sidecar.ports.admin of CartStorage shop to another"}},
	} {
		t.Run(r.name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: *read[corev1.PodSpec](t, r.pod)}
			got, err := Pod(pod, shop, r.options)
			if err == nil {
				t.Fatalf("accepted: %v", got)
			}
			if diff := cmp.Diff(r.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What came after the first invocation: a container of another webhook, which is
// given the environment, and a change to ours, which stays.
func TestPodAgain(t *testing.T) {
	shop := read[v1alpha1.CartStorage](t, "{metadata: {name: shop}, spec: {backend: {type: Memory}}}")
	pod, err := Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}}}, shop, PodOptions{Image: "one"})
	if err != nil {
		t.Fatal(err)
	}
	pod.Spec.InitContainers[0].LivenessProbe.HTTPGet.Port = intstr.FromInt32(15020)
	pod.Spec.InitContainers = slices.Insert(pod.Spec.InitContainers, 0, corev1.Container{Name: "mesh", Ports: []corev1.ContainerPort{{ContainerPort: 7421}}})
	want := pod.DeepCopy()
	want.Spec.InitContainers[0].Env = want.Spec.Containers[0].Env

	got, err := Pod(pod, shop, PodOptions{Image: "two"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An annotation that was copied from another pod is no sidecar.
func TestPodWithCopiedAnnotation(t *testing.T) {
	shop := read[v1alpha1.CartStorage](t, "{metadata: {name: shop}, spec: {backend: {type: Memory}}}")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.InjectedAnnotation: "other", v1alpha1.GenerationAnnotation: "3"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}},
	}
	got, err := Pod(pod, shop, PodOptions{Image: "one", Generation: 9})
	if err != nil {
		t.Fatal(err)
	}
	if !Injected(got) || got.Annotations[v1alpha1.InjectedAnnotation] != "shop" || ConfigGeneration(got) != 9 {
		t.Errorf("annotations are %v, containers %v", got.Annotations, got.Spec.InitContainers)
	}
}

func TestMissing(t *testing.T) {
	shop := read[v1alpha1.CartStorage](t, `{metadata: {name: shop}, spec: {backend: {type: Redis, redis: {addresses: ["a:1"], credentialsSecretRef: {name: one}}}}}`)
	pod, err := Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}}}, shop, PodOptions{Image: "i"})
	if err != nil {
		t.Fatal(err)
	}
	later := read[v1alpha1.CartStorage](t, `{metadata: {name: shop}, spec: {backend: {type: Redis, redis: {addresses: ["a:1"], tls: {caSecretRef: {name: ca}}, credentialsSecretRef: {name: two}}}}}`)
	want := []string{"/etc/sidecart/secrets/ca/ca.crt", "/etc/sidecart/secrets/two/password"}
	if diff := cmp.Diff(want, Missing(pod, later)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	file := read[v1alpha1.CartStorage](t, `{metadata: {name: shop}, spec: {backend: {type: File}}}`)
	if diff := cmp.Diff([]string{"/var/lib/sidecart"}, Missing(pod, file)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConfigMap(t *testing.T) {
	shop := read[v1alpha1.CartStorage](t, "{metadata: {name: shop, namespace: shop, uid: u}, spec: {backend: {type: Memory}}}")
	off := v1alpha1.LockingStatus{Reason: "SingleWriter"}
	first, err := ConfigMap(shop, off, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if first.Name != "shop-sidecart" || first.Namespace != "shop" || ConfigGeneration(first) != 1 || first.OwnerReferences != nil {
		t.Errorf("the ConfigMap is %+v", first.ObjectMeta)
	}
	if !strings.Contains(first.Data["config.yaml"], "\ngeneration: 1\n") {
		t.Errorf("the file is of another generation:\n%s", first.Data["config.yaml"])
	}
	same, err := ConfigMap(shop, off, first, 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, same); diff != "" {
		t.Errorf("nothing changed, and yet:\n%s", diff)
	}
	on, err := ConfigMap(shop, v1alpha1.LockingStatus{Enabled: true, Reason: "MultipleReplicas"}, first, 1)
	if err != nil {
		t.Fatal(err)
	}
	if ConfigGeneration(on) != 2 || !strings.Contains(on.Data["config.yaml"], "\ngeneration: 2\n") {
		t.Errorf("generation after a change is %d, want 2:\n%s", ConfigGeneration(on), on.Data["config.yaml"])
	}
	// The ConfigMap was deleted while sidecars run generation 7.
	again, err := ConfigMap(shop, off, nil, 7)
	if err != nil {
		t.Fatal(err)
	}
	if got := ConfigGeneration(again); got != 8 {
		t.Errorf("generation after a loss is %d, want 8", got)
	}

	bad := shop.DeepCopy()
	bad.Spec.KeyPrefix = "lock.shop"
	if _, err := ConfigMap(bad, off, nil, 0); err == nil || !strings.Contains(err.Error(), "CartStorage shop/shop gives no valid configuration: keyPrefix: ") {
		t.Errorf("error is %v", err)
	}
}
