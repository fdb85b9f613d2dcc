package proxy

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sidecart/sidecart/docs"
	"github.com/sidecart/sidecart/internal/cart"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// TestEveryOperationIsAVerb: a batch knows each operation that its message has.
func TestEveryOperationIsAVerb(t *testing.T) {
	fields := (*pb.Operation)(nil).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	for i := range fields.Len() {
		o := new(pb.Operation)
		m := o.ProtoReflect()
		m.Set(fields.Get(i), m.NewField(fields.Get(i)))
		if _, err := operation("operations[0]", o, cart.DefaultLimits()); err != nil && strings.Contains(err.Error(), "exactly one operation") {
			t.Errorf("%s: %v", fields.Get(i).JSONName(), err)
		}
	}
}

// TestEveryCallIsDocumented: docs/api.md has a row for each call, and the OpenAPI document has the headers of each that
// takes conditions or a lease.
func TestEveryCallIsDocumented(t *testing.T) {
	manual, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	type operation struct {
		OperationID string `json:"operationId"`
		Parameters  []struct{ Name, In string }
	}
	var document struct {
		Paths map[string]map[string]operation
	}
	if err := json.Unmarshal(docs.OpenAPI, &document); err != nil {
		t.Fatal(err)
	}
	headers := map[string][]string{}
	for _, path := range document.Paths {
		for _, o := range path {
			for _, p := range o.Parameters {
				if p.In == "header" {
					headers[o.OperationID] = append(headers[o.OperationID], p.Name)
				}
			}
		}
	}
	fields := map[protoreflect.Name]string{
		"if_match": "If-Match", "if_none_match": "If-None-Match", "lease": "Sidecart-Lease", "release": "Sidecart-Release", "minimal": "Prefer", "idempotency_key": "Idempotency-Key",
	}
	methods := pb.File_sidecart_v1_service_proto.Services().Get(0).Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		if name := string(m.Name()); !strings.Contains(string(manual), "| "+name+" |") {
			t.Errorf("docs/api.md has no row for %s", name)
		}
		for field, header := range fields {
			if m.Input().Fields().ByName(field) != nil && !slices.Contains(headers[string(m.Name())], header) {
				t.Errorf("%s takes %s, which proto/sidecart/v1/openapi.yaml does not name", m.Name(), header)
			}
		}
		for _, field := range []protoreflect.Name{"minimal", "idempotency_key"} {
			if m.Input().Fields().ByName("release") != nil && m.Input().Fields().ByName(field) == nil {
				t.Errorf("%s changes a cart, and has no field %s", m.Name(), field)
			}
		}
	}
}
