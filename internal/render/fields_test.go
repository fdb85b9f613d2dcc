package render

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/envtest"
)

// notRendered are the fields that rendering leaves to others.
var notRendered = map[string]string{
	"orphanedCarts":                             "asked by the API server alone, when the resource changes",
	"sidecar.rollout":                           "obeyed by the controller, which restarts workloads",
	"injection.onMissing":                       "obeyed by the controller, which finds pods without a sidecar",
	"criticalBackend.database.volume.claimName": "for SQLite, which the API server refuses there",
	"criticalBackend.database.volume.sizeLimit": "for SQLite, which the API server refuses there",
}

// Every field of the resource must change something that is rendered: a setting that nobody reads misleads the person
// who sets it.
func TestEveryFieldIsRendered(t *testing.T) {
	ref := `{name: s}`
	variants := map[string]string{
		"redis":      `backend: {type: Redis, redis: {mode: Sentinel, masterName: m, addresses: ["a:1"], credentialsSecretRef: ` + ref + `}}`,
		"memcached":  `backend: {type: Memcached, memcached: {addresses: ["a:1"]}}`,
		"dynamodb":   `backend: {type: DynamoDB, dynamodb: {tableName: t, region: r, credentialsSecretRef: ` + ref + `}}`,
		"postgresql": `backend: {type: Database, database: {dialect: PostgreSQL, host: h, name: n}}`,
		"url":        `backend: {type: Database, database: {dialect: MySQL, urlSecretRef: ` + ref + `}}`,
		"sqlite":     `backend: {type: Database, database: {dialect: SQLite}}`,
		"file":       `backend: {type: File}`,
		"critical":   `{backend: {type: Memory}, criticalBackend: {type: Database, database: {dialect: PostgreSQL, host: h, name: n}}}`,
		"critical2":  `{backend: {type: Memory}, criticalBackend: {type: DynamoDB, dynamodb: {tableName: t, region: r}}}`,
		"critical3":  `{backend: {type: Memory}, criticalBackend: {type: Database, database: {dialect: MySQL, urlSecretRef: ` + ref + `}}}`,
	}
	for name, spec := range maps.Clone(variants) { // each backend is one that carts can leave, too
		if from, ok := strings.CutPrefix(spec, "backend: "); ok {
			variants["from "+name] = "backend: {type: Memory}\nmoveFrom: {backend: " + from + "}"
		}
	}
	heard := map[string]bool{}
	known := map[string]string{} // what is rendered of a spec, by its JSON: fields of one section begin with the same
	rendered := func(cs *v1alpha1.CartStorage) string {
		spec, err := json.Marshal(cs.Spec)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := known[string(spec)]; !ok {
			known[string(spec)] = everything(t, cs)
		}
		return known[string(spec)]
	}
	paths := leaves(reflect.TypeFor[v1alpha1.CartStorageSpec](), nil)
	for name, spec := range variants {
		var cs v1alpha1.CartStorage
		if err := yaml.UnmarshalStrict([]byte(spec), &cs.Spec); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, path := range paths {
			changed := cs.DeepCopy()
			field := at(reflect.ValueOf(&changed.Spec), path)
			before := rendered(changed) // with the sections on the way, which may say something by themselves
			change(field)
			if rendered(changed) != before {
				heard[strings.Join(path, ".")] = true
			}
		}
	}
	for _, path := range paths {
		p := strings.Join(path, ".")
		_, exempt := notRendered[p]
		switch {
		case !heard[p] && !exempt:
			t.Errorf("rendering ignores spec.%s", p)
		case heard[p] && exempt:
			t.Errorf("spec.%s is rendered: take it off the list of exemptions", p)
		}
	}
	if len(paths) < 60 {
		t.Errorf("only %d fields were found", len(paths))
	}
}

// everything is all that is rendered from cs.
func everything(t *testing.T, cs *v1alpha1.CartStorage) string {
	t.Helper()
	previous := &v1alpha1.LockingStatus{Enabled: true}
	topology := Topology{Workloads: []Workload{{Kind: "Pod", Name: "web", Replicas: 1}}}
	decision, recheck := DecideLocking(cs.Spec.Locking, topology, previous, time.Unix(0, 0))
	c, err := config.Marshal(Config(cs, decision, 1))
	if err != nil {
		t.Fatal(err)
	}
	pod, err := Pod(&corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "proxy"}}, Containers: []corev1.Container{{Name: "web"}},
	}}, cs, PodOptions{Image: "sidecart"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(string(c), string(p), recheck)
}

// leaves are the paths of all fields that hold a value, by their names in JSON.
func leaves(t reflect.Type, path []string) (all [][]string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if isLeaf(t) {
		return [][]string{path}
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		all = append(all, leaves(t.Field(i).Type, append(path[:len(path):len(path)], name))...)
	}
	return all
}

func isLeaf(t reflect.Type) bool {
	return t.Kind() != reflect.Struct || t == reflect.TypeFor[metav1.Duration]() || t == reflect.TypeFor[resource.Quantity]()
}

// at is the field at path; structs on the way are made.
func at(v reflect.Value, path []string) reflect.Value {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if len(path) == 0 {
		return v
	}
	for i := range v.NumField() {
		if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); name == path[0] {
			return at(v.Field(i), path[1:])
		}
	}
	panic("no field " + path[0])
}

// change gives a field another value.
func change(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *metav1.Duration:
		x.Duration += time.Hour
	case *resource.Quantity:
		*x = resource.MustParse("7Gi")
	case *corev1.ResourceList:
		*x = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("7")}
	case *[]v1alpha1.Address:
		*x = append(*x, "other:1")
	case *v1alpha1.Permission:
		*x = v1alpha1.Allow
	case *v1alpha1.InjectionOrder:
		*x = v1alpha1.InjectLast
	case *v1alpha1.Readiness:
		*x = v1alpha1.ReadyBackend
	case *v1alpha1.LockingMode:
		*x = v1alpha1.LockingEnabled
	case *v1alpha1.DatabaseDialect:
		*x = map[bool]v1alpha1.DatabaseDialect{true: v1alpha1.MySQL, false: v1alpha1.PostgreSQL}[*x != v1alpha1.MySQL]
	case *bool:
		*x = !*x
	default:
		switch v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "other")
		case reflect.Int32, reflect.Int64:
			v.SetInt(v.Int() + 1)
		default:
			panic("no other value for " + v.Type().String())
		}
	}
}

// The defaults of the API server and those of rendering must be the same.
func TestDefaultsAgree(t *testing.T) {
	cluster := envtest.Start(t)
	namespace := cluster.Namespace(t)
	for name, in := range inputs(t, "config") {
		t.Run(name, func(t *testing.T) {
			defaulted := in.CartStorage.DeepCopy()
			defaulted.Name, defaulted.Namespace = name, namespace
			err := cluster.Client.Create(t.Context(), defaulted, client.DryRunAll)
			if Check(&in.CartStorage) != nil {
				if err == nil {
					t.Error("the API server accepts what this version cannot serve")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if defaulted.Spec.Locking.AutoDisableAfter.Duration == 0 {
				t.Fatal("nothing was filled in")
			}
			defaulted.Name, defaulted.Namespace = in.CartStorage.Name, in.CartStorage.Namespace
			if diff := cmp.Diff(everything(t, &in.CartStorage), everything(t, defaulted)); diff != "" {
				t.Errorf("(-without +with the API server's defaults):\n%s", diff)
			}
		})
	}
}
