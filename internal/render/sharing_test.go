package render

import (
	"fmt"
	"testing"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

func TestSameCarts(t *testing.T) {
	redis := func(addresses, more string) string {
		return fmt.Sprintf("{backend: {type: Redis, redis: {addresses: [%s]%s}}}", addresses, more)
	}
	for _, r := range []struct {
		name string
		// In namespaces a and b.
		a, b string
		want bool
	}{
		{"one Redis", redis(`"redis.shared:6379"`, ""), redis(`"redis.shared:6379"`, ""), true},
		{"one Redis by two names", redis(`"redis.shared:6379"`, ""), redis(`"Redis.shared.svc.cluster.local.:6379"`, ""), true},
		{"a Redis of one's own", redis(`"redis:6379"`, ""), redis(`"redis:6379"`, ""), false},
		{"the Redis of the other", redis(`"redis:6379"`, ""), redis(`"redis.a.svc:6379"`, ""), true},
		{"one Redis by its address", redis(`"[::ffff:10.0.0.1]:6379"`, ""), redis(`"10.0.0.1:6379"`, ""), true},
		{"two databases of a Redis", redis(`"10.0.0.1:6379"`, ""), redis(`"10.0.0.1:6379"`, ", database: 1"), false},
		{"two masters of the Sentinels", redis(`"10.0.0.1:6379"`, ", mode: Sentinel, masterName: a"), redis(`"10.0.0.1:6379"`, ", mode: Sentinel, masterName: b"), false},
		{"one cluster by two of its nodes", redis(`"10.0.0.1:1", "10.0.0.2:1"`, ", mode: Cluster"), redis(`"10.0.0.3:1", "10.0.0.2:1"`, ", mode: Cluster"), true},
		{"another port", redis(`"10.0.0.1:6379"`, ""), redis(`"10.0.0.1:6380"`, ""), false},
		{"another prefix", redis(`"10.0.0.1:6379"`, ""), `{keyPrefix: other, backend: {type: Redis, redis: {addresses: ["10.0.0.1:6379"]}}}`, false},
		{"the same prefix, written out", redis(`"10.0.0.1:6379"`, ""), `{keyPrefix: cart, backend: {type: Redis, redis: {addresses: ["10.0.0.1:6379"]}}}`, true},
		{"another namespace of keys", redis(`"10.0.0.1:6379"`, ""), redis(`"10.0.0.1:6379"`, ", namespace: shop_"), false},
		{"the same namespace of keys", redis(`"10.0.0.1:6379"`, ", namespace: shop_"), redis(`"10.0.0.1:6379"`, ", namespace: shop_"), true},
		{"namespace and prefix that are the other's prefix", `{keyPrefix: a.cart, backend: {type: Redis, redis: {addresses: ["10.0.0.1:6379"]}}}`,
			`{keyPrefix: cart, backend: {type: Redis, redis: {addresses: ["10.0.0.1:6379"], namespace: a.}}}`, true},
		{"one Memcached", `{backend: {type: Memcached, memcached: {addresses: ["m.x:1"]}}}`, `{backend: {type: Memcached, memcached: {addresses: ["m.x:1", "n.x:1"]}}}`, true},
		{"Redis and Memcached", redis(`"m.x:1"`, ""), `{backend: {type: Memcached, memcached: {addresses: ["m.x:1"]}}}`, false},
		{"one table", `{backend: {type: DynamoDB, dynamodb: {tableName: t, region: r}}}`, `{backend: {type: DynamoDB, dynamodb: {tableName: t, region: r}}}`, true},
		{"two regions", `{backend: {type: DynamoDB, dynamodb: {tableName: t, region: r}}}`, `{backend: {type: DynamoDB, dynamodb: {tableName: t, region: s}}}`, false},
		{"one database, with its port or without", `{backend: {type: Database, database: {dialect: PostgreSQL, host: p.x, name: shop}}}`,
			`{backend: {type: Database, database: {dialect: PostgreSQL, host: p.x.svc, port: 5432, name: shop}}}`, true},
		{"two databases", `{backend: {type: Database, database: {dialect: PostgreSQL, host: p.x, name: shop}}}`,
			`{backend: {type: Database, database: {dialect: PostgreSQL, host: p.x, name: shop2}}}`, false},
		{"two URLs", `{backend: {type: Database, database: {dialect: MySQL, urlSecretRef: {name: u}}}}`,
			`{backend: {type: Database, database: {dialect: MySQL, urlSecretRef: {name: u}}}}`, false},
		{"one critical database", `{backend: {type: Memory}, criticalBackend: {type: Database, database: {dialect: PostgreSQL, host: p.x, name: shop}}}`,
			`{backend: {type: Database, database: {dialect: PostgreSQL, host: p.x, name: shop}}}`, true},
		{"a Redis that carts leave", redis(`"m.x:1"`, ""), `{backend: {type: Memcached, memcached: {addresses: ["n.x:1"]}}, moveFrom: {backend: {type: Redis, redis: {addresses: ["m.x:1"]}}}}`, true},
		{"memory", `{backend: {type: Memory}}`, `{backend: {type: Memory}}`, false},
		{"claims of two namespaces", `{backend: {type: File, file: {volume: {claimName: c}}}}`, `{backend: {type: File, file: {volume: {claimName: c}}}}`, false},
	} {
		t.Run(r.name, func(t *testing.T) {
			a := &v1alpha1.CartStorage{Spec: *read[v1alpha1.CartStorageSpec](t, r.a)}
			b := &v1alpha1.CartStorage{Spec: *read[v1alpha1.CartStorageSpec](t, r.b)}
			a.Namespace, b.Namespace = "a", "b"
			if got := SameCarts(a, b); got != r.want {
				t.Errorf("SameCarts is %v, want %v", got, r.want)
			}
			if got := SameCarts(b, a); got != r.want {
				t.Errorf("SameCarts the other way round is %v, want %v", got, r.want)
			}
		})
	}
}

// Within a namespace a claim and the secret of a URL are the same thing.
func TestSameCartsOfOneNamespace(t *testing.T) {
	for _, spec := range []string{
		`{backend: {type: File, file: {volume: {claimName: c}}}}`,
		`{backend: {type: Database, database: {dialect: SQLite, volume: {claimName: c}}}}`,
		`{backend: {type: Database, database: {dialect: MySQL, urlSecretRef: {name: u}}}}`,
		`{backend: {type: Redis, redis: {addresses: ["redis:6379"]}}}`,
	} {
		cs := &v1alpha1.CartStorage{Spec: *read[v1alpha1.CartStorageSpec](t, spec)}
		if !SameCarts(cs, cs.DeepCopy()) {
			t.Errorf("not the same: %s", spec)
		}
	}
}

func TestLocksAcrossReplicas(t *testing.T) {
	for spec, want := range map[string]bool{
		`{type: Redis}`:     true,
		`{type: Memcached}`: true,
		`{type: DynamoDB}`:  true,
		`{type: Memory}`:    false,
		`{type: File}`:      false,
		`{type: Database, database: {dialect: PostgreSQL}}`: true,
		`{type: Database, database: {dialect: MySQL}}`:      true,
		`{type: Database, database: {dialect: SQLite}}`:     false,
	} {
		if got := LocksAcrossReplicas(read[v1alpha1.Backend](t, spec)); got != want {
			t.Errorf("%s: %v, want %v", spec, got, want)
		}
	}
}
