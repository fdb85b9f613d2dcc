package charts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// On named namespaces the operator works with Roles only: it serves these namespaces, and may not even look at others.
func TestNamedNamespaces(t *testing.T) {
	c := cluster(t)
	r := &release{t: t, c: c, kubeconfig: kubeconfig(t, c), namespace: c.Namespace(t)}
	kept, second, other := c.Namespace(t), c.Namespace(t), c.Namespace(t)
	values := []string{"--set", fmt.Sprintf("watchNamespaces={%s,%s}", kept, second)}
	r.must(append([]string{"install", "sidecart", chart, "--take-ownership"}, values...)...)
	defer r.must("uninstall", "sidecart")

	err := c.Client.Get(t.Context(), client.ObjectKey{Name: "sidecart-operator"}, &rbacv1.ClusterRole{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("there is a ClusterRole for the namespaces: %v", err)
	}
	account := "system:serviceaccount:" + r.namespace + ":sidecart-operator"
	for _, q := range []struct {
		namespace, verb, resource string
		allowed                   bool
	}{
		{kept, "list", "pods", true},
		{second, "create", "configmaps", true},
		{kept, "list", "cartstorages.sidecart.dev", true},
		{other, "list", "pods", false},
		{other, "list", "cartstorages.sidecart.dev", false},
		{other, "create", "configmaps", false},
		{"", "list", "pods", false},
		{"", "list", "namespaces", false},
		{"", "list", "nodes", false},
	} {
		args := []string{"auth", "can-i", q.verb, q.resource, "--as", account}
		if q.namespace == "" {
			args = append(args, "--all-namespaces")
		} else {
			args = append(args, "--namespace", q.namespace)
		}
		out, _, _ := c.TryKubectl(t, "", args...) // "no" is an error
		if got := strings.TrimSpace(out) == "yes"; got != q.allowed {
			t.Errorf("%s %s in %q: %s", q.verb, q.resource, q.namespace, out)
		}
	}
	hook, reviews := &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{}
	r.get(hook, "", "sidecart")
	r.get(reviews, "", "sidecart")
	for _, s := range []*metav1.LabelSelector{hook.Webhooks[0].NamespaceSelector, reviews.Webhooks[0].NamespaceSelector} {
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		for namespace, want := range map[string]bool{kept: true, second: true, other: false, r.namespace: false} {
			if got := selector.Matches(labels.Set{corev1.LabelMetadataName: namespace}); got != want {
				t.Errorf("the webhook is asked about namespace %s: %t, want %t", namespace, got, want)
			}
		}
	}

	o := startOperator(t, r, arguments(t, values...)...)
	for _, namespace := range []string{kept, second, other} {
		cs := &v1alpha1.CartStorage{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shop"}}
		cs.Spec.Backend = v1alpha1.Backend{Type: v1alpha1.BackendMemory, Memory: &v1alpha1.MemoryBackend{}}
		if err := c.Client.Create(t.Context(), cs); err != nil {
			t.Fatal(err)
		}
	}
	for _, namespace := range []string{kept, second} {
		err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
			cs := &v1alpha1.CartStorage{}
			err := errors.Join(
				c.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "shop-sidecart"}, &corev1.ConfigMap{}),
				c.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "shop"}, cs))
			return err == nil && cs.Status.ObservedGeneration == cs.Generation, nil
		})
		if err != nil {
			t.Errorf("the CartStorage of %s is not kept: %v\n%s", namespace, err, o.log.String())
		}
	}
	err = c.Client.Get(t.Context(), client.ObjectKey{Namespace: other, Name: "shop-sidecart"}, &corev1.ConfigMap{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("a namespace of others: %v", err)
	}
	o.stop() // and nothing was forbidden to it
	if len(r.bundle()) == 0 {
		t.Error("the operator wrote no authority")
	}
}

// The pods of helm test are in a namespace that the operator serves.
func TestHelmTestIsKept(t *testing.T) {
	for _, o := range objects(t, template(t, "--set", "watchNamespaces={shop,closed}", "--show-only", "templates/tests/cart.yaml")) {
		if o.GetNamespace() != "shop" {
			t.Errorf("%s is in namespace %s", name(o), o.GetNamespace())
		}
	}
}
