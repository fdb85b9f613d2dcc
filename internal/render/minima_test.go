package render

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// If the spec leaves requests at their defaults, a sidecar requests at least what the namespace demands. A spec that
// sets less is refused.
func TestMinima(t *testing.T) {
	const usual = "requests: {cpu: 20m, memory: 32Mi}, limits: {memory: 128Mi}" // as the API server fills it in
	for _, r := range []struct {
		name, ranges, resources string
		requests, limits        string // "cpu memory"
		err                     string
	}{
		{"no range", "[]", usual, "20m 32Mi", "- 128Mi", ""},
		{"of pods and claims", "[{spec: {limits: [{type: Pod, min: {memory: 1Gi}}, {type: PersistentVolumeClaim, min: {storage: 1Gi}}]}}]", usual, "20m 32Mi", "- 128Mi", ""},
		{"a minimum of memory", "[{spec: {limits: [{type: Container, min: {memory: 64Mi}}]}}]", usual, "20m 64Mi", "- 128Mi", ""},
		{"of two ranges the higher", "[{spec: {limits: [{type: Container, min: {memory: 64Mi, cpu: 10m}}]}}, {spec: {limits: [{type: Container, min: {memory: 48Mi, cpu: 100m}}]}}]", usual, "100m 64Mi", "- 128Mi", ""},
		{"above the usual limit", "[{spec: {limits: [{type: Container, min: {memory: 256Mi}}]}}]", usual, "20m 256Mi", "- 256Mi", ""},
		{"where nothing is set", "[{spec: {limits: [{type: Container, min: {cpu: 50m}}]}}]", "requests: {memory: 48Mi}, limits: {memory: 64Mi}", "50m 48Mi", "- 64Mi", ""},
		{"what is set is enough", "[{spec: {limits: [{type: Container, min: {memory: 64Mi}}]}}]", "requests: {cpu: 1, memory: 64Mi}, limits: {memory: 64Mi}", "1 64Mi", "- 64Mi", ""},
		{"what is set is less", "[{spec: {limits: [{type: Container, min: {memory: 64Mi}}]}}]", "requests: {cpu: 1, memory: 48Mi}, limits: {memory: 48Mi}", "", "",
			"spec.sidecar.resources.requests.memory is 48Mi and a LimitRange of the namespace asks for 64Mi at least: write 64Mi or more, or leave it out\n" +
				"spec.sidecar.resources.limits.memory is 48Mi and a LimitRange of the namespace asks for 64Mi at least: write 64Mi or more, or leave it out"},
	} {
		t.Run(r.name, func(t *testing.T) {
			cs := read[v1alpha1.CartStorage](t, "{metadata: {name: shop}, spec: {backend: {type: Memory}, sidecar: {resources: {"+r.resources+"}}}}")
			before := cs.DeepCopy()
			pod, err := Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}}}}, cs,
				PodOptions{Image: "i", Minima: Minima(*read[[]corev1.LimitRange](t, r.ranges))})
			if r.err != "" {
				if err == nil || err.Error() != r.err {
					t.Errorf("error is %v, want %s", err, r.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := pod.Spec.InitContainers[0].Resources
			if text := cpuAndMemory(got.Requests); text != r.requests {
				t.Errorf("requests are %s, want %s", text, r.requests)
			}
			if text := cpuAndMemory(got.Limits); text != r.limits {
				t.Errorf("limits are %s, want %s", text, r.limits)
			}
			if diff := cmp.Diff(before, cs); diff != "" {
				t.Errorf("the CartStorage has changed:\n%s", diff)
			}
		})
	}
}

// cpuAndMemory is "cpu memory".
func cpuAndMemory(l corev1.ResourceList) string {
	text := func(name corev1.ResourceName) string {
		if q, ok := l[name]; ok {
			return q.String()
		}
		return "-"
	}
	return text(corev1.ResourceCPU) + " " + text(corev1.ResourceMemory)
}
