package controller

import (
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

const rolloutCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rollouts.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Rollout, plural: rollouts, singular: rollout, listKind: RolloutList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {replicas: {type: integer}}}, status: {type: object, properties: {replicas: {type: integer}}}}}}
    subresources: {scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
`

// An owner of an unknown kind is asked for its scale, and the operator's role allows that.
func TestScaledOwner(t *testing.T) {
	w := newWorld(t)
	if message, err := w.cluster.Apply(t, w.namespace, rolloutCRD); err != nil {
		t.Fatal(message)
	}
	rollout := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Rollout", "metadata": map[string]any{"name": "web"}, "spec": map[string]any{"replicas": int64(4)},
	}}
	rollout.SetNamespace(w.namespace)
	w.eventually(func() string { return message(w.c.Create(t.Context(), rollout)) })
	w.cartStorage("shop")
	w.create(w.pod("web-1", "shop", ownedBy(rollout, rollout.GroupVersionKind())))
	cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, true, "MultipleReplicas") })
	if m := cs.Status.Locking.Message; m != "Rollout web has 4 replicas" {
		t.Errorf("message is %q", m)
	}
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if ws := cs.Status.Workloads; len(ws) != 1 || ws[0].Kind != "Rollout" || ws[0].Updated != 1 {
			return "the Rollout is not counted"
		}
		return ""
	})
}

// A change is announced once, however often the operator looks at it.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	app := w.deployment("web", "shop", 1)
	w.allUpdated("shop", 1)
	app.scale(2)
	w.allUpdated("shop", 2)
	w.nodes.mu.Lock()
	asked := w.nodes.requests
	w.nodes.mu.Unlock()
	w.eventually(func() string { // two resyncs
		w.nodes.mu.Lock()
		defer w.nodes.mu.Unlock()
		if w.nodes.requests < asked+4 {
			return "the sidecars were not asked again"
		}
		return ""
	})
	count := func() map[string]int {
		n := map[string]int{}
		var list eventsv1.EventList
		if err := w.c.List(t.Context(), &list, client.InNamespace(w.namespace)); err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			e := &list.Items[i]
			if e.Type == "Warning" {
				t.Errorf("event %s %q", e.Reason, e.Note)
			}
			n[e.Reason]++
			if e.Series != nil {
				n[e.Reason] += int(e.Series.Count) - 1
			}
			if e.Reason == "MultipleReplicas" && e.Note != "locking is on: Deployment web has 2 replicas" {
				t.Errorf("event is %q", e.Note)
			}
		}
		return n
	}
	var n map[string]int
	w.eventually(func() string {
		if n = count(); n["MultipleReplicas"] == 0 || n["AllUpdated"] == 0 {
			return "no event says that locking is on, or that all is done"
		}
		return ""
	})
	if n["MultipleReplicas"] != 1 || n["Reachable"] != 1 {
		t.Errorf("events by reason are %v, want one for what changed once", n)
	}
}
