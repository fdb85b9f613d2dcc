package controller

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

func TestApplyAndChange(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if c := w.locks(cs, false, "NoWorkloads"); c != "" {
			return c
		}
		return is(cs, "Ready", "True", "NoWorkloads")
	})
	if g := w.config("shop").Generation; g != 1 {
		t.Errorf("the first configuration has generation %d, want 1", g)
	}

	app := w.deployment("web", "shop", 1)
	cs := w.allUpdated("shop", 1)
	for _, want := range []string{
		is(cs, "BackendReachable", "True", "Reachable"), is(cs, "ConfigAccepted", "True", "Accepted"), is(cs, "LockingEffective", "True", "NotNeeded"),
	} {
		if want != "" {
			t.Error(want)
		}
	}
	want := v1alpha1.WorkloadStatus{Kind: "Deployment", Name: "web", Replicas: 1, Sidecars: 1, Updated: 1}
	if len(cs.Status.Workloads) != 1 || cs.Status.Workloads[0] != want || cs.Status.Replicas != 1 {
		t.Errorf("workloads are %+v, want %+v", cs.Status.Workloads, want)
	}

	// The running pod learns of a change by its annotation, and no pod is restarted.
	uid := w.getPod(app.pods[0]).UID
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.TTL = &metav1.Duration{Duration: time.Hour} })
	w.allUpdated("shop", 1)
	c := w.config("shop")
	if c.TTL.Std() != time.Hour {
		t.Errorf("the ConfigMap has TTL %s, want 1h", c.TTL)
	}
	pod := w.getPod(app.pods[0])
	if generationOf(pod) != c.Generation || pod.UID != uid {
		t.Errorf("the pod is stamped %d and is the same: %t, want %d and true", generationOf(pod), pod.UID == uid, c.Generation)
	}
}

// Sidecars that do not run the configuration yet are counted as such.
func TestRollingOut(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.deployment("web", "shop", 2)
	w.allUpdated("shop", 2)
	w.nodes.freeze(true)
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Limits.MaxItems = 7 })
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if cs.Status.Sidecars != "0/2" {
			return "sidecars are not 0/2"
		}
		return is(cs, "Ready", "False", "RollingOut")
	})
	w.nodes.freeze(false)
	for _, name := range []string{"web-1-1", "web-1-2"} {
		w.nodes.sidecar(w.namespace, name, func(p *running) { p.report.Generation = generationOf(w.getPod(name)) })
	}
	w.allUpdated("shop", 2)
}

func TestScale(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop", "locking: {autoDisableAfter: 2s}")
	app := w.deployment("web", "shop", 1)
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, false, "SingleWriter") })
	w.allUpdated("shop", 1)

	app.scale(3)
	cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, true, "MultipleReplicas") })
	if cs.Status.Locking.Message != "Deployment web has 3 replicas" {
		t.Errorf("message is %q", cs.Status.Locking.Message)
	}
	w.allUpdated("shop", 3)

	alone := time.Now()
	app.scale(1)
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, true, "CoolingDown") })
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, false, "SingleWriter") })
	if took := time.Since(alone); took < time.Second || took > 8*time.Second {
		t.Errorf("locking went off after %s, want about 2s", took)
	}
	w.allUpdated("shop", 1)
}

func TestWhatTurnsLockingOn(t *testing.T) {
	w := newWorld(t)
	surge := func(d *appsv1.Deployment) {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType}
	}
	on := func(name, reason, message string) {
		t.Helper()
		cs := w.settles(name, func(cs *v1alpha1.CartStorage) string { return w.locks(cs, true, reason) })
		if got := cs.Status.Locking.Message; !strings.Contains(got, message) {
			t.Errorf("%s: message is %q, want %q in it", name, got, message)
		}
	}
	off := func(name string) {
		t.Helper()
		w.settles(name, func(cs *v1alpha1.CartStorage) string { return w.locks(cs, false, "SingleWriter") })
	}

	w.cartStorage("hpa", "locking: {autoDisableAfter: 1s}")
	w.deployment("scaled", "hpa", 1)
	off("hpa")
	hpa := w.hpa("scaled", "scaled", 5)
	on("hpa", "Autoscaler", "HorizontalPodAutoscaler scaled may scale Deployment scaled to 5 replicas")
	if err := w.c.Delete(t.Context(), hpa); err != nil {
		t.Fatal(err)
	}
	off("hpa")

	w.cartStorage("surge")
	w.deployment("surging", "surge", 1, surge)
	on("surge", "RolloutSurge", "Deployment surging")

	w.cartStorage("second")
	w.deployment("first", "second", 1)
	off("second")
	w.job("report", "second")
	on("second", "MultipleWorkloads", "Deployment first and Job report")

	// It has no pod yet.
	w.cartStorage("wanted")
	n := int32(2)
	d := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "wanted"}}
	d.Spec = appsv1.StatefulSetSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: podTemplate("wanted")}
	w.create(d)
	on("wanted", "MultipleReplicas", "StatefulSet wanted has 2 replicas")

	// An ending pod can still write.
	w.cartStorage("ending")
	app := w.deployment("ending", "ending", 1)
	off("ending")
	update(w, app.pods[0], &corev1.Pod{}, func(p *corev1.Pod) { p.Finalizers = []string{"sidecart.dev/test"} })
	w.end(app.pods[0])
	app.pods = nil
	app.makePods(1)
	on("ending", "MultiplePods", "2 pods of Deployment ending live")

	// A kind that is not known here.
	w.cartStorage("unknown")
	owner := w.configMap("unknown")
	w.eventually(func() string {
		if owner = w.configMap("unknown"); owner == nil {
			return "no ConfigMap"
		}
		return ""
	})
	w.create(w.pod("strange", "unknown", ownedBy(owner, corev1.SchemeGroupVersion.WithKind("ConfigMap"))))
	on("unknown", "UnboundedWorkload", "ConfigMap unknown-sidecart may run any number of pods")
}

func TestSharedBackend(t *testing.T) {
	w := newWorld(t)
	other := w.cluster.Namespace(t)
	redis := `backend: {type: Redis, redis: {addresses: ["redis.` + w.namespace + `.svc.cluster.local:6379"]}}`
	w.cartStorage("first", redis, "locking: {autoDisableAfter: 1s}")
	w.deployment("web", "first", 1)
	w.settles("first", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, false, "SingleWriter") })

	second := &v1alpha1.CartStorage{ObjectMeta: metav1.ObjectMeta{Namespace: other, Name: "second"}}
	second.Spec = *read[v1alpha1.CartStorageSpec](t, redis)
	w.create(second)
	t.Cleanup(func() { _ = w.c.Delete(t.Context(), second) })
	cs := w.settles("first", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, true, "SharedBackend") })
	if want := "a CartStorage of another namespace uses the same backend and keyPrefix"; cs.Status.Locking.Message != want {
		t.Errorf("message is %q, want %q", cs.Status.Locking.Message, want)
	}
	// A reader of this namespace may not be allowed to see the other one: neither status nor events name it.
	var events eventsv1.EventList
	w.eventually(func() string {
		if err := w.c.List(t.Context(), &events, client.InNamespace(w.namespace)); err != nil {
			return err.Error()
		}
		if !slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool { return e.Reason == "SharedBackend" }) {
			return "no event says that the backend is shared"
		}
		return ""
	})
	told, err := json.Marshal([]any{cs.Status, events})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{other, "second"} {
		if bytes.Contains(told, []byte(secret)) {
			t.Errorf("%q of another namespace is told in %s", secret, told)
		}
	}
	if err := w.c.Delete(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	w.settles("first", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, false, "SingleWriter") })
}

// Pods go on with their last configuration when their CartStorage is gone, and the ConfigMap goes with the last of
// them.
func TestDeleted(t *testing.T) {
	w := newWorld(t)
	cs := w.cartStorage("shop")
	w.deployment("web", "shop", 2)
	w.allUpdated("shop", 2)
	before := w.configMap("shop")
	if len(before.OwnerReferences) > 0 {
		t.Errorf("the garbage collector would remove the ConfigMap: %v", before.OwnerReferences)
	}
	if err := w.c.Delete(t.Context(), cs); err != nil {
		t.Fatal(err)
	}
	w.end("web-1-1")
	// The webhook answers from the same cache and refuses, so the operator has seen the deletion.
	w.eventually(func() string {
		err := w.c.Create(t.Context(), w.pod("late", "shop"), client.DryRunAll)
		if err == nil {
			return "a pod of a deleted CartStorage was admitted"
		}
		return ""
	})
	if after := w.configMap("shop"); after == nil || after.UID != before.UID {
		t.Error("the ConfigMap is gone, although a pod needs it")
	}

	// Made anew, it continues where the pods are.
	w.cartStorage("shop", "ttl: 1h")
	w.allUpdated("shop", 1)
	generation := w.config("shop").Generation
	if was := generationOf(&corev1.Pod{ObjectMeta: before.ObjectMeta}); generation <= was {
		t.Errorf("the generation went from %d to %d", was, generation)
	}
	if err := w.c.Delete(t.Context(), w.get("shop")); err != nil {
		t.Fatal(err)
	}
	w.end("web-1-2")
	w.eventually(func() string {
		if w.configMap("shop") != nil {
			return "the ConfigMap is still there"
		}
		return ""
	})
}

// A ConfigMap of somebody else that has the name of ours is left alone, and reported.
func TestForeignConfigMap(t *testing.T) {
	w := newWorld(t)
	w.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "shop-sidecart"}, Data: map[string]string{"config.yaml": "theirs"}})
	w.cartStorage("shop")
	cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "False", "RenderFailed") })
	if m := condition(cs, "Ready").Message; m != "there is a ConfigMap shop-sidecart that is not Sidecart's: remove it, or give the CartStorage another name" {
		t.Errorf("message is %q", m)
	}
	if cm := w.configMap("shop"); cm.Data["config.yaml"] != "theirs" || len(cm.Labels) != 0 {
		t.Errorf("it was overwritten with %v", cm.Data)
	}
	if err := w.c.Delete(t.Context(), w.configMap("shop")); err != nil {
		t.Fatal(err)
	}
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Limits.MaxItems = 3 })
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "True", "NoWorkloads") })
}

// Changes that others make to the ConfigMap are repaired, and generations only rise.
func TestConflictingEdits(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.deployment("web", "shop", 1)
	w.allUpdated("shop", 1)
	generation := w.config("shop").Generation
	for _, r := range []struct {
		name string
		edit func()
	}{
		{"data", func() {
			update(w, "shop-sidecart", &corev1.ConfigMap{}, func(cm *corev1.ConfigMap) { cm.Data["config.yaml"] = "kind: Nonsense" })
		}},
		{"annotation", func() {
			update(w, "shop-sidecart", &corev1.ConfigMap{}, func(cm *corev1.ConfigMap) { delete(cm.Annotations, v1alpha1.GenerationAnnotation) })
		}},
		{"absurd generation", func() {
			update(w, "shop-sidecart", &corev1.ConfigMap{}, func(cm *corev1.ConfigMap) {
				cm.Annotations[v1alpha1.GenerationAnnotation] = "9223372036854775807"
			})
		}},
		{"label", func() {
			update(w, "shop-sidecart", &corev1.ConfigMap{}, func(cm *corev1.ConfigMap) { cm.Labels = nil })
		}},
		{"deletion", func() {
			if err := w.c.Delete(t.Context(), w.configMap("shop")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		r.edit()
		w.eventually(func() string {
			cm := w.configMap("shop")
			switch {
			case cm == nil:
				return r.name + ": no ConfigMap"
			case cm.Labels[managedBy] != "sidecart" || strings.Contains(cm.Data["config.yaml"], "Nonsense") || len(cm.Annotations[v1alpha1.GenerationAnnotation]) != 1:
				return r.name + ": not repaired"
			}
			return ""
		})
		now := w.config("shop").Generation
		if now < generation || r.name == "deletion" && now == generation {
			t.Errorf("%s: the generation went from %d to %d", r.name, generation, now)
		}
		generation = now
	}
	w.allUpdated("shop", 1)
}

// Wherever an operator dies, its successor can go on.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop", "locking: {autoDisableAfter: 1h}")
	app := w.deployment("web", "shop", 2)
	cs := w.allUpdated("shop", 2)
	since := cs.Status.Locking.Since
	w.stop()
	// What happens meanwhile: a change, a pod gone, another CartStorage gone.
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.KeyPrefix = "cart" })
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Limits.MaxItems = 9 })
	n := int32(1)
	update(w, app.name, &appsv1.Deployment{}, func(d *appsv1.Deployment) { d.Spec.Replicas = &n })
	w.end(app.pods[1])
	w.start()
	cs = w.allUpdated("shop", 1)
	if w.config("shop").Limits.MaxItems != 9 {
		t.Error("the change was not taken up")
	}
	if l := cs.Status.Locking; !l.Enabled || l.Reason != "CoolingDown" || !l.Since.Equal(&since) {
		t.Errorf("the decision was not remembered: %+v, since %s", l, since)
	}
}

// Once everything is as it should be, nothing more is written, however often the operator looks at it.
func TestQuiet(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	app := w.deployment("web", "shop", 2)
	w.allUpdated("shop", 2)
	versions := func() (v []string) {
		v = append(v, w.get("shop").ResourceVersion, w.configMap("shop").ResourceVersion)
		for _, pod := range app.pods {
			v = append(v, w.getPod(pod).ResourceVersion)
		}
		return v
	}
	before := versions()
	w.nodes.mu.Lock()
	asked := w.nodes.requests
	w.nodes.mu.Unlock()
	// Two resyncs of both sidecars, and a restart.
	w.eventually(func() string {
		w.nodes.mu.Lock()
		defer w.nodes.mu.Unlock()
		if w.nodes.requests < asked+4 {
			return "the sidecars were not asked again"
		}
		return ""
	})
	w.stop()
	w.start()
	w.eventually(func() string {
		w.nodes.mu.Lock()
		defer w.nodes.mu.Unlock()
		if w.nodes.requests < asked+8 {
			return "the sidecars were not asked again"
		}
		return ""
	})
	if after := versions(); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("something was written: resource versions went from %v to %v", before, after)
	}
}

// A Deployment that changes to another CartStorage leaves only old ReplicaSets behind.
func TestWorkloadLeaves(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("old")
	w.cartStorage("new")
	app := w.deployment("web", "old", 1)
	w.allUpdated("old", 1)
	update(w, app.name, &appsv1.Deployment{}, func(d *appsv1.Deployment) { d.Spec.Template.Labels[v1alpha1.InjectLabel] = "new" })
	none := int32(0)
	update(w, app.set.Name, &appsv1.ReplicaSet{}, func(s *appsv1.ReplicaSet) { s.Spec.Replicas = &none })
	app.makePods(0)
	w.settles("old", func(cs *v1alpha1.CartStorage) string {
		if len(cs.Status.Workloads) > 0 || cs.Status.Replicas != 0 {
			return "the Deployment is still counted"
		}
		return w.locks(cs, false, "NoWorkloads")
	})
	w.settles("new", func(cs *v1alpha1.CartStorage) string {
		if ws := cs.Status.Workloads; len(ws) != 1 || ws[0].Name != "web" {
			return "the Deployment is not counted"
		}
		return ""
	})
}
