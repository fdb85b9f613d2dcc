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

// After the first invocation, another webhook has added a container, which gets the environment, and changed ours,
// which stays changed.
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

// An annotation that was copied from another pod does not count as a sidecar.
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

// A pod learns its sidecar's ports once. A container that is added after the ports of the CartStorage have changed is
// told where this pod's sidecar listens, not where that of a new pod would.
func TestPortsStayWithThePod(t *testing.T) {
	shop := read[v1alpha1.CartStorage](t, "{metadata: {name: shop}, spec: {backend: {type: Memory}}}")
	pod, err := Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}}}, shop, PodOptions{Image: "one"})
	if err != nil {
		t.Fatal(err)
	}
	later := shop.DeepCopy()
	later.Spec.Sidecar.Ports = v1alpha1.Ports{GRPC: 17420, HTTP: 17421, Admin: 17422}
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "added"})
	again, err := Pod(pod, later, PodOptions{Image: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pod.Spec.InitContainers, again.Spec.InitContainers); diff != "" {
		t.Errorf("the sidecar has changed (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(again.Spec.Containers[0].Env, again.Spec.Containers[1].Env); diff != "" {
		t.Errorf("one pod, and two addresses of its sidecar (-web +added):\n%s", diff)
	}
	fresh, err := Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}}}, later, PodOptions{Image: "one"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"--config", "/etc/sidecart/config.yaml", "--grpc-address=127.0.0.1:17420", "--http-address=127.0.0.1:17421", "--admin-address=:17422"}
	if diff := cmp.Diff(want, fresh.Spec.InitContainers[0].Args); diff != "" {
		t.Errorf("a new pod (-want +got):\n%s", diff)
	}

	// An older operator gave no addresses: such a sidecar listens where its file says.
	pod.Spec.InitContainers[0].Args = want[:2]
	if again, err = Pod(pod, later, PodOptions{Image: "one"}); err != nil {
		t.Fatal(err)
	}
	if got := again.Spec.Containers[1].Env[0].Value; got != "http://127.0.0.1:17421" {
		t.Errorf("a container of a pod of an older operator is told %s", got)
	}
}

// With order Last the sidecar is also behind containers that other webhooks add after it.
func TestLastIsLast(t *testing.T) {
	shop := read[v1alpha1.CartStorage](t, "{metadata: {name: shop}, spec: {backend: {type: Memory}, injection: {order: Last}}}")
	names := func(pod *corev1.Pod) (all []string) {
		for _, c := range pod.Spec.InitContainers {
			all = append(all, c.Name)
		}
		return all
	}
	pod, err := Pod(&corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "a"}, {Name: "b"}}}}, shop, PodOptions{Image: "i"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b", "sidecart"}, names(pod)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "mesh"})
	if pod, err = Pod(pod, shop, PodOptions{Image: "i"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b", "mesh", "sidecart"}, names(pod)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A drain of the node and the cluster autoscaler count an emptyDir or a hostPath as local data. A pod gets one only if
// it holds carts. Then the pod is also marked as not safe to evict, unless its owner has said otherwise.
func TestLocalVolumes(t *testing.T) {
	for _, r := range []struct{ name, backend, annotations, local, evict string }{
		{"redis", `{type: Redis, redis: {addresses: ["a:1"], credentialsSecretRef: {name: s}}}`, "{}", "", ""},
		{"memory", "{type: Memory}", "{}", "", ""},
		{"claim", "{type: File, file: {volume: {claimName: c}}}", "{}", "", ""},
		{"file", "{type: File}", "{}", "sidecart-data", "false"},
		{"sqlite", "{type: Database, database: {dialect: SQLite}}", "{}", "sidecart-data", "false"},
		{"owner", "{type: File}", `{cluster-autoscaler.kubernetes.io/safe-to-evict: "true"}`, "sidecart-data", "true"},
		{"owner of the volume", "{type: File}", `{cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes: sidecart-data}`, "sidecart-data", ""},
	} {
		t.Run(r.name, func(t *testing.T) {
			shop := read[v1alpha1.CartStorage](t, "{metadata: {name: shop}, spec: {backend: "+r.backend+"}}")
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: *read[map[string]string](t, r.annotations)}}
			pod, err := Pod(pod, shop, PodOptions{Image: "i"})
			if err != nil {
				t.Fatal(err)
			}
			local := ""
			for _, v := range pod.Spec.Volumes {
				if v.EmptyDir != nil || v.HostPath != nil {
					local += v.Name
				}
			}
			if evict := pod.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"]; local != r.local || evict != r.evict {
				t.Errorf("local volumes %q, safe to evict %q, want %q and %q", local, evict, r.local, r.evict)
			}
		})
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

	// The configuration that sidecars have accepted stays beside the next one, and does not count as a change.
	good := WithLastGood(on)
	if got := good.Data["lastgood.yaml"]; got != on.Data["config.yaml"] || ConfigGeneration(good) != 2 || on.Data["lastgood.yaml"] != "" {
		t.Errorf("the last good configuration is\n%s", got)
	}
	if WithLastGood(good) != nil {
		t.Error("what is said already is said again")
	}
	if kept, err := ConfigMap(shop, v1alpha1.LockingStatus{Enabled: true, Reason: "MultipleReplicas"}, good, 2); err != nil || cmp.Diff(good.Data, kept.Data) != "" {
		t.Errorf("nothing changed, and yet: %v\n%s", err, cmp.Diff(good.Data, kept.Data))
	}
	changed, err := ConfigMap(shop, off, good, 2)
	if err != nil {
		t.Fatal(err)
	}
	if ConfigGeneration(changed) != 3 || changed.Data["lastgood.yaml"] != on.Data["config.yaml"] || changed.Data["config.yaml"] == on.Data["config.yaml"] {
		t.Errorf("generation %d has the files\n%v", ConfigGeneration(changed), changed.Data)
	}

	bad := shop.DeepCopy()
	bad.Spec.KeyPrefix = "lock.shop"
	if _, err := ConfigMap(bad, off, nil, 0); err == nil || !strings.Contains(err.Error(), "CartStorage shop/shop gives no valid configuration: keyPrefix: ") {
		t.Errorf("error is %v", err)
	}
}
