package controller

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// If a namespace's LimitRange demands more than the sidecar's default request, the sidecar requests that much. If the
// CartStorage itself requests less, the refusal says what to write.
func TestLimitRange(t *testing.T) {
	w := newWorld(t)
	lr := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "least"}}
	lr.Spec = *read[corev1.LimitRangeSpec](t, "limits: [{type: Container, min: {memory: 64Mi, cpu: 50m}, default: {memory: 256Mi, cpu: 1}, defaultRequest: {memory: 64Mi, cpu: 50m}}]")
	w.create(lr)
	t.Cleanup(func() { _ = w.c.Delete(t.Context(), lr) })
	w.cartStorage("shop")
	w.eventually(func() string { // the operator learns of both a moment later
		pod := w.pod("web", "shop")
		if err := w.c.Create(t.Context(), pod, client.DryRunAll); err != nil {
			return err.Error()
		}
		r := pod.Spec.InitContainers[0].Resources
		if m, c := r.Requests.Memory().String(), r.Requests.Cpu().String(); m != "64Mi" || c != "50m" {
			return "the sidecar asks for " + m + " and " + c
		}
		return ""
	})
	w.cartStorage("small")
	update(w, "small", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) {
		cs.Spec.Sidecar.Resources.Requests = *read[corev1.ResourceList](t, "{cpu: 50m, memory: 48Mi}")
	})
	const want = "spec.sidecar.resources.requests.memory is 48Mi and a LimitRange of the namespace asks for 64Mi at least: write 64Mi or more, or leave it out"
	w.eventually(func() string {
		err := w.c.Create(t.Context(), w.pod("web", "small"), client.DryRunAll)
		if err == nil || !strings.Contains(err.Error(), want) {
			return "the pod: " + message(err)
		}
		return ""
	})
}
