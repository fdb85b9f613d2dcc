package controller

import (
	"context"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// All tests run the operator with the policies on. This one is about what they refuse to anybody who has its token.
func TestPolicies(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.deployment("web", "shop", 1)
	w.allUpdated("shop", 1)
	operator, err := client.New(w.asOperator(), client.Options{Scheme: Scheme()})
	if err != nil {
		t.Fatal(err)
	}

	// Objects that the cluster itself needs, as its controllers make them.
	plain := func(namespace, name string) *corev1.Pod {
		pod := w.pod(name, "shop")
		pod.Namespace, pod.Labels = namespace, map[string]string{"app": name}
		return pod
	}
	coredns, unlabelled := plain("kube-system", "coredns"), plain(w.namespace, "plain")
	foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}, Data: map[string]string{"a": "1"}}
	system := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "coredns"}, Data: map[string]string{"Corefile": "."}}
	w.create(coredns, unlabelled, foreign, system)
	t.Cleanup(func() {
		for _, o := range []client.Object{coredns, system} {
			_ = w.c.Delete(context.Background(), o, client.GracePeriodSeconds(0))
		}
	})
	ours := w.getPod("web-1-1")
	hook := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "sidecart"}}
	reviews := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "sidecart"}}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: render.ConfigMapName("shop")}}

	patch := func(o client.Object, body string) error {
		return operator.Patch(t.Context(), o.DeepCopyObject().(client.Object), client.RawPatch(types.JSONPatchType, []byte(body)), client.DryRunAll)
	}
	merge := func(o client.Object, body string) error {
		return operator.Patch(t.Context(), o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(body)), client.DryRunAll)
	}
	apply := func(namespace, name string, labels map[string]string) error {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}}
		return operator.Create(t.Context(), cm, client.DryRunAll)
	}
	evict := func(namespace, name string, uid *types.UID) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		e := &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}}
		if uid != nil {
			e.DeleteOptions.Preconditions = &metav1.Preconditions{UID: uid}
		}
		return operator.SubResource("eviction").Create(t.Context(), pod, e)
	}
	secret := func(name string, kind corev1.SecretType) error {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ownNamespace, Name: name}, Type: kind}
		s.Annotations = map[string]string{corev1.ServiceAccountNameKey: "default"}
		return operator.Create(t.Context(), s, client.DryRunAll)
	}
	our := map[string]string{managedBy: "sidecart", instance: "shop"}
	const (
		annotation  = `[{"op": "add", "path": "/metadata/annotations", "value": {"sidecart.dev/generation": "1"}}]`
		onlyOurPods = "changes only pods with the label sidecart.dev/inject"
		noMore      = "changes no more of a pod than its annotations"
		onlyCA      = "changes no more of its webhook's configuration than caBundle"
	)
	for _, r := range []struct {
		name string
		err  error
		want string // "" for what the operator does
	}{
		{"coredns", patch(coredns, annotation), onlyOurPods},
		{"coredns' image", patch(coredns, `[{"op": "replace", "path": "/spec/containers/0/image", "value": "evil:1"}]`), onlyOurPods},
		{"an unlabelled pod", patch(unlabelled, annotation), onlyOurPods},
		{"our label on an unlabelled pod", merge(unlabelled, `{"metadata": {"labels": {"sidecart.dev/inject": "shop"}}}`), onlyOurPods},
		{"a labelled pod's generation", merge(ours, `{"metadata": {"annotations": {"sidecart.dev/generation": "77"}}}`), ""},
		{"a labelled pod's image", patch(ours, `[{"op": "replace", "path": "/spec/containers/0/image", "value": "evil:1"}]`), noMore},
		{"a labelled pod's sidecar", patch(ours, `[{"op": "replace", "path": "/spec/initContainers/0/image", "value": "evil:1"}]`), noMore},
		{"a labelled pod's label", merge(ours, `{"metadata": {"labels": {"app": "db"}}}`), noMore},
		{"a labelled pod without its label", merge(ours, `{"metadata": {"labels": {"sidecart.dev/inject": null}}}`), noMore},
		{"a labelled pod's owner", merge(ours, `{"metadata": {"ownerReferences": null}}`), noMore},
		{"a labelled pod's finalizer", merge(ours, `{"metadata": {"finalizers": ["example.com/stay"]}}`), noMore},
		{"another annotation", merge(ours, `{"metadata": {"annotations": {"cni.example.com/ip": "10.0.0.1"}}}`), "writes no other annotation of a pod"},
		{"an annotation's removal", merge(ours, `{"metadata": {"annotations": {"sidecart.dev/injected": null}}}`), "writes no other annotation of a pod"},

		{"a foreign ConfigMap", merge(foreign, `{"data": {"a": "2"}}`), "touches no ConfigMap without the label"},
		{"a foreign ConfigMap made ours", merge(foreign, `{"metadata": {"labels": {"app.kubernetes.io/managed-by": "sidecart", "app.kubernetes.io/instance": "shop"}}}`), "touches no ConfigMap without the label"},
		{"coredns' ConfigMap", merge(system, `{"data": {"Corefile": "evil"}}`), "touches no ConfigMap without the label"},
		{"a foreign ConfigMap's removal", operator.Delete(t.Context(), foreign.DeepCopy(), client.DryRunAll), "touches no ConfigMap without the label"},
		{"a new ConfigMap of no label", apply(w.namespace, "new", nil), "writes only ConfigMaps with the label"},
		{"a new ConfigMap of another name", apply(w.namespace, "kube-root-ca.crt-2", our), "whose name is that of their CartStorage and -sidecart"},
		{"a new one of ours", apply(w.namespace, "other-sidecart", map[string]string{managedBy: "sidecart", instance: "other"}), ""},
		{"ours", merge(config, `{"data": {"config.yaml": "a"}}`), ""},
		{"ours without its label", merge(config, `{"metadata": {"labels": null}}`), "writes only ConfigMaps with the label"},
		{"ours for another", merge(config, `{"metadata": {"labels": {"app.kubernetes.io/instance": "b"}}}`), "whose name is that of their CartStorage"},
		{"our ConfigMap's removal", operator.Delete(t.Context(), config.DeepCopy(), client.DryRunAll), ""},

		{"caBundle", patch(hook, `[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": null}]`), ""},
		{"the webhook's rules", patch(hook, `[{"op": "replace", "path": "/webhooks/0/rules/0/resources", "value": ["*"]}]`), onlyCA},
		{"the webhook's namespaceSelector", patch(hook, `[{"op": "remove", "path": "/webhooks/0/namespaceSelector"}]`), onlyCA},
		{"the webhook's objectSelector", patch(hook, `[{"op": "replace", "path": "/webhooks/0/objectSelector", "value": {}}]`), onlyCA},
		{"the webhook's address", patch(hook, `[{"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": "https://evil.example.com/"}]`), onlyCA},
		{"the webhook's failurePolicy", patch(hook, `[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]`), onlyCA},
		{"the webhook's timeout", patch(hook, `[{"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 30}]`), onlyCA},
		{"the webhook's conditions", patch(hook, `[{"op": "add", "path": "/webhooks/0/matchConditions", "value": [{"name": "never", "expression": "false"}]}]`), onlyCA},
		{"another webhook", patch(hook, `[{"op": "copy", "from": "/webhooks/0", "path": "/webhooks/1"}, {"op": "replace", "path": "/webhooks/1/name", "value": "evil.sidecart.dev"}]`), onlyCA},
		{"no webhook", patch(hook, `[{"op": "remove", "path": "/webhooks/0"}]`), onlyCA},
		{"an annotation of the webhook", merge(hook, `{"metadata": {"annotations": {"cert-manager.io/inject-ca-from": "evil/evil"}}}`), onlyCA},

		{"caBundle of reviews", patch(reviews, `[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": null}]`), ""},
		{"the rules of reviews", patch(reviews, `[{"op": "replace", "path": "/webhooks/0/rules/0/resources", "value": ["*"]}]`), onlyCA},
		{"the failurePolicy of reviews", patch(reviews, `[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}]`), onlyCA},
		{"the address of reviews", patch(reviews, `[{"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": "https://evil.example.com/"}]`), onlyCA},
		{"no review", patch(reviews, `[{"op": "remove", "path": "/webhooks/0"}]`), onlyCA},

		{"an eviction", evict(w.namespace, ours.Name, &ours.UID), ""},
		{"an eviction of whatever is called so", evict(w.namespace, ours.Name, nil), "evicts a pod only by its UID"},
		{"an eviction of coredns", evict("kube-system", "coredns", &coredns.UID), "evicts no pod of kube-system"},

		{"another Secret", secret("token", corev1.SecretTypeServiceAccountToken), "writes no other Secret"},
		{"a token for another account", secret("sidecart-webhook-certificate", corev1.SecretTypeServiceAccountToken), "writes no other Secret"},
	} {
		switch {
		case r.want == "" && r.err != nil:
			t.Errorf("%s: %v", r.name, r.err)
		case r.want != "" && (r.err == nil || !strings.Contains(r.err.Error(), r.want) || !strings.Contains(r.err.Error(), "ValidatingAdmissionPolicy 'sidecart-operator-")):
			t.Errorf("%s: error is %v, want %q of a policy", r.name, r.err, r.want)
		}
	}

	// The policies bind nobody else.
	update(w, ours.Name, &corev1.Pod{}, func(p *corev1.Pod) { p.Annotations["a"] = "b" })
	update(w, "foreign", &corev1.ConfigMap{}, func(cm *corev1.ConfigMap) { cm.Data["a"] = "2" })
	if w.getPod(ours.Name).Labels[v1alpha1.InjectLabel] != "shop" {
		t.Error("the pod lost its label")
	}
}
