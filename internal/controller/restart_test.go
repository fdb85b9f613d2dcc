package controller

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// outdatedIs complains unless so many pods of Deployment web are outdated and its message has that text.
func outdatedIs(cs *v1alpha1.CartStorage, workload string, n int32, message string) string {
	for _, w := range cs.Status.Workloads {
		if w.Name != workload {
			continue
		}
		if w.Outdated != n || !strings.Contains(w.Message, message) {
			return workload + " is not outdated so"
		}
		return ""
	}
	return "there is no " + workload
}

func TestOutdatedIsVisible(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.deployment("web", "shop", 2)
	cs := w.allUpdated("shop", 2)
	if c := outdatedIs(cs, "web", 0, ""); c != "" || cs.Status.Outdated != 0 {
		t.Errorf("what was just injected is outdated: %+v", cs.Status)
	}
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Sidecar.Image = "sidecar:2" })
	const want = "image changed since its pods were made; kubectl rollout restart deployment/web"
	cs = w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if c := is(cs, "Ready", "True", "AllUpdated"); c != "" {
			return c
		}
		return outdatedIs(cs, "web", 2, want)
	})
	if m := condition(cs, "Ready").Message; !strings.Contains(m, "2 are outdated") {
		t.Errorf("the message of Ready is %q", m)
	}
	told := func() (n int) {
		for _, e := range w.events(t) {
			if strings.HasPrefix(e, "Normal sidecars of Deployment web are outdated: "+want) {
				n++
			}
		}
		return n
	}
	w.eventually(func() string {
		if told() == 0 {
			return "no event says that sidecars are outdated"
		}
		return ""
	})
	// One event, however often the operator looks at it.
	update(w, "web-1-1", w.getPod("web-1-1"), func(p *corev1.Pod) { p.Annotations[v1alpha1.InjectedAsAnnotation] = "" })
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		return outdatedIs(cs, "web", 2, "an older operator injected it")
	})
	if n := told(); n != 1 {
		t.Errorf("%d events say that the image is outdated, want 1", n)
	}
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Sidecar.Image = "" })
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		return outdatedIs(cs, "web", 1, "an older operator injected it")
	})
}

// rolled says in the status of a Deployment that all of its pods are new and ready.
func (a *app) rolled(whole bool) {
	a.w.t.Helper()
	a.w.eventually(func() string {
		d := &appsv1.Deployment{}
		if err := a.w.c.Get(a.w.t.Context(), client.ObjectKey{Namespace: a.w.namespace, Name: a.name}, d); err != nil {
			return err.Error()
		}
		n := *d.Spec.Replicas
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
		if !whole {
			d.Status.UpdatedReplicas--
		}
		return message(a.w.c.Status().Update(a.w.t.Context(), d))
	})
}

// restartedFor is what the template of a Deployment says that it was restarted for.
func (w *world) restartedFor(name string) string {
	w.t.Helper()
	d := &appsv1.Deployment{}
	if err := w.c.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, d); err != nil {
		w.t.Fatal(err)
	}
	return d.Spec.Template.Annotations[v1alpha1.RestartedForAnnotation]
}

// replace does what the Deployment's controllers do when it is restarted.
func (a *app) replace() {
	n := len(a.pods)
	a.makePods(0)
	a.makePods(n)
}

// allowRollouts gives the operator the right to restart workloads, for the rest of the test.
func (w *world) allowRollouts() {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "config", "rbac", "rollouts_role.yaml"))
	if err != nil {
		w.t.Fatal(err)
	}
	if text, err := w.cluster.Apply(w.t, ownNamespace, string(data)); err != nil {
		w.t.Fatalf("%v\n%s", err, text)
	}
	w.t.Cleanup(func() {
		name := metav1.ObjectMeta{Name: "sidecart-operator-rollouts"}
		for _, o := range []client.Object{&rbacv1.ClusterRoleBinding{ObjectMeta: name}, &rbacv1.ClusterRole{ObjectMeta: name}} {
			if err := w.c.Delete(context.Background(), o); err != nil {
				w.t.Error(err)
			}
		}
	})
}

// With rollout Restart, workloads with outdated sidecars are restarted, one at a time, only while all is well, and once
// for each change.
func TestRolloutRestart(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	first, second, paused := w.deployment("a", "shop", 2), w.deployment("b", "shop", 1), w.deployment("c", "shop", 1, func(d *appsv1.Deployment) { d.Spec.Paused = true })
	for _, a := range []*app{first, second, paused} {
		a.rolled(true)
	}
	w.allUpdated("shop", 4)
	says := func(workload string, outdated int32, text string) {
		t.Helper()
		w.settles("shop", func(cs *v1alpha1.CartStorage) string { return outdatedIs(cs, workload, outdated, text) })
	}

	// Without the right it says so.
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) {
		cs.Spec.Sidecar.Image, cs.Spec.Sidecar.Rollout = "sidecar:2", v1alpha1.RolloutRestart
	})
	says("a", 2, "the operator has no right to restart workloads: install the chart with rollouts.enabled=true")

	// Something is wrong: nothing is restarted.
	w.nodes.says(w.namespace, second.pods[0], func(r *Report) { r.Backend.Healthy = false })
	says("a", 2, "it will be restarted, but not now: pod "+second.pods[0]+" does not reach the backend")
	w.allowRollouts()
	says("a", 2, "it will be restarted, but not now: pod "+second.pods[0]+" does not reach the backend")
	if w.restartedFor("a") != "" {
		t.Fatal("it was restarted while a backend was away")
	}

	w.nodes.says(w.namespace, second.pods[0], nil)
	says("a", 2, "it is being rolled out")
	says("b", 1, "it will be restarted, but not now: Deployment a is being restarted")
	if w.restartedFor("a") == "" || w.restartedFor("b") != "" {
		t.Errorf("restarted for: a %q, b %q, want a alone", w.restartedFor("a"), w.restartedFor("b"))
	}
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "Reconciling", "True", "RollingOut") })
	first.replace()
	first.rolled(true)
	says("b", 1, "it is being rolled out")
	second.replace()
	second.rolled(true)
	says("c", 1, "it is not restarted by the operator, since it is paused: kubectl rollout restart deployment/c")
	if w.restartedFor("c") != "" {
		t.Error("a paused Deployment was restarted")
	}
	cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "True", "AllUpdated") })
	if cs.Status.Outdated != 1 || condition(cs, "Reconciling") != nil {
		t.Errorf("it is not done: %+v", cs.Status)
	}

	// Pods that are still outdated after a restart, as from a webhook of another version, are not restarted for ever.
	key := w.restartedFor("a")
	update(w, first.pods[0], w.getPod(first.pods[0]), func(p *corev1.Pod) { p.Annotations[v1alpha1.InjectedAsAnnotation] = "{}" })
	says("a", 1, "it was restarted for this once and is not again: kubectl rollout restart deployment/a")
	if w.restartedFor("a") != key {
		t.Error("it was restarted again")
	}
}

// A ReplicaSet whose pods the webhook refused is nudged when the cause is gone. It is left alone if another webhook
// refuses.
func TestRefusedPodsAreNudged(t *testing.T) {
	w := newWorld(t)
	n := int32(2)
	set := func(name, message string) *appsv1.ReplicaSet {
		s := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name}}
		s.Spec = appsv1.ReplicaSetSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: podTemplate("shop")}
		w.create(s)
		s.Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: "True", Reason: "FailedCreate", Message: message}}
		if err := w.c.Status().Update(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	refusal := message(w.c.Create(t.Context(), w.pod("web", "shop"), client.DryRunAll))
	if !strings.Contains(refusal, webhookName) || !strings.Contains(refusal, "there is no CartStorage shop") {
		t.Fatalf("the pod is refused with %q", refusal)
	}
	ours := set("ours", refusal)
	others := set("others", `pods "x" is forbidden: exceeded quota`)
	nudged := func(s *appsv1.ReplicaSet) string {
		if err := w.c.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
			t.Fatal(err)
		}
		return s.Annotations[v1alpha1.NudgedAnnotation]
	}
	w.cartStorage("shop")
	w.within(5*time.Second, func() string {
		if nudged(ours) == "" {
			return "it is not nudged"
		}
		return ""
	})
	if nudged(others) != "" {
		t.Error("a ReplicaSet whose pods somebody else refuses was nudged")
	}

	// The operator comes back.
	w.stop()
	before := nudged(ours)
	w.start()
	w.within(5*time.Second, func() string {
		if nudged(ours) == before {
			return "it is not nudged"
		}
		return ""
	})
	// Its controller has made the pods: it is nudged no more.
	ours.Status.Conditions = nil
	if err := w.c.Status().Update(t.Context(), ours); err != nil && !strings.Contains(err.Error(), "modified") {
		t.Fatal(err)
	}
}

func TestMisplacedLabel(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	label := map[string]string{v1alpha1.InjectLabel: "shop"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: label}}
	d.Spec = appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: podTemplate("shop")}
	delete(d.Spec.Template.Labels, v1alpha1.InjectLabel)
	w.create(d)
	const want = "the label sidecart.dev/inject of Deployment web is on the workload itself, where nothing reads it: move it to the labels of its pod template"
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if m := condition(cs, "Ready").Message; !strings.Contains(m, want) {
			return "the message is " + m
		}
		return ""
	})
	w.eventually(func() string {
		if e := strings.Join(w.events(t), "\n"); !strings.Contains(e, "Warning Deployment web has the label sidecart.dev/inject on itself") {
			return "events are " + e
		}
		return ""
	})
	update(w, "web", &appsv1.Deployment{}, func(d *appsv1.Deployment) {
		d.Labels = nil
		d.Spec.Template.Labels[v1alpha1.InjectLabel] = "shop"
	})
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if m := condition(cs, "Ready").Message; strings.Contains(m, "nothing reads it") || len(cs.Status.Workloads) != 1 {
			return "the message is " + m
		}
		return ""
	})
}

func TestDidYouMean(t *testing.T) {
	for _, r := range []struct{ name, names, want string }{
		{"shpo", "blog shop", "shop"},
		{"shop", "shop-eu", ""},
		{"sohp", "shop", "shop"},
		{"shop-eu", "shop", ""},
		{"checkout-storage", "checkout-store", "checkout-store"},
		{"web", "db", ""},
		{"x", "y", ""},
		{"shop", "", ""},
	} {
		if got := nearest(r.name, strings.Fields(r.names)); got != r.want {
			t.Errorf("nearest(%q, %q) is %q, want %q", r.name, r.names, got, r.want)
		}
	}
	w := newWorld(t)
	w.cartStorage("shop")
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "True", "NoWorkloads") })
	refusal := message(w.c.Create(t.Context(), w.pod("web", "shpo"), client.DryRunAll))
	if want := "there is no CartStorage shpo in namespace " + w.namespace + ": did you mean shop? Otherwise create it, or name another one of this namespace"; !strings.Contains(refusal, want) {
		t.Errorf("the refusal is %q, want %q in it", refusal, want)
	}
}

// The operator may write two annotations of workloads: one on their template, and one on themselves through the status.
func TestPoliciesOfWorkloads(t *testing.T) {
	w := newWorld(t)
	w.allowRollouts()
	w.cartStorage("shop")
	w.deployment("web", "shop", 1)
	plain := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "plain"}}
	plain.Spec = appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: podTemplate("shop")}
	delete(plain.Spec.Template.Labels, v1alpha1.InjectLabel)
	w.create(plain)
	operator, err := client.New(w.asOperator(), client.Options{Scheme: Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	web := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "web"}}
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "web-1"}}
	merge := func(o client.Object, body string) error {
		return operator.Patch(t.Context(), o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(body)), client.DryRunAll)
	}
	status := func(o client.Object, body string) error {
		return operator.Status().Patch(t.Context(), o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(body)), client.DryRunAll)
	}
	const (
		restart  = `{"spec": {"template": {"metadata": {"annotations": {"sidecart.dev/restarted-for": "a"}}}}}`
		noLabel  = "changes only workloads whose pod template has the label"
		template = "changes no more of a pod template than its annotations"
		own      = "changes no more of a workload than annotations"
	)
	for _, r := range []struct {
		name string
		err  error
		want string
	}{
		{"a restart", merge(web, restart), ""},
		{"a restart of what is not ours", merge(plain, restart), noLabel},
		{"another annotation of the template", merge(web, `{"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}`), "writes no other annotation of a pod template"},
		{"a label of the template", merge(web, `{"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}`), template},
		{"our label off the template", merge(web, `{"spec": {"template": {"metadata": {"labels": {"sidecart.dev/inject": null}}}}}`), template},
		{"an image", merge(web, `{"spec": {"template": {"spec": {"$setElementOrder/containers": [], "containers": [{"name": "app", "image": "evil:1"}]}}}}`), template},
		{"an account", merge(web, `{"spec": {"template": {"spec": {"serviceAccountName": "admin"}}}}`), template},
		{"a scale", merge(web, `{"spec": {"replicas": 0}}`), template},
		{"a pause", merge(web, `{"spec": {"paused": true}}`), template},
		{"an annotation of its own", merge(web, `{"metadata": {"annotations": {"sidecart.dev/nudged": "a"}}}`), "writes no other annotation of a workload"},
		{"a label of its own", merge(web, `{"metadata": {"labels": {"a": "b"}}}`), own},
		{"an owner", merge(web, `{"metadata": {"finalizers": ["example.com/stay"]}}`), own},
		{"a nudge", status(set, `{"metadata": {"annotations": {"sidecart.dev/nudged": "a"}}}`), ""},
		{"a status", status(set, `{"status": {"replicas": 7}}`), own},
		{"another annotation by the status", status(set, `{"metadata": {"annotations": {"a": "b"}}}`), "writes no other annotation of a workload"},
	} {
		switch {
		case r.want == "" && r.err != nil:
			t.Errorf("%s: %v", r.name, r.err)
		case r.want != "" && (r.err == nil || !strings.Contains(r.err.Error(), r.want) || !strings.Contains(r.err.Error(), "ValidatingAdmissionPolicy 'sidecart-operator-workloads'")):
			t.Errorf("%s: error is %v, want %q of a policy", r.name, r.err, r.want)
		}
	}
	// The policy binds nobody else.
	update(w, "web", &appsv1.Deployment{}, func(d *appsv1.Deployment) { d.Spec.Paused = true })
}
