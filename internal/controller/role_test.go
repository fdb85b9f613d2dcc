package controller

import (
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// All tests run the operator as its own service account; this one is about what it may not do.
func TestRole(t *testing.T) {
	w := newWorld(t)
	clients, err := kubernetes.NewForConfig(w.asOperator())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		verb, resource, namespace, name string
		allowed                         bool
	}{
		{"get", "secrets", ownNamespace, "sidecart-webhook-certificate", true},
		{"update", "secrets", ownNamespace, "sidecart-webhook-certificate", true},
		{"get", "secrets", ownNamespace, "another", false},
		{"list", "secrets", ownNamespace, "", false},
		{"watch", "secrets", ownNamespace, "", false},
		{"get", "secrets", w.namespace, "redis-auth", false},
		{"list", "secrets", "", "", false},
		{"create", "secrets", w.namespace, "", false},
		{"create", "pods", w.namespace, "", false},
		{"delete", "pods", w.namespace, "web", false},
		{"create", "pods/exec", w.namespace, "web", false},
		{"create", "pods/eviction", w.namespace, "web", true},
		{"update", "deployments.apps", w.namespace, "web", false},
		{"patch", "deployments.apps", w.namespace, "web", false}, // see allowRollouts
		{"patch", "replicasets.apps", w.namespace, "web", false},
		{"patch", "replicasets.apps/status", w.namespace, "web", true},
		{"get", "rollouts.argoproj.io/scale", w.namespace, "web", true},
		{"update", "deployments.apps/scale", w.namespace, "web", false},
		{"get", "rollouts.argoproj.io", w.namespace, "web", false},
		{"patch", "cartstorages.sidecart.dev", w.namespace, "shop", false},
		{"patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "another", false},
		{"patch", "validatingwebhookconfigurations.admissionregistration.k8s.io", "", "sidecart", true},
		{"patch", "validatingwebhookconfigurations.admissionregistration.k8s.io", "", "another", false},
		{"create", "validatingwebhookconfigurations.admissionregistration.k8s.io", "", "", false},
		{"create", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "", false},
		{"create", "clusterroles.rbac.authorization.k8s.io", "", "", false},
		{"impersonate", "users", "", "admin", false},
		{"create", "serviceaccounts/token", ownNamespace, "default", false},
	} {
		resource, sub, _ := strings.Cut(r.resource, "/")
		resource, group, _ := strings.Cut(resource, ".")
		review := &authorizationv1.SelfSubjectAccessReview{}
		review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Verb: r.verb, Group: group, Resource: resource, Subresource: sub, Namespace: r.namespace, Name: r.name,
		}
		answer, err := clients.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status.Allowed != r.allowed {
			t.Errorf("%s %s %s/%s: allowed is %t, want %t", r.verb, r.resource, r.namespace, r.name, answer.Status.Allowed, r.allowed)
		}
	}
}
