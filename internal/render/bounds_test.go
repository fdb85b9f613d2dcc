package render

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/envtest"
)

var (
	durationBounds = regexp.MustCompile(`duration\(self\) >= duration\('(\w+)'\)( && duration\(self\) <= duration\('(\w+)'\))?`)
	highest        = regexp.MustCompile(`^self <= (\d+)$`)
)

// whole returns the backend and the fields that a field at its bound needs beside it to make sense: a lock must outlive
// its write, a request its wait.
func whole(path string) string {
	const redis = `backend: {type: Redis, redis: {addresses: ["redis:6379"]}}, `
	switch path {
	case ".audit.retention":
		return "backend: {type: Database, database: {dialect: PostgreSQL, host: db, name: shop}}"
	case ".locking.timeout", ".locking.waitTimeout", ".locking.leaseDuration":
		return redis + "locking: {timeout: 24h}, timeouts: {request: 24h, write: 10ms}"
	case ".timeouts.request":
		return redis + "locking: {waitTimeout: 1ms, timeout: 24h}"
	}
	return redis + "locking: {timeout: 24h}, timeouts: {request: 24h}"
}

// Every sidecar accepts what the API server lets pass: each number and each duration of the CRD is tried at both of its
// bounds, and each word. The API server refuses a value beyond its bounds, so that no sidecar has to.
func TestBoundsAreTheSidecars(t *testing.T) {
	cluster := envtest.Start(t)
	namespace := cluster.Namespace(t)
	data, err := os.ReadFile("../../config/crd/bases/sidecart.dev_cartstorages.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(data, &crd); err != nil {
		t.Fatal(err)
	}
	spec := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	tried := 0
	// try sets one field and reports whether the API server accepts it. If it does, the result must render.
	try := func(path string, value any, want bool) {
		t.Helper()
		tried++
		base := map[string]any{}
		if err := yaml.Unmarshal([]byte("{"+whole(path)+"}"), &base); err != nil {
			t.Fatal(err)
		}
		set(base, strings.Split(strings.TrimPrefix(path, "."), "."), value)
		text, err := yaml.Marshal(base)
		if err != nil {
			t.Fatal(err)
		}
		cs := read[v1alpha1.CartStorage](t, fmt.Sprintf("metadata: {namespace: %s, name: shop}", namespace))
		cs.Spec = *read[v1alpha1.CartStorageSpec](t, string(text))
		err = cluster.Client.Create(t.Context(), cs, client.DryRunAll)
		switch {
		case (err == nil) != want:
			t.Errorf("spec%s: %v: accepted is %t, want %t: %v", path, value, err == nil, want, err)
		case err == nil:
			if err := Check(cs); err != nil {
				t.Errorf("spec%s: %v is accepted, and the sidecar refuses it: %v", path, value, err)
			}
		}
	}
	minReplicas := spec.Properties["backend"].Properties["redis"].Properties["minReplicas"]
	sections := map[string]apiextensionsv1.JSONSchemaProps{".backend.redis.minReplicas": minReplicas}
	for _, section := range []string{"locking", "timeouts", "limits", "ttl", "idempotencyWindow", "checkoutRetention", "audit"} {
		sections["."+section] = spec.Properties[section]
	}
	for section, s := range sections {
		walkSchema(&s, section, func(path string, s *apiextensionsv1.JSONSchemaProps) {
			if s.Minimum != nil {
				try(path, int64(*s.Minimum), true)
				if *s.Minimum > 1 { // 0 in Go is a field that is not set
					try(path, int64(*s.Minimum)-1, false)
				}
			}
			if s.Maximum != nil {
				try(path, int64(*s.Maximum), true)
				try(path, int64(*s.Maximum)+1, false)
			}
			for _, rule := range s.XValidations {
				if m := highest.FindStringSubmatch(rule.Rule); m != nil {
					var n int64
					_, _ = fmt.Sscan(m[1], &n)
					try(path, n, true)
					try(path, n+1, false)
				}
				if m := durationBounds.FindStringSubmatch(rule.Rule); m != nil {
					least, err := time.ParseDuration(m[1])
					if err != nil {
						t.Fatal(err)
					}
					try(path, m[1], true)
					if least > time.Millisecond {
						try(path, (least - time.Millisecond).String(), false)
					}
					if m[3] != "" {
						try(path, m[3], true)
						most, err := time.ParseDuration(m[3])
						if err != nil {
							t.Fatal(err)
						}
						try(path, (most + time.Second).String(), false)
					}
				}
			}
			for _, word := range s.Enum {
				try(path, strings.Trim(string(word.Raw), `"`), true)
			}
		})
	}
	for _, path := range []string{".sidecar.logLevel", ".sidecar.logFormat"} {
		s := spec.Properties["sidecar"].Properties[strings.TrimPrefix(path, ".sidecar.")]
		for _, word := range s.Enum {
			try(path, strings.Trim(string(word.Raw), `"`), true)
		}
	}
	if tried < 50 {
		t.Errorf("only %d bounds were found", tried)
	}
}

func walkSchema(s *apiextensionsv1.JSONSchemaProps, path string, visit func(string, *apiextensionsv1.JSONSchemaProps)) {
	visit(path, s)
	for name := range s.Properties {
		p := s.Properties[name]
		walkSchema(&p, path+"."+name, visit)
	}
}

// set puts value at path and makes the objects on the way.
func set(o map[string]any, path []string, value any) {
	if len(path) == 1 {
		o[path[0]] = value
		return
	}
	next, ok := o[path[0]].(map[string]any)
	if !ok {
		next = map[string]any{}
		o[path[0]] = next
	}
	set(next, path[1:], value)
}
