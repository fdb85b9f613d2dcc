package controller

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// The sidecars' reports of how safe carts are become a condition, and the CartStorage stays ready.
func TestBackendDurable(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop")
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "BackendDurable", "Unknown", "NoWorkloads") })
	w.deployment("web", "shop", 2)
	w.allUpdated("shop", 2)
	for _, test := range []struct {
		name           string
		warnings       []Warning
		status, reason string
		message        string
	}{
		{"evicted", []Warning{{"CartsEvicted", "7 are gone."}, {"EvictionPolicy", "It forgets\ncarts."}}, "False", "CartsEvicted",
			"1 of 2 sidecars warn that carts may be lost; pod web-1-2: 7 are gone. It forgets carts."},
		{"one machine", []Warning{{"NoWakeUps", "It is slow."}, {"OneMachine", "It is alone."}}, "False", "OneMachine",
			"1 of 2 sidecars warn that carts may be lost; pod web-1-2: It is alone."},
		{"unknown", []Warning{{"UnknownEviction", "It does not say."}}, "Unknown", "UnknownEviction",
			"1 of 2 sidecars cannot find out how safe carts are; pod web-1-2: It does not say."},
		{"slow and full", []Warning{{"NoWakeUps", "It is slow."}, {"ExpiredStay", "It is full."}}, "True", "Durable", "no sidecar has anything to say against how carts are kept"},
		{"none", []Warning{}, "True", "Durable", "no sidecar has anything to say against how carts are kept"},
		{"too much", append([]Warning{{"no code", "x"}, {strings.Repeat("A", 5000), "x"}, {"", "x"}}, Warning{"NotDurable", strings.Repeat("x", 5000)}), "False", "NotDurable",
			"1 of 2 sidecars warn that carts may be lost; pod web-1-2: " + strings.Repeat("x", 400) + "…"},
	} {
		w.nodes.says(w.namespace, "web-1-2", func(r *Report) { r.Backend.Warnings = test.warnings })
		update(w, "shop", &v1alpha1.CartStorage{}, func(cs *v1alpha1.CartStorage) { cs.Spec.Limits.MaxItems++ }) // has them asked now
		cs := w.settles("shop", func(cs *v1alpha1.CartStorage) string {
			for _, wrong := range []string{is(cs, "BackendDurable", metav1.ConditionStatus(test.status), test.reason), is(cs, "Ready", "True", "AllUpdated")} {
				if wrong != "" {
					return test.name + ": " + wrong
				}
			}
			return ""
		})
		if m := condition(cs, "BackendDurable").Message; m != test.message {
			t.Errorf("%s: message is %q, want %q", test.name, m, test.message)
		}
	}
}
