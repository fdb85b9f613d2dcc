package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/envtest"
	"github.com/sidecart/sidecart/internal/render"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	os.Exit(envtest.Main(m))
}

// forbidden fails a test when the operator's log tells of something that its role does not allow.
type forbidden struct {
	slog.Handler
	t testing.TB
}

func (f forbidden) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	if strings.Contains(line, "forbidden") && !strings.Contains(line, "being terminated") {
		f.t.Errorf("the operator's log says: %s", line)
	}
	return nil
}
func (f forbidden) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (f forbidden) WithAttrs(a []slog.Attr) slog.Handler {
	return forbidden{f.Handler.WithAttrs(a), f.t}
}
func (f forbidden) WithGroup(g string) slog.Handler { return forbidden{f.Handler.WithGroup(g), f.t} }

const ownNamespace = "sidecart-system"

// world is a cluster with an operator, and with nodes that do what kubelets do.
type world struct {
	t         testing.TB
	c         client.Client
	cluster   *envtest.Cluster
	namespace string
	nodes     *nodes
	stop      func()
	probes    string
	hook      string // where the webhook is served
	options   []func(*Options)
}

// newWorld starts an operator that may do what its role says, and stops it with the test.
func newWorld(t testing.TB, options ...func(*Options)) *world {
	t.Helper()
	cluster := envtest.Start(t)
	w := &world{t: t, cluster: cluster, namespace: cluster.Namespace(t), options: options}
	w.c = asAdmin(t, cluster)
	installed.Do(w.install)
	w.nodes = newNodes(t, cluster)
	w.start()
	t.Cleanup(func() { w.clear() })
	return w
}

// asAdmin is a client without a limit of its own.
func asAdmin(t testing.TB, cluster *envtest.Cluster) client.Client {
	t.Helper()
	c := rest.CopyConfig(cluster.Config)
	c.QPS = -1
	admin, err := client.NewWithWatch(c, client.Options{Scheme: Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return admin
}

// installed is for the cluster, which all tests share.
var installed sync.Once

// install applies the manifests that a user applies.
func (w *world) install() {
	w.t.Helper()
	root := filepath.Join("..", "..", "config")
	for _, file := range []string{"operator/namespace.yaml", "rbac/operator_role.yaml", "policy/operator_policy.yaml", "operator/webhook.yaml"} {
		data, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			w.t.Fatal(err)
		}
		if message, err := w.cluster.Apply(w.t, ownNamespace, string(data)); err != nil {
			w.t.Fatalf("apply %s: %v\n%s", file, err, message)
		}
	}
	w.awaitPolicies()
}

// awaitPolicies waits until the API server heeds the policies, which it learns a moment after they were applied.
func (w *world) awaitPolicies() {
	w.t.Helper()
	operator, err := client.New(w.asOperator(), client.Options{Scheme: Scheme()})
	if err != nil {
		w.t.Fatal(err)
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "of-others"}}
	w.eventually(func() string {
		if err := operator.Create(w.t.Context(), cm.DeepCopy(), client.DryRunAll); err == nil || !strings.Contains(err.Error(), "sidecart-operator-configmaps") {
			return fmt.Sprintf("a ConfigMap of others: %v", err)
		}
		return ""
	})
}

// asOperator is how the operator reaches the API server: as its own service account.
func (w *world) asOperator() *rest.Config {
	w.t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ownNamespace, Name: "sidecart-operator"}}
	day := int64(24 * 60 * 60) // an ordinary one ends after an hour, which a long test outlives
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &day}}
	if err := w.c.SubResource("token").Create(w.t.Context(), account, token); err != nil {
		w.t.Fatal(err)
	}
	c := rest.AnonymousClientConfig(w.cluster.Config)
	c.BearerToken = token.Status.Token
	return c
}

// start runs an operator; it is ready when this returns.
func (w *world) start() {
	w.t.Helper()
	port := freePort(w.t)
	o := Options{
		Namespace:      ownNamespace,
		SidecarImage:   "sidecart:1",
		MetricsAddress: "0",
		ProbeAddress:   fmt.Sprintf("127.0.0.1:%d", freePort(w.t)),
		Resync:         2 * time.Second,
		Logger:         logr.FromSlogHandler(forbidden{slog.DiscardHandler, w.t}),
		Webhook: WebhookOptions{
			Host: "127.0.0.1", Port: port,
			Configuration: "sidecart", Secret: "sidecart-webhook-certificate", Hosts: []string{"127.0.0.1"},
		},
		shared: true,
	}
	for _, change := range w.options {
		change(&o)
	}
	w.hook = fmt.Sprintf("https://127.0.0.1:%d%s", port, InjectPath)
	w.pointWebhook(w.hook)
	ctx, cancel := context.WithCancel(context.Background())
	mgr, err := New(ctx, w.asOperator(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				w.t.Errorf("the operator ended with %v", err)
			}
		})
	}
	w.t.Cleanup(w.stop)
	w.probes = "http://" + o.ProbeAddress
	w.eventually(func() string {
		resp, err := http.Get(w.probes + "/readyz")
		if err != nil {
			return err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return resp.Status
		}
		return ""
	})
}

// pointWebhook has the API server call the webhook here, where there are no Services.
func (w *world) pointWebhook(url string) {
	w.t.Helper()
	hook := &admissionv1.MutatingWebhookConfiguration{}
	if err := w.c.Get(w.t.Context(), client.ObjectKey{Name: "sidecart"}, hook); err != nil {
		w.t.Fatal(err)
	}
	there := strings.TrimSuffix(url, InjectPath)
	move, review := there+MovePath, there+ReviewPath
	for i, url := range []*string{&url, &move} {
		c := &hook.Webhooks[i].ClientConfig
		c.Service, c.URL = nil, url
	}
	if err := w.c.Update(w.t.Context(), hook); err != nil {
		w.t.Fatal(err)
	}
	reviews := &admissionv1.ValidatingWebhookConfiguration{}
	if err := w.c.Get(w.t.Context(), client.ObjectKey{Name: "sidecart"}, reviews); err != nil {
		w.t.Fatal(err)
	}
	c := &reviews.Webhooks[0].ClientConfig
	c.Service, c.URL = nil, &review
	if err := w.c.Update(w.t.Context(), reviews); err != nil {
		w.t.Fatal(err)
	}
}

// clear leaves nothing for the operator of the next test.
func (w *world) clear() {
	w.stop()
	w.nodes.stop()
	ctx := context.Background()
	in := client.InNamespace(w.namespace)
	now := client.GracePeriodSeconds(0)
	var pods corev1.PodList
	if err := w.c.List(ctx, &pods, in); err == nil {
		for i := range pods.Items {
			if pod := &pods.Items[i]; len(pod.Finalizers) > 0 {
				pod.Finalizers = nil
				_ = w.c.Update(ctx, pod)
			}
		}
	}
	for _, o := range []client.Object{&v1alpha1.CartStorage{}, &corev1.Pod{}, &corev1.ConfigMap{}} {
		if err := w.c.DeleteAllOf(ctx, o, in, now); err != nil {
			w.t.Errorf("clear: %v", err)
		}
	}
	for _, k := range workloadKinds {
		if err := w.c.DeleteAllOf(ctx, k.one(), in, now); err != nil {
			w.t.Errorf("clear: %v", err)
		}
	}
}

// eventually waits until check finds nothing wrong.
func (w *world) eventually(check func() string) {
	w.t.Helper()
	w.within(30*time.Second, check)
}

func (w *world) within(limit time.Duration, check func() string) {
	w.t.Helper()
	within(w.t, limit, check)
}

func within(t testing.TB, limit time.Duration, check func() string) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond) // each look costs the API server that the operator needs
	defer tick.Stop()
	for {
		complaint := check()
		if complaint == "" {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("after %s: %s", limit, complaint)
		case <-tick.C:
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func read[T any](t testing.TB, text string) *T {
	t.Helper()
	v := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (w *world) create(objects ...client.Object) {
	w.t.Helper()
	for _, o := range objects {
		if o.GetNamespace() == "" {
			o.SetNamespace(w.namespace)
		}
		if err := w.c.Create(w.t.Context(), o); err != nil {
			w.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
}

// cartStorage creates one on Redis, with the admin port of the nodes here. Settings are more lines of its spec.
func (w *world) cartStorage(name string, settings ...string) *v1alpha1.CartStorage {
	w.t.Helper()
	spec := fmt.Sprintf("backend: {type: Redis, redis: {addresses: [\"redis-%s.%s:6379\"]}}\nsidecar: {ports: {admin: %d}}\n", name, w.namespace, w.nodes.port)
	for _, s := range settings {
		if strings.HasPrefix(s, "backend:") {
			spec = fmt.Sprintf("sidecar: {ports: {admin: %d}}\n", w.nodes.port)
		}
	}
	cs := &v1alpha1.CartStorage{ObjectMeta: metav1.ObjectMeta{Name: name}}
	cs.Spec = *read[v1alpha1.CartStorageSpec](w.t, spec+strings.Join(settings, "\n"))
	w.create(cs)
	return cs
}

func (w *world) get(name string) *v1alpha1.CartStorage {
	w.t.Helper()
	cs := &v1alpha1.CartStorage{}
	if err := w.c.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, cs); err != nil {
		w.t.Fatal(err)
	}
	return cs
}

func (w *world) configMap(name string) *corev1.ConfigMap {
	w.t.Helper()
	cm, err := currentConfig(w.t.Context(), w.c, w.namespace, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return cm
}

// config is what the sidecars of a CartStorage find in their volume.
func (w *world) config(name string) *config.Config {
	w.t.Helper()
	cm := w.configMap(name)
	if cm == nil {
		w.t.Fatalf("no ConfigMap of %s", name)
	}
	c, err := config.Load([]byte(cm.Data["config.yaml"]))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// update changes an object and writes it, again if somebody was faster.
func update[T client.Object](w *world, name string, o T, change func(T)) {
	w.t.Helper()
	w.eventually(func() string {
		if err := w.c.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, o); err != nil {
			w.t.Fatal(err)
		}
		change(o)
		err := w.c.Update(w.t.Context(), o)
		if err != nil && !apierrors.IsConflict(err) {
			w.t.Fatal(err)
		}
		return message(err)
	})
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// settles waits for a status that satisfies check.
func (w *world) settles(name string, check func(*v1alpha1.CartStorage) string) *v1alpha1.CartStorage {
	w.t.Helper()
	var cs *v1alpha1.CartStorage
	w.eventually(func() string {
		cs = w.get(name)
		if cs.Status.ObservedGeneration != cs.Generation {
			return fmt.Sprintf("generation %d of %s is not seen yet", cs.Generation, name)
		}
		if complaint := check(cs); complaint != "" {
			status, _ := json.MarshalIndent(cs.Status, "", " ")
			return fmt.Sprintf("%s: %s; status is %s", name, complaint, status)
		}
		return ""
	})
	return cs
}

// is complains unless the condition has that status and reason.
func is(cs *v1alpha1.CartStorage, kind string, status metav1.ConditionStatus, reason string) string {
	c := condition(cs, kind)
	if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != cs.Generation {
		return fmt.Sprintf("%s is not %s with reason %s", kind, status, reason)
	}
	return ""
}

// locks complains unless the decision is that, in the status and in the ConfigMap.
func (w *world) locks(cs *v1alpha1.CartStorage, enabled bool, reason string) string {
	if l := cs.Status.Locking; l == nil || l.Enabled != enabled || l.Reason != reason {
		return fmt.Sprintf("locking is not %t for %s", enabled, reason)
	}
	if cm := w.configMap(cs.Name); render.Locks(cm) != enabled {
		return fmt.Sprintf("the ConfigMap does not say that locking is %t", enabled)
	}
	return ""
}

func (w *world) allUpdated(name string, pods int) *v1alpha1.CartStorage {
	w.t.Helper()
	return w.settles(name, func(cs *v1alpha1.CartStorage) string {
		if want := fmt.Sprintf("%d/%d", pods, pods); cs.Status.Sidecars != want {
			return "sidecars are not " + want
		}
		return is(cs, "Ready", "True", "AllUpdated")
	})
}
