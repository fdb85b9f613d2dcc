package controller

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// asEditor is a client with the rights that Kubernetes gives to editors of the namespace.
func (w *world) asEditor() client.Client {
	w.t.Helper()
	w.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "editor"},
		// No controller fills the role edit here, which is made of this one.
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:aggregate-to-edit"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "editor"}},
	})
	c := rest.CopyConfig(w.cluster.Config)
	c.Impersonate = rest.ImpersonationConfig{UserName: "editor"}
	editor, err := client.New(c, client.Options{Scheme: Scheme()})
	if err != nil {
		w.t.Fatal(err)
	}
	return editor
}

// circle makes Deployments each of which is controlled by the next, and the last by the first.
func circle(w *world, editor client.Client, cartStorage string, names ...string) {
	w.t.Helper()
	made := make([]*appsv1.Deployment, len(names))
	for i, name := range names {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
		d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
		d.Spec.Template = podTemplate(cartStorage)
		if err := editor.Create(w.t.Context(), d); err != nil {
			w.t.Fatal(err)
		}
		made[i] = d
	}
	for i, d := range made {
		owner := made[(i+1)%len(made)]
		d.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
		if err := editor.Update(w.t.Context(), d); err != nil {
			w.t.Fatal(err)
		}
	}
}

// Deployments that own themselves are reported, and hold up nothing: neither their own CartStorage nor others.
func TestEndlessOwners(t *testing.T) {
	w := newWorld(t)
	editor := w.asEditor()
	// As many as there are workers.
	const many = 8
	for i := range many {
		w.cartStorage(fmt.Sprintf("self-%d", i))
		circle(w, editor, fmt.Sprintf("self-%d", i), fmt.Sprintf("self-%d", i))
	}
	w.cartStorage("pair")
	circle(w, editor, "pair", "a", "b", "c")

	quiet := &v1alpha1.CartStorage{ObjectMeta: metav1.ObjectMeta{Namespace: w.cluster.Namespace(t), Name: "shop"}}
	quiet.Spec.Backend = v1alpha1.Backend{Type: v1alpha1.BackendMemory, Memory: &v1alpha1.MemoryBackend{}}
	w.create(quiet)
	defer func() { _ = w.c.Delete(context.Background(), quiet) }()
	w.eventually(func() string {
		cm, err := currentConfig(t.Context(), w.c, quiet.Namespace, "shop")
		if err != nil || cm == nil {
			return fmt.Sprintf("the CartStorage of another namespace has no configuration: %v", err)
		}
		return ""
	})

	cs := w.settles("pair", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "False", "EndlessOwners") })
	want := "Deployment a is controlled by Deployment b is controlled by Deployment c, which is controlled by the first again: remove one of these owner references"
	if m := condition(cs, "Ready").Message; !strings.HasPrefix(m, want) {
		t.Errorf("message is %q, want %q", m, want)
	}
	if complaint := w.locks(cs, true, "UnboundedWorkload"); complaint != "" {
		t.Error(complaint)
	}
	if ws := cs.Status.Workloads; len(ws) != 1 || ws[0].Name != "a" {
		t.Errorf("workloads are %v, want the circle as one", ws)
	}
	cs = w.settles("self-0", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "False", "EndlessOwners") })
	if m := condition(cs, "Ready").Message; !strings.HasPrefix(m, "Deployment self-0 is its own controller: remove that owner reference") {
		t.Errorf("message is %q", m)
	}
	if resp, err := http.Get(w.probes + "/healthz"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("healthz: %v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}

	// Once the references are repaired, all is as before.
	update(w, "self-0", &appsv1.Deployment{}, func(d *appsv1.Deployment) { d.OwnerReferences = nil })
	w.settles("self-0", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "True", "NoWorkloads") })
}

// The length of a chain of owners is bounded, and so is the number of requests about owners of any kind.
func TestManyOwners(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	var above *appsv1.ReplicaSet
	for i := range maxOwners + 2 {
		s := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("set-%02d", i)}}
		s.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
		s.Spec.Template = podTemplate("unused")
		if above != nil {
			s.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(above, replicaSet)}
		}
		w.create(s)
		above = s
	}
	w.create(w.pod("web-1", "shop", ownedBy(above, replicaSet)))
	cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "False", "EndlessOwners") })
	want := fmt.Sprintf("ReplicaSet set-%02d has more than %d controllers above it", maxOwners+1, maxOwners)
	if m := condition(cs, "Ready").Message; !strings.HasPrefix(m, want) {
		t.Errorf("message is %q, want %q", m, want)
	}
}

func TestScalesAreBounded(t *testing.T) {
	asked := 0
	r := &Reconciler{client: scaleCounter{asked: &asked}}
	f := &fleet{workloads: map[workloadKey]*render.Workload{}}
	for i := range 1000 {
		pod := (&world{namespace: "test"}).pod("web", "shop")
		yes := true
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Rollout", Name: fmt.Sprintf("r-%d", i), Controller: &yes}}
		if _, err := r.topmost(t.Context(), pod, f); err != nil {
			t.Fatal(err)
		}
	}
	if asked != maxScales || len(f.workloads) != 1000 {
		t.Errorf("%d owners were asked for their scale and %d are known, want %d and 1000", asked, len(f.workloads), maxScales)
	}
}

// scaleCounter counts the questions that go to the API server.
type scaleCounter struct {
	client.Client
	asked *int
}

func (c scaleCounter) SubResource(string) client.SubResourceClient {
	return scaleGetter{asked: c.asked}
}

type scaleGetter struct {
	client.SubResourceClient
	asked *int
}

func (g scaleGetter) Get(context.Context, client.Object, client.Object, ...client.SubResourceGetOption) error {
	*g.asked++
	return nil
}
