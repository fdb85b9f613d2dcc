package charts

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/controller"
	"github.com/sidecart/sidecart/internal/envtest"
)

// release is the chart in a cluster.
type release struct {
	t          *testing.T
	c          *envtest.Cluster
	kubeconfig string
	namespace  string
}

func (r *release) helm(args ...string) (message string, err error) {
	r.t.Helper()
	out, message, err := helm(r.t, r.kubeconfig, append(args, "--namespace", r.namespace)...)
	return out + message, err
}

func (r *release) must(args ...string) string {
	r.t.Helper()
	message, err := r.helm(args...)
	if err != nil {
		r.t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, message)
	}
	return message
}

func (r *release) get(o client.Object, namespace, name string) {
	r.t.Helper()
	if err := r.c.Client.Get(r.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, o); err != nil {
		r.t.Fatalf("get %s: %v", name, err)
	}
}

// bundle is the authority that the API server trusts.
func (r *release) bundle() []byte {
	r.t.Helper()
	hook := &admissionv1.MutatingWebhookConfiguration{}
	r.get(hook, "", "sidecart")
	return hook.Webhooks[0].ClientConfig.CABundle
}

// The life of a release: what it must not take from others, what an upgrade keeps, and what outlives it.
func TestRelease(t *testing.T) {
	c := cluster(t)
	r := &release{t: t, c: c, kubeconfig: kubeconfig(t, c), namespace: c.Namespace(t)}
	shop := c.Namespace(t)

	// An older version of the CRD, without its short name.
	c.Kubectl(t, "delete", "crd", "cartstorages.sidecart.dev")
	older := olderChart(t)
	defer func() { _, _ = r.helm("uninstall", "sidecart", "--ignore-not-found") }()
	message := r.must("install", "sidecart", older)
	for _, want := range []string{"helm test sidecart --namespace " + r.namespace, "sidecart.dev/inject: shop"} {
		if !strings.Contains(message, want) {
			t.Errorf("the notes do not say %q:\n%s", want, message)
		}
	}
	c.Kubectl(t, "wait", "--for", "condition=Established", "crd/cartstorages.sidecart.dev")
	cs := &v1alpha1.CartStorage{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "shop"}}
	cs.Spec.Backend = v1alpha1.Backend{Type: v1alpha1.BackendMemory, Memory: &v1alpha1.MemoryBackend{}}
	if err := c.Client.Create(t.Context(), cs); err != nil {
		t.Fatal(err)
	}
	authority := []byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
	r.operatorWrites(authority)

	t.Run("a second release is refused", func(t *testing.T) {
		other := &release{t: t, c: c, kubeconfig: r.kubeconfig, namespace: c.Namespace(t)}
		if message, err := other.helm("install", "other", chart); err == nil || !strings.Contains(message, "cannot be imported into the current release") {
			t.Errorf("error %v\n%s", err, message)
		}
	})

	t.Run("upgrade", func(t *testing.T) {
		r.must("upgrade", "sidecart", chart, "--set", "replicas=3", "--set", "webhook.timeoutSeconds=7")
		deployment := &appsv1.Deployment{}
		r.get(deployment, r.namespace, "sidecart-operator")
		if *deployment.Spec.Replicas != 3 {
			t.Errorf("%d replicas, want 3", *deployment.Spec.Replicas)
		}
		if s := deployment.Spec.Strategy.RollingUpdate; s.MaxUnavailable.IntValue() != 0 || s.MaxSurge.IntValue() != 1 {
			t.Errorf("the rolling update may take %s and add %s", s.MaxUnavailable, s.MaxSurge)
		}
		if got := r.bundle(); !bytes.Equal(got, authority) {
			t.Errorf("the authority that the operator wrote is gone; there is %q", got)
		}
		if names := c.Kubectl(t, "get", "crd", "cartstorages.sidecart.dev", "--output", "jsonpath={.spec.names.shortNames}"); !strings.Contains(names, "cst") {
			t.Errorf("the CRD was not upgraded: short names are %s", names)
		}
		r.get(&v1alpha1.CartStorage{}, shop, "shop")
	})

	t.Run("upgrade by the client, as Helm 3 does", func(t *testing.T) {
		r.must("upgrade", "sidecart", chart, "--server-side=false", "--set", "webhook.timeoutSeconds=8")
		if got := r.bundle(); !bytes.Equal(got, authority) {
			t.Errorf("the authority that the operator wrote is gone; there is %q", got)
		}
	})

	t.Run("rollback", func(t *testing.T) {
		r.must("rollback", "sidecart", "1")
		if got := r.bundle(); !bytes.Equal(got, authority) {
			t.Errorf("the authority that the operator wrote is gone; there is %q", got)
		}
	})

	t.Run("uninstall", func(t *testing.T) {
		r.must("uninstall", "sidecart")
		for _, gone := range []client.Object{
			&admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "sidecart"}},
			&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "sidecart-operator"}},
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "sidecart-operator"}},
		} {
			if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(gone), gone); !apierrors.IsNotFound(err) {
				t.Errorf("%T %s is still there: %v", gone, gone.GetName(), err)
			}
		}
		r.get(&v1alpha1.CartStorage{}, shop, "shop")
	})

	t.Run("install again", func(t *testing.T) {
		r.must("install", "sidecart", chart)
		r.get(&v1alpha1.CartStorage{}, shop, "shop")
		r.must("uninstall", "sidecart")
	})

	t.Run("take over what was applied without Helm", func(t *testing.T) {
		c.Kubectl(t, "apply", "--server-side", "--force-conflicts", "--kustomize", "../config")
		before := &appsv1.Deployment{}
		r := &release{t: t, c: c, kubeconfig: r.kubeconfig, namespace: namespace}
		r.get(before, namespace, "sidecart-operator")
		r.must("install", "sidecart", chart, "--take-ownership", "--force-conflicts")
		after := &appsv1.Deployment{}
		r.get(after, namespace, "sidecart-operator")
		if after.UID != before.UID || after.Spec.Template.Spec.Containers[0].Image == before.Spec.Template.Spec.Containers[0].Image {
			t.Errorf("the Deployment was not taken over")
		}
		r.must("uninstall", "sidecart")
	})

	t.Run("take over from a release of another name", func(t *testing.T) {
		moved := &release{t: t, c: c, kubeconfig: r.kubeconfig, namespace: c.Namespace(t)}
		if message, err := moved.helm("install", "carts", chart); err == nil || !strings.Contains(message, "cartstorages.sidecart.dev") {
			t.Errorf("error %v\n%s", err, message)
		}
		moved.must("install", "carts", chart, "--take-ownership")
		r.get(&v1alpha1.CartStorage{}, shop, "shop")
		moved.must("uninstall", "carts")
	})
}

// operatorWrites writes into the webhook's configuration what the operator writes there.
func (r *release) operatorWrites(authority []byte) {
	r.t.Helper()
	hook := &admissionv1.MutatingWebhookConfiguration{}
	r.get(hook, "", "sidecart")
	before := hook.DeepCopy()
	hook.Webhooks[0].ClientConfig.CABundle = authority
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.c.Client.Patch(r.t.Context(), hook, patch, client.FieldOwner(controller.FieldOwner)); err != nil {
		r.t.Fatal(err)
	}
}

// olderChart is this chart with a CRD that lacks something.
func olderChart(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sidecart")
	if err := os.CopyFS(dir, os.DirFS(chart)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "templates", "crd.yaml")
	text := read(t, file)
	older := strings.Replace(text, "    shortNames:\n    - cst\n", "", 1)
	if older == text {
		t.Fatal("the CRD has no short name to leave out")
	}
	if err := os.WriteFile(file, []byte(older), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
