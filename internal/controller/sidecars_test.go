package controller

import (
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/render"
)

// A sidecar that refuses the configuration is named, with its reason.
func TestConfigRejected(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.deployment("web", "shop", 2)
	w.allUpdated("shop", 2)
	w.nodes.says(w.namespace, "web-1-2", func(r *Report) {
		r.Generation--
		r.Config.State, r.Config.Message = "ConfigRejected", "listen.grpc: changed from \"a\"\nto \"b\", which needs a restart"
	})
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Limits.MaxItems = 3 })
	cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if cs.Status.Sidecars != "1/2" {
			return "sidecars are not 1/2"
		}
		if c := is(cs, "ConfigAccepted", "False", "ConfigRejected"); c != "" {
			return c
		}
		return is(cs, "Ready", "False", "Degraded")
	})
	message := condition(cs, "ConfigAccepted").Message
	if want := `pod web-1-2: it keeps configuration`; !strings.Contains(message, want) || !strings.Contains(message, `listen.grpc: changed from "a" to "b", which needs a restart`) {
		t.Errorf("message is %q", message)
	}
	w.nodes.says(w.namespace, "web-1-2", nil)
	w.allUpdated("shop", 2)
}

func TestUnreachableSidecar(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.deployment("web", "shop", 2)
	w.allUpdated("shop", 2)
	w.nodes.sidecar(w.namespace, "web-1-1", func(p *running) { p.silent = true })
	cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "False", "SidecarUnreachable") })
	if m := condition(cs, "Ready").Message; m != "1 of 2 sidecars do not answer the operator; pod web-1-1: /statusz answers with status 503" {
		t.Errorf("message is %q", m)
	}
	w.nodes.sidecar(w.namespace, "web-1-1", func(p *running) { p.silent = false })
	w.allUpdated("shop", 2)
}

// The operator may not look at Secrets. It hears what is wrong with one from the kubelet, which cannot mount it, and
// from the sidecar, which cannot log in with it.
func TestSecretMissingMadeRotated(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop", `backend: {type: Redis, redis: {addresses: ["redis:6379"], credentialsSecretRef: {name: redis-auth}}}`)
	// Ready stays True only if it was True before the pod came.
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "True", "NoWorkloads") })
	pod := w.pod("web", "shop", func(p *corev1.Pod) { p.Annotations = map[string]string{idle: "true"} })
	w.create(pod)
	before := pod.DeepCopy()
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{ // what a kubelet says at first
		Name: render.ContainerName, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}},
	}}
	if err := w.c.Status().Patch(t.Context(), pod, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if c := is(cs, "BackendReachable", "Unknown", "Unknown"); c != "" {
			return c
		}
		return is(cs, "Ready", "True", "RollingOut") // pods start all day
	})
	const trouble = `MountVolume.SetUp failed for volume "sidecart-config" : secret "redis-auth" not found`
	w.create(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "web.1"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: w.namespace, Name: "web", UID: pod.UID},
		Reason:         "FailedMount", Message: trouble, Type: "Warning", LastTimestamp: metav1.Now(),
	})
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if m := condition(cs, "Ready").Message; !strings.Contains(m, trouble) {
			return "the kubelet's word is not told"
		}
		return is(cs, "Ready", "False", "SidecarNotStarted")
	})

	// Made: the kubelet mounts it, and the pod starts.
	pod = w.getPod("web")
	if err := w.nodes.report(t.Context(), pod, w.nodes.admit(pod)); err != nil {
		t.Fatal(err)
	}
	w.allUpdated("shop", 1)

	// Rotated: the password here is the old one until the kubelet has refreshed the volume.
	w.nodes.says(w.namespace, "web", func(r *Report) {
		r.Backend.Healthy, r.Backend.Message = false, "read tcp 10.1.2.3:41234->10.0.0.1:6379: WRONGPASS"
	})
	cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "BackendReachable", "False", "Unreachable") })
	if m := condition(cs, "BackendReachable").Message; m != "1 of 1 sidecars do not reach the backend; pod web: read tcp 10.1.2.3->10.0.0.1:6379: WRONGPASS" {
		t.Errorf("message is %q", m)
	}
	w.nodes.says(w.namespace, "web", nil)
	w.allUpdated("shop", 1)
}

// A pod whose volume was made before the configuration named another file must be created anew.
func TestPodLacksFile(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.deployment("web", "shop", 1)
	w.allUpdated("shop", 1)
	w.nodes.says(w.namespace, "web-1-1", func(r *Report) {
		r.Config.State, r.Config.Message = "ConfigRejected", "backend.redis.passwordFile: no such file"
	})
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) {
		cs.Spec.Backend.Redis.CredentialsSecretRef = &v1alpha1.RedisCredentials{Name: "redis-auth"}
	})
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		want := "pod web-1-1: the pod was made before the configuration named /etc/sidecart/secrets/redis-auth/password: restart its workload"
		if m := condition(cs, "ConfigAccepted").Message; !strings.Contains(m, want) {
			return "the message is " + m
		}
		return ""
	})
}

func TestLockingThatIsNotEffective(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("file", "backend: {type: Database, database: {dialect: SQLite, volume: {claimName: carts}}}")
	w.deployment("files", "file", 2)
	cs := w.settles("file", func(cs *v1alpha1.CartStorage) string {
		return is(cs, "LockingEffective", "False", "BackendCannotLock")
	})
	if m := condition(cs, "LockingEffective").Message; m != "Deployment files has 2 replicas, and backend Database cannot lock across replicas: run one pod, or use "+config.SharedNames() {
		t.Errorf("message is %q", m)
	}
	w.cartStorage("off", "locking: {mode: Disabled}")
	w.deployment("many", "off", 2)
	w.settles("off", func(cs *v1alpha1.CartStorage) string {
		if c := w.locks(cs, false, "Configured"); c != "" {
			return c
		}
		return is(cs, "LockingEffective", "False", "DisabledBySpec")
	})
}

// slipped makes pods as if the webhook were away: their label comes later.
func (w *world) slipped(app *app, n int) {
	w.t.Helper()
	for range n {
		app.made++
		name := app.name + "-slipped-" + strconv.Itoa(app.made)
		pod := w.pod(name, app.cartStorage, func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} },
			ownedBy(app.set, replicaSet))
		w.create(pod)
		update(w, name, &corev1.Pod{}, func(p *corev1.Pod) { p.Labels[v1alpha1.InjectLabel] = app.cartStorage })
	}
}

func (w *world) podNames() (names []string) {
	w.t.Helper()
	var pods corev1.PodList
	if err := w.c.List(w.t.Context(), &pods, client.InNamespace(w.namespace)); err != nil {
		w.t.Fatal(err)
	}
	for i := range pods.Items {
		names = append(names, pods.Items[i].Name)
	}
	return names
}

func TestMissingSidecar(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop", "locking: {mode: Enabled}")
	app := w.deployment("web", "shop", 1)
	w.allUpdated("shop", 1)
	w.slipped(app, 2)
	cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if len(cs.Status.Workloads) != 1 || cs.Status.Workloads[0].Replicas != 3 || cs.Status.Workloads[0].Sidecars != 1 {
			return "there are not 3 pods with 1 sidecar"
		}
		return is(cs, "Ready", "False", "SidecarMissing")
	})
	if m := condition(cs, "Ready").Message; !strings.HasPrefix(m, "2 of 3 pods have no sidecar; pod web-slipped-") {
		t.Errorf("message is %q", m)
	}
	if n := len(w.podNames()); n != 3 {
		t.Errorf("%d pods are left, although the resource says Report", n)
	}

	// A bare pod is left alone: nobody would make it anew.
	w.create(w.pod("bare", "shop", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} }))
	update(w, "bare", &corev1.Pod{}, func(p *corev1.Pod) { p.Labels[v1alpha1.InjectLabel] = "shop" })
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Injection.OnMissing = v1alpha1.RecreateMissing })
	w.eventually(func() string {
		if names := strings.Join(w.podNames(), " "); names != "bare web-1-1" {
			return "pods are " + names
		}
		return ""
	})

	// A pod that comes after an eviction, without a sidecar, shows that the webhook is not called here.
	w.slipped(app, 1)
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if m := condition(cs, "Ready").Message; !strings.Contains(m, "nothing more is evicted") {
			return "the message is " + m
		}
		return ""
	})
	if n := len(w.podNames()); n != 3 {
		t.Errorf("%d pods are left, want 3", n)
	}
}
