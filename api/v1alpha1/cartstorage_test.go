package v1alpha1_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/envtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { os.Exit(envtest.Main(m)) }

// object is a CartStorage with a spec as people write it.
func object(t *testing.T, namespace, name, spec string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	manifest := fmt.Sprintf("apiVersion: sidecart.dev/v1alpha1\nkind: CartStorage\nmetadata: {name: %s, namespace: %s}\n", name, namespace)
	if err := yaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := yaml.Unmarshal([]byte(spec), &s); err != nil {
		t.Fatalf("%v in\n%s", err, spec)
	}
	o.Object["spec"] = s
	return o
}

// strict refuses fields that the CRD does not know, as kubectl does.
func strict(c *envtest.Cluster) client.Client { return client.WithFieldValidation(c.Client, "Strict") }

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (write it with -update)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", file, diff)
	}
}

// An apply of the smallest possible spec must fill in everything that has a default.
func TestDefaults(t *testing.T) {
	c := envtest.Start(t)
	o := object(t, c.Namespace(t), "shop", `backend: {type: Redis, redis: {addresses: ["redis:6379"], credentialsSecretRef: {name: auth}}}`)
	if err := strict(c).Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	got, err := yaml.Marshal(o.Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "defaults.yaml", string(got))
}

// A Go client that leaves fields at their zero values must get the defaults too.
func TestDefaultsFromGo(t *testing.T) {
	c := envtest.Start(t)
	o := &v1alpha1.CartStorage{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: c.Namespace(t)},
		Spec:       v1alpha1.CartStorageSpec{Backend: v1alpha1.Backend{Type: v1alpha1.BackendMemory}},
	}
	if err := c.Client.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := o.Spec.Locking.Timeout.Duration; got != 5*time.Second {
		t.Errorf("locking.timeout is %s, want 5s", got)
	}
	if got := o.Spec.Sidecar.Ports; got != (v1alpha1.Ports{GRPC: 7420, HTTP: 7421, Admin: 7422}) {
		t.Errorf("ports are %+v", got)
	}
}

func TestSamples(t *testing.T) {
	c := envtest.Start(t)
	namespace := c.Namespace(t)
	files, err := filepath.Glob("../../config/samples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sampled := map[string]bool{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			manifest, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			message, err := c.Apply(t, namespace, string(manifest))
			if err != nil || message != "cartstorage.sidecart.dev/"+name+" created\n" {
				t.Fatalf("apply: %v: %s", err, message)
			}
			// A second apply must find nothing to change: the server's defaults do not count as differences.
			if message, err = c.Apply(t, namespace, string(manifest)); err != nil || !strings.HasSuffix(message, " unchanged\n") {
				t.Errorf("second apply: %v: %s", err, message)
			}
			var o v1alpha1.CartStorage
			if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &o); err != nil {
				t.Fatal(err)
			}
			p := config.Product{Type: config.BackendType(o.Spec.Backend.Type)}
			if d := o.Spec.Backend.Database; d != nil {
				p.Dialect = string(d.Dialect)
			}
			sampled[p.String()] = true
		})
	}
	for _, p := range config.Built {
		if !sampled[p.String()] {
			t.Errorf("there is no sample of %s", p)
		}
	}
}

// A person who may view a namespace must see its CartStorages, and be able to change none.
func TestRoles(t *testing.T) {
	c := envtest.Start(t)
	c.Kubectl(t, "create", "namespace", "sidecart-system") // where the operator's own role is
	c.Kubectl(t, "apply", "--filename", "../../config/rbac")
	get := func(role string) string {
		return c.Kubectl(t, "get", "clusterrole", role, "--output", `jsonpath={.metadata.labels} {.rules[*].verbs}`)
	}
	if got := get("sidecart-cartstorage-viewer"); got != `{"rbac.authorization.k8s.io/aggregate-to-view":"true"} ["get","list","watch"]` {
		t.Errorf("the viewer's role is %s", got)
	}
	if got := get("sidecart-cartstorage-editor"); !strings.Contains(got, `aggregate-to-edit":"true"`) || !strings.Contains(got, `"create"`) {
		t.Errorf("the editor's role is %s", got)
	}
}

func TestPrintedColumns(t *testing.T) {
	c := envtest.Start(t)
	namespace := c.Namespace(t)
	o := &v1alpha1.CartStorage{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: namespace},
		Spec: v1alpha1.CartStorageSpec{Backend: v1alpha1.Backend{
			Type:  v1alpha1.BackendRedis,
			Redis: &v1alpha1.RedisBackend{Addresses: []v1alpha1.Address{"redis:6379"}},
		}},
	}
	if err := c.Client.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	now := metav1.Now()
	o.Status = v1alpha1.CartStorageStatus{
		ObservedGeneration: 1,
		Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonRollingOut,
			Message: "1 of 3 sidecars is behind", LastTransitionTime: now,
		}},
		Locking: &v1alpha1.LockingStatus{
			Enabled: true, Reason: v1alpha1.LockingReasonMultipleReplicas, Message: "Deployment web has 3 replicas", Since: now,
		},
		Replicas:  3,
		Sidecars:  "2/3",
		Workloads: []v1alpha1.WorkloadStatus{{Kind: "Deployment", Name: "web", Replicas: 3, Sidecars: 3, Updated: 2}},
	}
	if err := c.Client.Status().Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	age := regexp.MustCompile(`\b\d+s\b`)
	got := c.Kubectl(t, "get", "cst", "--namespace", namespace) + "\n" + c.Kubectl(t, "get", "cartstorage", "--namespace", namespace, "--output", "wide")
	golden(t, "get.txt", age.ReplaceAllString(got, "0s"))
}

func TestExplain(t *testing.T) {
	c := envtest.Start(t)
	for _, path := range []string{"cartstorage", "cartstorage.spec", "cartstorage.spec.locking", "cartstorage.spec.backend.redis"} {
		golden(t, "explain-"+strings.ReplaceAll(path, ".", "-")+".txt", c.Kubectl(t, "explain", path))
	}
}

// kubectl explain must have an answer for every field.
func TestEveryFieldIsDocumented(t *testing.T) {
	walk(schema(t), "", func(path string, s *apiextensionsv1.JSONSchemaProps) {
		if s.Description == "" && !strings.HasSuffix(path, "[]") && !strings.HasSuffix(path, "{}") && path != ".metadata" && path != "" {
			t.Errorf("%s has no description", path)
		}
	})
}

// schema is that of the generated CRD.
func schema(t *testing.T) *apiextensionsv1.JSONSchemaProps {
	t.Helper()
	return definition(t).Spec.Versions[0].Schema.OpenAPIV3Schema
}

// definition is the generated CRD.
func definition(t *testing.T) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	data, err := os.ReadFile("../../config/crd/bases/sidecart.dev_cartstorages.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(data, &crd); err != nil {
		t.Fatal(err)
	}
	return &crd
}

// walk calls visit for every schema with its path: ".spec.ttl", items of a list with "[]", values of a map with "{}".
func walk(s *apiextensionsv1.JSONSchemaProps, path string, visit func(string, *apiextensionsv1.JSONSchemaProps)) {
	visit(path, s)
	for name := range s.Properties {
		p := s.Properties[name]
		walk(&p, path+"."+name, visit)
	}
	if s.Items != nil {
		walk(s.Items.Schema, path+"[]", visit)
	}
	if s.AdditionalProperties != nil {
		walk(s.AdditionalProperties.Schema, path+"{}", visit)
	}
}

// The API server accepts exactly the backends that this version has, by the one list of them.
func TestOnlyBuiltBackendsAreAccepted(t *testing.T) {
	c := envtest.Start(t)
	namespace := c.Namespace(t)
	sections := map[config.BackendType]string{
		config.BackendRedis: `, redis: {addresses: ["a:1"]}`, config.BackendMemcached: `, memcached: {addresses: ["a:1"]}`,
		config.BackendDynamoDB: ", dynamodb: {region: local, tableName: carts}", config.BackendMemory: "", config.BackendFile: "",
	}
	try := func(p config.Product, spec string) {
		t.Helper()
		err := strict(c).Create(t.Context(), object(t, namespace, "shop", spec), client.DryRunAll)
		built := config.IsBuilt(p.Type, p.Dialect)
		if built && err != nil || !built && (err == nil || !strings.Contains(err.Error(), "is not in this version: write ")) {
			t.Errorf("%s, built: %t: %v", p, built, err)
		}
		if err != nil {
			for _, b := range config.Built {
				if name := string(b.Type); b.Type != config.BackendDatabase && p.Type != config.BackendDatabase && !strings.Contains(err.Error(), name) {
					t.Errorf("%s: the refusal does not recommend %s: %v", p, name, err)
				}
			}
		}
	}
	types := schema(t).Properties["spec"].Properties["backend"].Properties["type"].Enum
	for _, raw := range types {
		kind := config.BackendType(strings.Trim(string(raw.Raw), `"`))
		if section, ok := sections[kind]; ok {
			try(config.Product{Type: kind}, fmt.Sprintf("backend: {type: %s%s}", kind, section))
		} else if kind != config.BackendDatabase {
			t.Errorf("the test does not know type %s", kind)
		}
	}
	for _, raw := range schema(t).Properties["spec"].Properties["backend"].Properties["database"].Properties["dialect"].Enum {
		dialect := strings.Trim(string(raw.Raw), `"`)
		fields := "dialect: " + dialect
		if dialect != "SQLite" {
			fields += ", host: db, name: shop"
		}
		try(config.Product{Type: config.BackendDatabase, Dialect: dialect}, "backend: {type: Database, database: {"+fields+"}}")
	}
	err := strict(c).Create(t.Context(), object(t, namespace, "shop", memory+"criticalBackend: {type: DynamoDB, dynamodb: {region: local, tableName: carts}}"), client.DryRunAll)
	if err != nil {
		t.Errorf("critical backend: %v", err)
	}
}

// An empty section counts as absent: it turns nothing on.
func TestEmptySectionsAreNone(t *testing.T) {
	c := envtest.Start(t)
	namespace := c.Namespace(t)
	message, err := c.Apply(t, namespace, `
apiVersion: sidecart.dev/v1alpha1
kind: CartStorage
metadata: {name: shop}
spec:
  backend:
    type: Redis
    redis:
      addresses: ["redis:6379"]
      mode: Standalone
      credentialsSecretRef: {name: redis-auth}
      tls: {}
  criticalBackend: {}
  keyPrefix: cart
  ttl: 24h
  locking:
    mode: Auto
    timeout: 5s
    autoDisableAfter: 5m
  timeouts: {dial: 1s, read: 500ms, write: 500ms, request: 6s}
  sidecar: {image: "", resources: {}, logLevel: info, ports: {}}
`)
	if err != nil {
		t.Fatal(message, err)
	}
	var cs v1alpha1.CartStorage
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "shop"}, &cs); err != nil {
		t.Fatal(err)
	}
	if cs.Spec.Critical() != nil || cs.Spec.Backend.Redis.TLS.On() || cs.Spec.Sidecar.Ports.HTTP != 7421 {
		t.Errorf("spec is %+v", cs.Spec)
	}
}
