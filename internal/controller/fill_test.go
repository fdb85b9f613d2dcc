package controller

import (
	"encoding/json"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// What is written beside a change: the former backend as it was, or "" for nothing.
func TestFiller(t *testing.T) {
	const (
		a    = "{spec: {keyPrefix: cart, orphanedCarts: Move, backend: {type: Redis, redis: {addresses: [\"a:1\"]}}}}"
		b    = "{spec: {keyPrefix: cart, orphanedCarts: Move, backend: {type: Redis, redis: {addresses: [\"b:1\"]}}}}"
		c    = "{spec: {keyPrefix: cart, orphanedCarts: Move, backend: {type: Redis, redis: {addresses: [\"c:1\"]}}}}"
		ofA  = `{"backend":{"redis":{"addresses":["a:1"]},"type":"Redis"},"keyPrefix":"cart"}`
		ofB  = `{"backend":{"redis":{"addresses":["b:1"]},"type":"Redis"},"keyPrefix":"cart"}`
		from = "moveFrom: {keyPrefix: cart, backend: {type: Redis, redis: {addresses: [\"a:1\"]}}}}}"
	)
	moving := strings.Replace(b, "}}}}", "}}, "+from, 1) // from a to b
	for _, r := range []struct {
		name, was, is string
		state         v1alpha1.MoveState
		id            string // "" is that of was
		want          string
		denied        string
	}{
		{"nothing changes", a, a, "", "", "", ""},
		{"another place", a, b, "", "", ofA, ""},
		{"another place, not to move", a, strings.Replace(b, "Move", "Accept", 1), "", "", "", ""},
		{"another prefix", a, strings.Replace(a, "keyPrefix: cart", "keyPrefix: shop", 1), "", "", ofA, ""},
		{"written by hand", a, moving, "", "", "", ""},
		{"dropped meanwhile", moving, b, v1alpha1.MoveMoving, "", ofA, ""},
		{"dropped after the end", moving, b, v1alpha1.MoveFinished, "", "", ""},
		{"back", moving, a, v1alpha1.MoveMoving, "", ofB, ""},
		{"on to a third", moving, c, v1alpha1.MoveMoving, "", "", "carts still move here from moveFrom"},
		{"on to a third, before it was seen", moving, c, "", "", "", "carts still move here from moveFrom"},
		{"on to a third, after the end of another move", moving, c, v1alpha1.MoveFinished, "another", "", "carts still move here from moveFrom"},
		{"on to a third, after the end", moving, c, v1alpha1.MoveFinished, "", ofB, ""},
	} {
		was := read[v1alpha1.CartStorage](t, r.was)
		if r.state != "" {
			was.Status.Move = &v1alpha1.MoveStatus{State: r.state, ID: r.id}
			if r.id == "" {
				was.Status.Move.ID = render.MoveID(was)
			}
		}
		raw, err := json.Marshal(was)
		if err != nil {
			t.Fatal(err)
		}
		is, err := yaml.YAMLToJSON([]byte(r.is))
		if err != nil {
			t.Fatal(err)
		}
		got := (&Filler{}).Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
			Operation: admissionv1.Update, OldObject: runtime.RawExtension{Raw: raw}, Object: runtime.RawExtension{Raw: is},
		}})
		if got.Allowed != (r.denied == "") || r.denied != "" && !strings.Contains(got.Result.Message, r.denied) {
			t.Errorf("%s: %+v", r.name, got.AdmissionResponse)
		}
		text := ""
		for _, p := range got.Patches {
			if !strings.HasPrefix(p.Path, "/spec/moveFrom") {
				t.Errorf("%s: %s is changed", r.name, p.Path)
			}
			value, err := json.Marshal(p.Value)
			if err != nil {
				t.Fatal(err)
			}
			text += string(value)
		}
		if text != r.want {
			t.Errorf("%s: moveFrom becomes %s, want %s", r.name, text, r.want)
		}
	}
}
