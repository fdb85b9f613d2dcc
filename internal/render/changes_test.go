package render

import (
	"slices"
	"testing"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// Each row is a change: whether it leaves carts behind, where they then are, and which settings do not reach a running
// pod.
func TestChanges(t *testing.T) {
	const sqlite = "backend: {type: Database, database: {dialect: SQLite, volume: {claimName: carts}}}"
	for _, r := range []struct {
		name, was, is string
		moved         bool
		where         string
		restart       []string
	}{
		{"the same", `backend: {type: Redis, redis: {addresses: ["redis:6379"]}}`, `backend: {type: Redis, redis: {addresses: ["redis:6379"]}}`, false, "Redis redis:6379", nil},
		{"another name", `backend: {type: Redis, redis: {addresses: ["redis:6379"]}}`, `backend: {type: Redis, redis: {addresses: ["redis.shop.svc:6379"]}}`, false, "Redis redis:6379", nil},
		{"another server", `backend: {type: Redis, redis: {addresses: ["a:1"], database: 2, namespace: x_}}`, `backend: {type: Redis, redis: {addresses: ["b:1"], database: 2, namespace: x_}}`, true, "Redis a:1, database 2, namespace x_", nil},
		{"some servers", `backend: {type: Redis, redis: {mode: Cluster, addresses: ["a:1", "b:1", "c:1", "d:1", "e:1"]}}`, `backend: {type: Redis, redis: {mode: Cluster, addresses: ["e:1", "f:1"]}}`, false, "Redis a:1, b:1, c:1 and 2 more", nil},
		{"to a cluster", `backend: {type: Redis, redis: {addresses: ["a:1"]}}`, `backend: {type: Redis, redis: {mode: Cluster, addresses: ["a:1"]}}`, true, "Redis a:1", nil},
		{"another master", `backend: {type: Redis, redis: {mode: Sentinel, masterName: m, addresses: ["a:1"]}}`, `backend: {type: Redis, redis: {mode: Sentinel, masterName: n, addresses: ["a:1"]}}`, true, "Redis a:1, master m", nil},
		{"another prefix", "backend: {type: Redis, redis: {addresses: [\"a:1\"]}}\nkeyPrefix: a", "backend: {type: Redis, redis: {addresses: [\"a:1\"]}}\nkeyPrefix: b", true, "Redis a:1", nil},
		{"memory stays", "backend: {type: Memory}", "backend: {type: Memory}\nttl: 1h", false, "the memory of the sidecars", nil},
		{"from memory", "backend: {type: Memory}", `backend: {type: Redis, redis: {addresses: ["a:1"]}}`, true, "the memory of the sidecars", nil},
		{"to memory", `backend: {type: Redis, redis: {addresses: ["a:1"]}}`, "backend: {type: Memory}", true, "Redis a:1", nil},
		{"another claim", sqlite, "backend: {type: Database, database: {dialect: SQLite, volume: {claimName: other}}}", true, "PersistentVolumeClaim carts", []string{"volumes"}},
		{"no claim any more", sqlite, "backend: {type: Database, database: {dialect: SQLite}}", true, "PersistentVolumeClaim carts", []string{"volumes"}},
		{"the pods' own volumes, larger", "backend: {type: Database, database: {dialect: SQLite}}", "backend: {type: Database, database: {dialect: SQLite, volume: {sizeLimit: 1Gi}}}", false, "the volumes of the pods", []string{"volumes"}},
		{"the sidecar", "backend: {type: Memory}", "backend: {type: Memory}\nsidecar: {image: a, imagePullPolicy: Always, ports: {http: 8000}, resources: {limits: {memory: 1Gi}}}", false, "the memory of the sidecars",
			[]string{"image", "imagePullPolicy", "ports", "resources"}},
		{"what reaches running sidecars", "backend: {type: Memory}", "backend: {type: Memory}\nsidecar: {logLevel: debug}\nlimits: {maxItems: 5}\nlocking: {mode: Enabled}\ntimeouts: {read: 1s}", false, "the memory of the sidecars", nil},
	} {
		t.Run(r.name, func(t *testing.T) {
			of := func(spec string) *v1alpha1.CartStorage {
				cs := read[v1alpha1.CartStorage](t, "metadata: {name: shop, namespace: shop}")
				cs.Spec = *read[v1alpha1.CartStorageSpec](t, spec)
				return cs
			}
			was, is := of(r.was), of(r.is)
			if got := Moved(was, is); got != r.moved {
				t.Errorf("carts are left behind: %t, want %t", got, r.moved)
			}
			if got := Where(was); got != r.where {
				t.Errorf("they are in %q, want %q", got, r.where)
			}
			if got := NeedsRestart(was, is); !slices.Equal(got, r.restart) {
				t.Errorf("needs a restart for %q, want %q", got, r.restart)
			}
		})
	}
}
