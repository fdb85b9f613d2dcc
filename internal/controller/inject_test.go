package controller

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admission "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// webhookCalls is how often the webhook for pods of this process was called.
func webhookCalls(t *testing.T) (n float64) {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "controller_runtime_webhook_requests_total" {
			for _, m := range f.Metric {
				for _, l := range m.GetLabel() {
					if l.GetName() == "webhook" && l.GetValue() == InjectPath {
						n += m.GetCounter().GetValue()
					}
				}
			}
		}
	}
	return n
}

// The result of a real API server is the golden pod of package render.
func TestInjectedIsGolden(t *testing.T) {
	w := newWorld(t)
	files, err := filepath.Glob("../render/testdata/pod-*.in.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".in.yaml")
		if name == "pod-critical" { // the API server refuses its CartStorage in this version
			continue
		}
		t.Run(name, func(t *testing.T) {
			in := read[struct {
				Generation  int64                  `json:"generation"`
				Locking     v1alpha1.LockingStatus `json:"locking"`
				CartStorage v1alpha1.CartStorage   `json:"cartStorage"`
				Pod         corev1.Pod             `json:"pod"`
			}](t, readFile(t, file))
			namespace := w.cluster.Namespace(t)
			in.CartStorage.Namespace, in.Pod.Namespace = namespace, namespace
			w.create(&in.CartStorage)
			t.Cleanup(func() { _ = w.c.Delete(t.Context(), &in.CartStorage) })
			if err := w.c.Create(t.Context(), &in.Pod, client.DryRunAll); err != nil {
				t.Fatal(err)
			}
			// The golden pod gets the API server's defaults where no webhook looks at it.
			want := &corev1.Pod{}
			if err := yaml.UnmarshalStrict([]byte(readFile(t, strings.Replace(file, ".in.", ".out.", 1))), want); err != nil {
				t.Fatal(err)
			}
			delete(want.Labels, v1alpha1.InjectLabel)
			want.Namespace = namespace
			if err := w.c.Create(t.Context(), want, client.DryRunAll); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(withoutToken(want), withoutToken(&in.Pod)); diff != "" {
				t.Errorf("(-golden +admitted):\n%s", diff)
			}
			if got := in.Pod.Annotations[v1alpha1.InjectedAnnotation]; got != in.CartStorage.Name {
				t.Errorf("annotation %s is %q", v1alpha1.InjectedAnnotation, got)
			}
		})
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// withoutToken drops the volume of the service account's token, whose name is random.
func withoutToken(pod *corev1.Pod) corev1.PodSpec {
	s, err := json.Marshal(pod.Spec)
	if err != nil {
		panic(err)
	}
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, "kube-api-access-") {
			s = []byte(strings.ReplaceAll(string(s), v.Name, "kube-api-access"))
		}
	}
	var spec corev1.PodSpec
	if err := json.Unmarshal(s, &spec); err != nil {
		panic(err)
	}
	return spec
}

func TestUnlabelledPodsNeverMeetTheWebhook(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	before := webhookCalls(t)
	for i := range 5 {
		w.create(w.pod(fmt.Sprintf("plain-%d", i), "shop", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} }))
	}
	w.create(w.pod("operator", "shop", func(p *corev1.Pod) { p.Labels["app.kubernetes.io/name"] = "sidecart-operator" }))
	if n := webhookCalls(t) - before; n != 0 {
		t.Errorf("the webhook was called %v times for pods without the label, and the operator's own", n)
	}
	w.create(w.pod("labelled", "shop"))
	if n := webhookCalls(t) - before; n != 1 {
		t.Errorf("the webhook was called %v times for one pod with the label", n)
	}
}

// An admitted pod that is created again, as a backup tool does, is as it was.
func TestSecondInvocation(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	first := w.pod("web", "shop", func(p *corev1.Pod) { p.Annotations = map[string]string{idle: "true"} })
	w.create(first)
	second := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "again", Namespace: w.namespace, Labels: first.Labels, Annotations: first.Annotations}}
	second.Spec = *first.Spec.DeepCopy()
	w.create(second)
	if diff := cmp.Diff(first.Spec, second.Spec); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
}

// Containers that another webhook adds after ours are told where the sidecar is.
func TestReinvocation(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	other := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var review admission.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		kind := admission.PatchTypeJSONPatch
		review.Response = &admission.AdmissionResponse{UID: review.Request.UID, Allowed: true, PatchType: &kind}
		review.Response.Patch = []byte(`[{"op": "add", "path": "/spec/containers/-", "value": {"name": "added", "image": "other:1"}}]`)
		review.Request = nil
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(review)
	}))
	defer other.Close()
	hook := read[admissionv1.MutatingWebhookConfiguration](t, `
metadata: {name: zz-added-later}
webhooks:
- name: added.example.com
  admissionReviewVersions: [v1]
  rules: [{apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}]
  objectSelector: {matchLabels: {added: later}}
  sideEffects: None
`)
	hook.Webhooks[0].ClientConfig = admissionv1.WebhookClientConfig{URL: &other.URL, CABundle: block("CERTIFICATE", other.Certificate().Raw)}
	if err := w.c.Create(t.Context(), hook); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.c.Delete(t.Context(), hook) }()
	w.eventually(func() string {
		pod := w.pod("web", "shop", func(p *corev1.Pod) { p.Labels["added"] = "later" })
		if err := w.c.Create(t.Context(), pod, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		if len(pod.Spec.Containers) != 2 {
			return "the API server does not call the other webhook yet"
		}
		if n := len(pod.Spec.InitContainers); n != 1 {
			t.Errorf("there are %d init containers, want the sidecar alone", n)
		}
		if env := pod.Spec.Containers[1].Env; len(env) != 2 || env[0].Name != render.HTTPURLVariable {
			t.Errorf("the added container has the variables %v", env)
		}
		return ""
	})
}

func TestJobPod(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	job := w.job("report", "shop")
	pod := w.pod("report-1", "shop", ownedBy(job, batchv1.SchemeGroupVersion.WithKind("Job")), func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.InitContainers = []corev1.Container{{Name: "prepare", Image: "shop:1"}}
	})
	w.create(pod)
	first := pod.Spec.InitContainers[0]
	if first.Name != render.ContainerName || *first.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Errorf("the first init container is %s, want a sidecar that ends with the others", first.Name)
	}
	if env := pod.Spec.InitContainers[1].Env; len(env) != 2 {
		t.Errorf("the pod's own init container has the variables %v", env)
	}
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if ws := cs.Status.Workloads; len(ws) != 1 || ws[0] != (v1alpha1.WorkloadStatus{Kind: "Job", Name: "report", Replicas: 1, Sidecars: 1, Updated: 1}) {
			return "the Job is not counted"
		}
		return is(cs, "Ready", "True", "AllUpdated")
	})
	// An ended pod writes no more.
	update := w.getPod("report-1")
	update.Status.Phase = corev1.PodSucceeded
	if err := w.c.Status().Update(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if cs.Status.Replicas != 0 {
			return "the ended pod is still counted"
		}
		return ""
	})
}

func TestHostileInput(t *testing.T) {
	w := newWorld(t)
	other := w.cluster.Namespace(t)
	w.cartStorage("shop", "locking: {mode: Disabled}")
	w.eventually(func() string {
		return message(w.c.Create(t.Context(), w.pod("fine", "shop"), client.DryRunAll))
	})
	ending := w.cartStorage("ending")
	update(w, "ending", ending, func(cs *v1alpha1.CartStorage) { cs.Finalizers = []string{"sidecart.dev/test"} })
	if err := w.c.Delete(t.Context(), ending); err != nil {
		t.Fatal(err)
	}
	defer update(w, "ending", ending, func(cs *v1alpha1.CartStorage) { cs.Finalizers = nil })
	w.eventually(func() string {
		if err := w.c.Create(t.Context(), w.pod("p", "ending"), client.DryRunAll); err == nil || !strings.Contains(err.Error(), "CartStorage ending is being deleted") {
			return fmt.Sprintf("a pod of a CartStorage that is being deleted: %v", err)
		}
		return ""
	})
	long := strings.Repeat("x", 63)
	for _, r := range []struct {
		name   string
		pod    *corev1.Pod
		refuse string // "" for an admitted one
	}{
		{"another namespace's", w.pod("p", "shop", func(p *corev1.Pod) { p.Namespace = other }),
			"there is no CartStorage shop in namespace " + other + ": create it, or name another one of this namespace"},
		{"with a path", w.pod("p", "shop", func(p *corev1.Pod) { p.Labels[v1alpha1.InjectLabel] = "a_b" }), `"a_b" is no name of a CartStorage`},
		{"empty", w.pod("p", ""), `"" is no name of a CartStorage`},
		{"long label", w.pod("p", long), "there is no CartStorage " + long},
		{"longest pod name", w.pod(strings.Repeat("p", 253), "shop"), ""},
		{"container of our name", w.pod("p", "shop", func(p *corev1.Pod) { p.Spec.Containers[0].Name = render.ContainerName }),
			"a container of the pod is called sidecart, as the sidecar would be: give it another name"},
		{"volume of our name", w.pod("p", "shop", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "sidecart-config", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		}), "a volume of the pod is called sidecart-config"},
		{"on the node's network", w.pod("p", "shop", func(p *corev1.Pod) { p.Spec.HostNetwork = true }), "remove hostNetwork"},
		{"says that it has one", w.pod("p", "shop", func(p *corev1.Pod) {
			p.Annotations = map[string]string{v1alpha1.InjectedAnnotation: "shop", v1alpha1.GenerationAnnotation: "9223372036854775807"}
		}), ""},
		{"several obstacles", w.pod("p", "shop", func(p *corev1.Pod) {
			p.Spec.HostNetwork = true
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 7420}}
		}), "set spec.sidecar.ports.grpc of CartStorage shop to another"},
	} {
		t.Run(r.name, func(t *testing.T) {
			err := w.c.Create(t.Context(), r.pod, client.DryRunAll)
			switch {
			case r.refuse == "" && err != nil:
				t.Errorf("refused: %v", err)
			case r.refuse == "" && !render.Injected(r.pod):
				t.Error("admitted without a sidecar")
			case r.refuse != "" && (err == nil || !strings.Contains(err.Error(), r.refuse)):
				t.Errorf("error is %v, want %q in it", err, r.refuse)
			}
		})
	}
}

// The pod that comes beside another one before the operator has decided locks from the start.
func TestScaleUpRace(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.create(w.pod("one", "shop"))
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, false, "SingleWriter") })
	w.allUpdated("shop", 1)
	if v := lockingOf(w.getPod("one")); v != "" {
		t.Errorf("the pod that is alone was given %s=%s", "SIDECART_LOCKING", v)
	}
	// A dry run is admitted like any other, and does not change the decision. So the last moment before the second pod
	// lasts for as long as the test likes.
	for range 3 {
		second := w.pod("two", "shop")
		if err := w.c.Create(t.Context(), second, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		if v := lockingOf(second); v != "enabled" {
			t.Errorf("the second pod was given SIDECART_LOCKING=%q, want enabled", v)
		}
	}
	if c := w.locks(w.get("shop"), false, "SingleWriter"); c != "" {
		t.Fatal("the decision has changed, so nothing was proved: " + c)
	}
	// The same pod again, as by a StatefulSet, does not count as a second one.
	again := w.pod("one", "shop")
	if err := w.c.Create(t.Context(), again, client.DryRunAll); err != nil && !strings.Contains(err.Error(), "already exists") {
		t.Fatal(err)
	}
	if v := lockingOf(again); v != "" {
		t.Errorf("the successor of the pod was given SIDECART_LOCKING=%s", v)
	}

	w.create(w.pod("two", "shop"))
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, true, "MultipleWorkloads") })
	third := w.pod("three", "shop")
	w.eventually(func() string {
		if err := w.c.Create(t.Context(), third, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		if v := lockingOf(third); v != "" { // the webhook's cache may be a moment behind
			third = w.pod("three", "shop")
			return "the file says it by now, and the pod was given SIDECART_LOCKING=" + v
		}
		return ""
	})
}

func lockingOf(pod *corev1.Pod) string {
	for _, c := range pod.Spec.InitContainers {
		for _, e := range c.Env {
			if e.Name == "SIDECART_LOCKING" {
				return e.Value
			}
		}
	}
	return ""
}

// A CartStorage that names an image which is not on the operator's list says so and gives no pod a sidecar. Its running
// sidecars are still configured.
func TestImageNotAllowed(t *testing.T) {
	images, err := render.ParseImages([]string{"registry.example.com/carts/"})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(o *Options) { o.SidecarImages = images })
	w.cartStorage("shop")
	w.deployment("web", "shop", 1)
	w.allUpdated("shop", 1)
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) {
		cs.Spec.Sidecar.Image, cs.Spec.Limits.MaxItems = "evil.example.com/shell:1", 7
	})
	cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string {
		if cs.Status.Sidecars != "1/1" {
			return "the running sidecar is not configured"
		}
		if c := is(cs, "ConfigAccepted", "False", "ImageNotAllowed"); c != "" {
			return c
		}
		return is(cs, "Ready", "False", "Degraded")
	})
	want := "spec.sidecar.image: evil.example.com/shell:1 is not on the operator's list of sidecar images"
	if m := condition(cs, "ConfigAccepted").Message; !strings.HasPrefix(m, want) {
		t.Errorf("message is %q", m)
	}
	if w.config("shop").Limits.MaxItems != 7 {
		t.Error("the running sidecar has the configuration before")
	}
	w.eventually(func() string {
		if err := w.c.Create(t.Context(), w.pod("more", "shop"), client.DryRunAll); err == nil || !strings.Contains(err.Error(), want) {
			return fmt.Sprintf("a pod: %v", err)
		}
		return ""
	})
	update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Sidecar.Image = "registry.example.com/carts/sidecar:1" })
	w.allUpdated("shop", 1)
	w.eventually(func() string { return message(w.c.Create(t.Context(), w.pod("more", "shop"), client.DryRunAll)) })
}
