package v1alpha1_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/internal/envtest"
)

const memory = "backend: {type: Memory}\n"

func redis(fields string) string { return "backend: {type: Redis, redis: {" + fields + "}}" }

func dynamo(fields string) string {
	return "backend: {type: DynamoDB, dynamodb: {region: local, " + fields + "}}"
}

func database(fields string) string { return "backend: {type: Database, database: {" + fields + "}}" }

// moveFrom is more lines of a spec, with a backend of another.
func moveFrom(backend string) string {
	return "\nmoveFrom:\n  " + strings.TrimSpace(backend) + "\n"
}

// Each row is a rule: a spec that keeps it, one that breaks it, and what the server says then. A row with an old spec
// is about the change from that to bad.
var rules = []struct{ name, old, good, bad, message string }{
	{"redis without section", "", redis(`addresses: ["redis:6379"]`), "backend: {type: Redis}",
		`spec.backend: Invalid value: type Redis needs its section: write redis: {addresses: ["redis:6379"]}`},
	{"section redis of another type", "", memory, `backend: {type: Memory, redis: {addresses: ["redis:6379"]}}`,
		"the section redis does not belong to type Memory: remove it, or write type: Redis"},
	{"memcached without section", "", `backend: {type: Memcached, memcached: {addresses: ["m:11211"]}}`, "backend: {type: Memcached}",
		`type Memcached needs its section: write memcached: {addresses: ["memcached:11211"]}`},
	{"section memcached of another type", "", memory, `backend: {type: Memory, memcached: {addresses: ["m:11211"]}}`,
		"the section memcached does not belong to type Memory: remove it, or write type: Memcached"},
	{"dynamodb without section", "", "backend: {type: DynamoDB, dynamodb: {region: eu-central-1, tableName: carts}}", "backend: {type: DynamoDB}",
		"type DynamoDB needs its section: write dynamodb: {region: eu-central-1, tableName: carts}"},
	{"section dynamodb of another type", "", memory, "backend: {type: Memory, dynamodb: {region: eu-central-1, tableName: carts}}",
		"the section dynamodb does not belong to type Memory: remove it, or write type: DynamoDB"},
	{"database without section", "", database("dialect: SQLite"), "backend: {type: Database}",
		"type Database needs its section: write database: {dialect: SQLite}"},
	{"section database of another type", "", memory, "backend: {type: Memory, database: {dialect: SQLite}}",
		"the section database does not belong to type Memory: remove it, or write type: Database"},
	{"section memory of another type", "", "backend: {type: Memory, memory: {}}", "backend: {type: File, memory: {}}",
		"the section memory does not belong to type File: remove it, or write type: Memory"},
	{"section file of another type", "", "backend: {type: File, file: {}}", "backend: {type: Memory, file: {}}",
		"the section file does not belong to type Memory: remove it, or write type: File"},
	{"unknown type", "", memory, "backend: {type: Mongo}",
		`spec.backend.type: Unsupported value: "Mongo": supported values: "Redis", "Memcached", "DynamoDB", "Database", "Memory", "File"`},

	{"address without port", "", redis(`addresses: ["[fd00::1]:6379"]`), redis(`addresses: ["redis"]`),
		`spec.backend.redis.addresses[0]: Invalid value: "redis": must be host:port, for example redis:6379 or [fd00::1]:6379`},
	{"address with a port that is none", "", redis(`addresses: ["10.0.0.1:65535"]`), redis(`addresses: ["10.0.0.1:65536"]`), "must be host:port"},
	{"address that is no IPv6", "", redis(`addresses: ["[::1]:1"]`), redis(`addresses: ["[::::]:6379"]`), "must be host:port"},
	{"address twice", "", redis(`mode: Cluster, addresses: ["a:1", "b:1"]`), redis(`mode: Cluster, addresses: ["a:1", "a:1"]`),
		`spec.backend.redis.addresses[1]: Duplicate value: "a:1"`},
	{"standalone with two addresses", "", redis(`addresses: ["a:1"]`), redis(`addresses: ["a:1", "b:1"]`),
		"mode Standalone takes one address: write one, or mode: Sentinel or mode: Cluster"},
	{"sentinel without masterName", "", redis(`mode: Sentinel, addresses: ["a:1"], masterName: shop`), redis(`mode: Sentinel, addresses: ["a:1"]`),
		"mode Sentinel needs masterName: write the name that the Sentinels know the master by, for example masterName: mymaster"},
	{"masterName without sentinel", "", redis(`addresses: ["a:1"]`), redis(`addresses: ["a:1"], masterName: shop`),
		"masterName is for mode Sentinel: remove it, or write mode: Sentinel"},
	{"sentinel credentials without sentinel", "",
		redis(`mode: Sentinel, addresses: ["a:1"], masterName: shop, sentinelCredentialsSecretRef: {name: s}`),
		redis(`addresses: ["a:1"], sentinelCredentialsSecretRef: {name: s}`),
		"sentinelCredentialsSecretRef is for mode Sentinel: remove it, or write mode: Sentinel"},
	{"cluster with a database", "", redis(`addresses: ["a:1"], database: 3`), redis(`mode: Cluster, addresses: ["a:1"], database: 3`),
		"a Redis Cluster has database 0 only: remove database, and keep shops apart by keyPrefix"},
	{"too many replicas", "", redis(`addresses: ["a:1"], minReplicas: 16`), redis(`addresses: ["a:1"], minReplicas: 17`),
		"spec.backend.redis.minReplicas: Invalid value: 17"},
	{"void authority", "", redis(`addresses: ["a:1"], tls: {insecureSkipVerify: true}`),
		redis(`addresses: ["a:1"], tls: {insecureSkipVerify: true, caSecretRef: {name: ca}}`),
		"insecureSkipVerify makes caSecretRef void: remove one of them"},

	{"table name", "", "backend: {type: DynamoDB, dynamodb: {region: eu-central-1, tableName: shop.carts_1}}",
		"backend: {type: DynamoDB, dynamodb: {region: eu-central-1, tableName: my carts}}", "must be 3 to 255 letters, digits and _ . -, for example carts"},
	{"region", "", "backend: {type: DynamoDB, dynamodb: {region: us-gov-west-1, tableName: carts}}",
		"backend: {type: DynamoDB, dynamodb: {region: Frankfurt, tableName: carts}}", "must be a region, for example eu-central-1"},
	{"endpoint", "", `backend: {type: DynamoDB, dynamodb: {region: local, tableName: carts, endpoint: "http://dynamodb:8000"}}`,
		`backend: {type: DynamoDB, dynamodb: {region: local, tableName: carts, endpoint: "dynamodb:8000"}}`, "must be a URL, for example http://dynamodb:8000"},

	{"database without address", "", database("dialect: MySQL, host: mysql, name: shop"), database("dialect: MySQL"),
		"dialect MySQL needs an address: write host: postgres, or urlSecretRef: {name: shop-database}"},
	{"database with two addresses", "", database("dialect: PostgreSQL, urlSecretRef: {name: u}"),
		database("dialect: PostgreSQL, host: postgres, name: shop, urlSecretRef: {name: u}"),
		"host and urlSecretRef exclude each other: the URL names the host already, remove one of them"},
	{"host without name", "", database(`dialect: PostgreSQL, host: "fd00::1", name: shop`), database("dialect: PostgreSQL, host: postgres"),
		"host needs the name of a database: write name: shop"},
	{"host with a port", "", database("dialect: PostgreSQL, host: postgres, port: 6432, name: shop"), database(`dialect: PostgreSQL, host: "postgres:6432", name: shop`),
		"must be a host name or an IP address without a port"},
	{"database name", "", database("dialect: PostgreSQL, host: postgres, name: shop-1"), database(`dialect: PostgreSQL, host: postgres, name: "shop?x=1"`),
		"must be letters, digits and _ -, for example shop"},
	{"URL beside port", "", database("dialect: PostgreSQL, urlSecretRef: {name: u}, credentialsSecretRef: {name: c}"),
		database("dialect: PostgreSQL, urlSecretRef: {name: u}, port: 5432"),
		"the URL names port, database and TLS already: remove port, name and tls, or write host in place of urlSecretRef"},
	{"SQLite with a host", "", database("dialect: SQLite"), database("dialect: SQLite, host: postgres"),
		"SQLite is a file of the pod: remove host, port, name, credentialsSecretRef, urlSecretRef and tls"},
	{"volume without SQLite", "", database("dialect: SQLite, volume: {claimName: carts}"), database("dialect: MySQL, host: mysql, name: shop, volume: {claimName: carts}"),
		"volume is for dialect SQLite: remove it"},
	{"PostgreSQL with a void authority", "", database("dialect: PostgreSQL, host: postgres, name: shop, tls: {caSecretRef: {name: ca}}"),
		database("dialect: PostgreSQL, host: postgres, name: shop, tls: {insecureSkipVerify: true, caSecretRef: {name: ca}}"),
		"spec.backend.database.tls.insecureSkipVerify: Invalid value: insecureSkipVerify makes caSecretRef void: remove one of them"},
	{"claim with a size", "", "backend: {type: File, file: {volume: {sizeLimit: 1Gi}}}", "backend: {type: File, file: {volume: {sizeLimit: 1Gi, claimName: carts}}}",
		"a claim has its own size: remove sizeLimit, or claimName"},

	{"critical backend of a cache", "", memory + "criticalBackend: {type: DynamoDB, dynamodb: {region: local, tableName: carts}}", memory + "criticalBackend: {type: Redis}",
		"criticalBackend.type must be Database or DynamoDB, the other backends do not promise to keep a checkout"},
	{"critical backend without type", "", memory + "criticalBackend: {}", memory + "criticalBackend: {dynamodb: {region: local, tableName: carts}}",
		"criticalBackend needs its type: write type: Database or type: DynamoDB, or leave criticalBackend empty for none"},
	{"critical dynamodb without section", "", memory + "criticalBackend: {type: DynamoDB, dynamodb: {region: local, tableName: carts}}", memory + "criticalBackend: {type: DynamoDB}",
		"spec.criticalBackend: Invalid value: type DynamoDB needs its section"},
	{"critical database without section", "", memory + "criticalBackend: {type: Database, database: {dialect: MySQL, host: mysql, name: shop}}", memory + "criticalBackend: {type: Database}",
		"spec.criticalBackend: Invalid value: type Database needs its section"},
	{"critical section of the other type", "", memory + "criticalBackend: {type: Database, database: {dialect: MySQL, host: mysql, name: shop}}",
		memory + "criticalBackend: {type: DynamoDB, dynamodb: {region: local, tableName: carts}, database: {dialect: MySQL, host: mysql, name: shop}}",
		"the section database does not belong to type DynamoDB: remove it, or write type: Database"},
	{"critical SQLite", "", memory + "criticalBackend: {type: Database, database: {dialect: PostgreSQL, host: postgres, name: shop}}",
		memory + "criticalBackend: {type: Database, database: {dialect: SQLite}}",
		"a SQLite file belongs to one pod, and criticalBackend must be shared by all: write dialect: PostgreSQL or MySQL"},

	{"namespace with a blank", "", redis(`addresses: ["a:1"], namespace: laravel_database_laravel_cache_`), redis(`addresses: ["a:1"], namespace: "a b"`),
		"namespace must be up to 128 letters, digits and _ : . -, for example laravel_database_laravel_cache_"},
	{"long namespace", "", redis(`addresses: ["a:1"], namespace: ` + strings.Repeat("c", 128)), redis(`addresses: ["a:1"], namespace: ` + strings.Repeat("c", 129)),
		"spec.backend.redis.namespace: Too long: may not be more than 128"},
	{"reserved namespace", "", redis(`addresses: ["a:1"], namespace: lock`), redis(`addresses: ["a:1"], namespace: lock.x`),
		"namespace must not begin with lock, queue, index or fence as its first part"},

	{"prefix with a blank", "", memory + "keyPrefix: shop:de.cart_v2-x", memory + "keyPrefix: my shop",
		"keyPrefix must be 1 to 64 letters, digits and _ : . -, for example cart or shop:cart"},
	{"empty prefix", "", memory + "keyPrefix: c", memory + `keyPrefix: ""`, "keyPrefix must be 1 to 64 letters, digits and _ : . -"},
	{"long prefix", "", memory + "keyPrefix: " + strings.Repeat("c", 64), memory + "keyPrefix: " + strings.Repeat("c", 65), "spec.keyPrefix: Too long: may not be more than 64"},
	{"reserved prefix", "", memory + "keyPrefix: locker.lock", memory + "keyPrefix: lock.shop",
		"keyPrefix must not begin with lock, queue, index or fence as its first part, these names are Sidecart's own: write cart or another name"},
	{"prefix that is reserved", "", memory + "keyPrefix: fences", memory + "keyPrefix: fence", "keyPrefix must not begin with"},

	{"short ttl", "", memory + "ttl: 0s", memory + "ttl: 999ms", `spec.ttl: Invalid value: "999ms": must be a duration of at least one second such as 30m, 24h or 720h, or 0s for ever`},
	{"ttl without unit", "", memory + "ttl: 1h30m0.5s", memory + `ttl: "3600"`, "must be a duration of at least one second such as 30m"},
	{"negative ttl", "", memory + "ttl: 24h", memory + "ttl: -1h", "must be a duration of at least one second such as 30m"},
	{"long idempotency window", "", memory + "idempotencyWindow: 720h", memory + "idempotencyWindow: 721h", "spec.idempotencyWindow: Invalid value: \"721h\": must be a duration from 1s to 720h such as 24h"},
	{"long checkout retention", "", memory + "checkoutRetention: 8760h", memory + "checkoutRetention: 8761h", "spec.checkoutRetention: Invalid value: \"8761h\": must be a duration from 1s to 8760h such as 720h"},
	{"locking timeout", "", memory + "locking: {timeout: 500ms}", memory + "locking: {timeout: 0s}", `spec.locking.timeout: Invalid value: "0s": must be a duration from 10ms to 24h such as 5s or 500ms`},
	{"wait", "", memory + "locking: {waitTimeout: 5.5s}", memory + "locking: {waitTimeout: fast}", `spec.locking.waitTimeout: Invalid value: "fast": must be a duration from 1ms to 24h`},
	{"lease", "", memory + "locking: {leaseDuration: 24h}", memory + "locking: {leaseDuration: 25h}", `spec.locking.leaseDuration: Invalid value: "25h": must be a duration from 10ms to 24h`},
	{"timeout without unit", "", memory + "locking: {timeout: 1m30s}", memory + "locking: {timeout: \"5\"}", `spec.locking.timeout: Invalid value: "5": must be a duration from 10ms to 24h`},
	{"write without unit", "", memory + "timeouts: {write: 1.5s}", memory + "timeouts: {write: \"1\"}", `spec.timeouts.write: Invalid value: "1": must be a duration from 10ms to 24h`},
	{"request without unit", "", memory + "timeouts: {request: 1h}", memory + "timeouts: {request: long}", `spec.timeouts.request: Invalid value: "long": must be a duration from 10ms to 24h`},
	{"checkout window", "", memory + "fronts: {checkoutWindow: 24h}", memory + "fronts: {checkoutWindow: 25h}", `spec.fronts.checkoutWindow: Invalid value: "25h": must be a duration to 24h such as 10m, or 0s for never`},
	{"cool down", "", memory + "locking: {autoDisableAfter: 48h}", memory + "locking: {autoDisableAfter: 0s}", `spec.locking.autoDisableAfter: Invalid value: "0s": must be a duration over zero such as 5m or 30s`},
	{"dial", "", memory + "timeouts: {dial: 2s}", memory + "timeouts: {dial: 5ms}", `spec.timeouts.dial: Invalid value: "5ms": must be a duration from 10ms to 24h`},
	{"read", "", memory + "timeouts: {read: 2s}", memory + "timeouts: {read: 5ms}", `spec.timeouts.read: Invalid value: "5ms": must be a duration from 10ms to 24h`},
	{"write", "", memory + "timeouts: {write: 2s}", memory + "timeouts: {write: 5ms}", `spec.timeouts.write: Invalid value: "5ms": must be a duration from 10ms to 24h`},
	{"request", "", memory + "timeouts: {request: 7s}", memory + "timeouts: {request: 5ms}", `spec.timeouts.request: Invalid value: "5ms": must be a duration from 10ms to 24h`},
	{"request shorter than timeout", "", memory + "locking: {timeout: 10s}", memory + "locking: {timeout: 10s}\ntimeouts: {request: 9s}",
		"spec.timeouts.request: Invalid value: timeouts.request must not be shorter than the wait for a lock, or requests end before their lock can come: write 10s or more, or leave it out for one second more than the wait"},
	{"request shorter than wait", "", memory + "locking: {timeout: 10s, waitTimeout: 2s}\ntimeouts: {request: 2s}", memory + "locking: {waitTimeout: 7s}\ntimeouts: {request: 6s}", "write 7s or more"},
	{"lease shorter than write", "", memory + "locking: {leaseDuration: 2s}\ntimeouts: {write: 2s}", memory + "locking: {leaseDuration: 2s}\ntimeouts: {write: 3s}",
		"a lock must not end before the write that it covers: write locking.leaseDuration: 3s or more, or a shorter timeouts.write"},
	{"timeout shorter than write", "", memory + "locking: {timeout: 1s}", memory + "locking: {timeout: 100ms}", "write locking.timeout: 500ms or more"},

	{"audit trail", "", database("dialect: PostgreSQL, host: db, name: shop") + "\naudit: {retention: 1m}", database("dialect: PostgreSQL, host: db, name: shop") + "\naudit: {retention: 59s}",
		`spec.audit.retention: Invalid value: "59s": must be a duration of at least one minute such as 24h or 720h, or 0s for no audit trail`},
	{"audit trail on MySQL", "", database("dialect: MySQL, host: db, name: shop") + "\naudit: {retention: 720h}", database("dialect: SQLite") + "\naudit: {retention: 720h}",
		"spec.audit: Invalid value: an audit trail needs a database that can be asked in SQL: write backend: {type: Database, database: {dialect: PostgreSQL}} or MySQL, or remove audit"},
	{"audit trail elsewhere", "", memory + "audit: {retention: 0s}", redis(`addresses: ["redis:6379"]`) + "\naudit: {retention: 720h}", "an audit trail needs a database that can be asked in SQL"},

	{"items", "", memory + "limits: {maxItems: 1}", memory + "limits: {maxItems: 0}", "spec.limits.maxItems: Invalid value: 0: spec.limits.maxItems in body should be greater than or equal to 1"},
	{"document", "", memory + "limits: {maxDocumentBytes: 1024}", memory + "limits: {maxDocumentBytes: 67108865}", "spec.limits.maxDocumentBytes in body should be less than or equal to 67108864"},
	{"cart", "", memory + "limits: {maxCartBytes: 3145728}", memory + "limits: {maxCartBytes: 3145729}", "must be at most 3145728 (3 MiB), so that every answer fits the 4 MiB that gRPC clients take by default"},
	{"metadata keys", "", memory + "limits: {maxMetadataKeys: 1}", memory + "limits: {maxMetadataKeys: 10001}", "spec.limits.maxMetadataKeys in body should be less than or equal to 10000"},
	{"quantity", "", memory + "limits: {maxQuantity: 1000000000000}", memory + "limits: {maxQuantity: 0}", "spec.limits.maxQuantity in body should be greater than or equal to 1"},
	{"same port twice", "", memory + "sidecar: {ports: {grpc: 7421, http: 7420}}", memory + "sidecar: {ports: {admin: 7420}}",
		"the ports grpc, http and admin must differ: write for example grpc: 7420, http: 7421, admin: 7422"},
	{"privileged port", "", memory + "sidecar: {ports: {http: 1024}}", memory + "sidecar: {ports: {http: 80}}", "spec.sidecar.ports.http in body should be greater than or equal to 1024"},
	{"request over limit", "", memory + "sidecar: {resources: {requests: {cpu: 1}, limits: {cpu: 1000m, memory: 32Mi}}}", memory + "sidecar: {resources: {limits: {memory: 16Mi}}}",
		"spec.sidecar.resources: Invalid value: a container cannot request more than its limit: lower requests (cpu: 20m and memory: 32Mi where not set) or raise limits (memory: 128Mi where not set)"},
	{"log level", "", memory + "sidecar: {logLevel: warn}", memory + "sidecar: {logLevel: loud}", `Unsupported value: "loud": supported values: "debug", "info", "warn", "error"`},
	{"order", "", memory + "injection: {order: Last}", memory + "injection: {order: Middle}", `spec.injection.order: Unsupported value: "Middle": supported values: "First", "Last"`},
	{"readiness", "", memory + "sidecar: {readiness: Backend}", memory + "sidecar: {readiness: Always}", `spec.sidecar.readiness: Unsupported value: "Always": supported values: "Serving", "Backend"`},
	{"locking mode", "", memory + "locking: {mode: Disabled}", memory + "locking: {mode: Off}", `supported values: "Auto", "Enabled", "Disabled"`},
	{"unknown field", "", memory, memory + "lockng: {}", `unknown field "spec.lockng"`},

	{"change of type", memory, memory, "backend: {type: File}",
		"spec.backend.type: Invalid value: backend.type cannot change from Memory to File, the carts of the old backend would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind"},
	{"allowed change of type", memory, database("dialect: SQLite") + "\norphanedCarts: Accept", database("dialect: SQLite") + "\norphanedCarts: Forbid", "backend.type cannot change from Memory to Database"},
	{"the older spelling", memory, database("dialect: SQLite") + "\norphanedCarts: Allow", database("dialect: SQLite") + "\norphanedCarts: Yes", `supported values: "Forbid", "Move", "Accept", "Allow"`},
	{"change of prefix", memory, memory + "keyPrefix: cart", memory + "keyPrefix: shop",
		"spec.keyPrefix: Invalid value: keyPrefix cannot change from cart to shop, the carts under the old prefix would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind"},
	{"allowed change of prefix", memory, memory + "keyPrefix: shop\norphanedCarts: Accept", memory + "keyPrefix: shop", "keyPrefix cannot change from cart to shop"},
	{"change of Redis database", redis(`addresses: ["a:1"]`), redis(`addresses: ["a:1"], tls: {enabled: true}`), redis(`addresses: ["a:1"], database: 1`),
		"redis.database, redis.namespace, and redis.mode to or from Cluster, cannot change, the carts there would be orphaned: keep them, or write orphanedCarts: Accept to leave the carts behind"},
	{"change of Redis namespace", redis(`addresses: ["a:1"]`), redis(`addresses: ["a:1"], namespace: ""`), redis(`addresses: ["a:1"], namespace: shop_`),
		"redis.database, redis.namespace, and redis.mode to or from Cluster, cannot change"},
	{"change to a cluster", redis(`addresses: ["a:1"]`), redis(`mode: Sentinel, masterName: shop, addresses: ["s:1", "a:1"]`), redis(`mode: Cluster, addresses: ["a:1"]`),
		"redis.mode to or from Cluster, cannot change"},
	{"change to another Redis", redis(`addresses: ["a:1"]`), redis(`addresses: ["b:1"]`) + "\norphanedCarts: Accept", redis(`addresses: ["b:1"]`),
		"no address of redis.addresses stays, so this is another Redis and the carts of the old one would be orphaned: keep an address, or write orphanedCarts: Accept"},
	{"change of some addresses", redis(`mode: Cluster, addresses: ["a:1", "b:1"]`), redis(`mode: Cluster, addresses: ["b:1", "c:1"]`), redis(`mode: Cluster, addresses: ["c:1", "d:1"]`),
		"no address of redis.addresses stays"},
	{"change of master", redis(`mode: Sentinel, masterName: shop, addresses: ["s:1"]`), redis(`mode: Sentinel, masterName: shop, addresses: ["s:1", "s:2"]`),
		redis(`mode: Sentinel, masterName: other, addresses: ["s:1"]`), "redis.masterName cannot change, the carts of the old master would be orphaned: keep it, or write orphanedCarts: Accept"},
	{"change of all Memcached servers", "backend: {type: Memcached, memcached: {addresses: [\"a:1\", \"b:1\"]}}", "backend: {type: Memcached, memcached: {addresses: [\"a:1\"]}}",
		"backend: {type: Memcached, memcached: {addresses: [\"c:1\"]}}", "no address of memcached.addresses stays"},
	{"change of table", dynamo("tableName: carts"), dynamo("tableName: carts, credentialsSecretRef: {name: aws}"), dynamo("tableName: carts2"),
		"dynamodb.tableName, dynamodb.region and dynamodb.endpoint cannot change, the carts of the old table would be orphaned"},
	{"change of region", dynamo("tableName: carts"), "backend: {type: DynamoDB, dynamodb: {region: other, tableName: carts}}\norphanedCarts: Accept",
		"backend: {type: DynamoDB, dynamodb: {region: other, tableName: carts}}", "dynamodb.region and dynamodb.endpoint cannot change"},
	{"change of endpoint", dynamo("tableName: carts"), dynamo("tableName: carts"), dynamo("tableName: carts, endpoint: \"http://dynamodb:8000\""), "dynamodb.region and dynamodb.endpoint cannot change"},
	{"change of database", database("dialect: MySQL, host: a, name: shop"), database("dialect: MySQL, host: a, name: shop, credentialsSecretRef: {name: c}"), database("dialect: MySQL, host: a, name: shop2"),
		"database.dialect, database.host, database.port, database.name and database.urlSecretRef cannot change, the carts of the old database would be orphaned: keep them, or write orphanedCarts: Accept to leave the carts behind"},
	{"change of host", database("dialect: MySQL, host: a, name: shop"), database("dialect: MySQL, host: b, name: shop") + "\norphanedCarts: Accept", database("dialect: MySQL, host: b, name: shop"), "database.host, database.port"},
	{"change of port", database("dialect: MySQL, host: a, name: shop"), database("dialect: MySQL, host: a, name: shop"), database("dialect: MySQL, host: a, name: shop, port: 3307"), "database.host, database.port"},
	{"change to a URL", database("dialect: MySQL, host: a, name: shop"), database("dialect: MySQL, urlSecretRef: {name: u}") + "\norphanedCarts: Accept",
		database("dialect: MySQL, urlSecretRef: {name: u}"), "database.name and database.urlSecretRef cannot change"},
	{"change of a URL", database("dialect: MySQL, urlSecretRef: {name: u}"), database("dialect: MySQL, urlSecretRef: {name: u, key: url}"),
		database("dialect: MySQL, urlSecretRef: {name: u, key: other}"), "database.name and database.urlSecretRef cannot change"},
	{"change of dialect", database("dialect: MySQL, host: a, name: shop"), database("dialect: MySQL, host: a, name: shop"),
		database("dialect: PostgreSQL, host: a, name: shop"), "database.dialect, database.host"},
	{"change of claim", database("dialect: SQLite, volume: {claimName: carts}"), database("dialect: SQLite, volume: {claimName: other}") + "\norphanedCarts: Accept",
		database("dialect: SQLite, volume: {claimName: other}"), "database.volume.claimName cannot change, the carts on the old volume would be orphaned"},
	{"removal of a claim", database("dialect: SQLite, volume: {claimName: carts}"), database("dialect: SQLite, volume: {claimName: carts}"), database("dialect: SQLite"),
		"database.volume.claimName cannot change"},
	{"change of the claim of files", "backend: {type: File, file: {volume: {claimName: carts}}}", "backend: {type: File, file: {volume: {claimName: carts}}}", "backend: {type: File}",
		"file.volume.claimName cannot change, the carts on the old volume would be orphaned"},
	{"critical backend removed", memory + "criticalBackend: {type: Database, database: {dialect: MySQL, host: mysql, name: shop}}",
		memory + "orphanedCarts: Accept", memory,
		"criticalBackend cannot be removed or change its type, the checkouts in it would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind"},
	{"critical backend added", memory, memory + "criticalBackend: {type: Database, database: {dialect: MySQL, host: mysql, name: shop}}",
		memory + "keyPrefix: shop", "keyPrefix cannot change"},
	{"critical database changed", memory + "criticalBackend: {type: Database, database: {dialect: MySQL, host: mysql, name: shop}}",
		memory + "criticalBackend: {type: Database, database: {dialect: MySQL, host: mysql, name: shop, credentialsSecretRef: {name: c}}}",
		memory + "criticalBackend: {type: Database, database: {dialect: MySQL, host: mysql2, name: shop}}",
		"the place of criticalBackend (its dialect, host, port, name, urlSecretRef, tableName, region or endpoint) cannot change"},

	{"move to another Redis", redis(`addresses: ["a:1"]`), redis(`addresses: ["b:1"]`) + moveFrom(redis(`addresses: ["a:1"]`)), redis(`addresses: ["b:1"]`) + moveFrom(redis(`addresses: ["c:1"]`)),
		"no address of redis.addresses stays, so this is another Redis and the carts of the old one would be orphaned: keep an address, or write orphanedCarts: Accept to leave the carts behind, or because it is the same Redis by another name; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom"},
	{"move without the operator", redis(`addresses: ["a:1"]`), redis(`addresses: ["b:1"]`) + "\norphanedCarts: Move" + moveFrom(redis(`addresses: ["a:1"]`)), dynamo("tableName: carts") + "\norphanedCarts: Move",
		"backend.type cannot change from Redis to DynamoDB, the carts of the old backend would be orphaned: keep it, or write orphanedCarts: Accept to leave them behind; to take the carts along, write orphanedCarts: Move while the operator runs, or what stood here before into moveFrom"},
	{"move to another prefix", redis(`addresses: ["a:1"]`), redis(`addresses: ["a:1"]`) + "\nkeyPrefix: shop" + moveFrom(redis(`addresses: ["a:1"]`)) + "  keyPrefix: cart", redis(`addresses: ["a:1"]`) + "\nkeyPrefix: shop" + moveFrom(redis(`addresses: ["a:1"]`)),
		"keyPrefix cannot change from cart to shop"},
	{"move with another prefix", redis(`addresses: ["a:1"]`), dynamo("tableName: carts") + "\nkeyPrefix: shop" + moveFrom(redis(`addresses: ["a:1"]`)) + "  keyPrefix: cart", dynamo("tableName: carts") + "\nkeyPrefix: shop" + moveFrom(redis(`addresses: ["a:1"]`)) + "  keyPrefix: other",
		"backend.type cannot change from Redis to DynamoDB"},
	{"move from where the carts are not", redis(`addresses: ["a:1"], credentialsSecretRef: {name: r}`), dynamo("tableName: carts") + moveFrom(redis(`addresses: ["a:1"], credentialsSecretRef: {name: r}`)), dynamo("tableName: carts") + moveFrom(redis(`addresses: ["a:1"]`)),
		"backend.type cannot change from Redis to DynamoDB"},
	{"move leaves no checkouts", memory + "criticalBackend: {type: Database, database: {dialect: MySQL, host: mysql, name: shop}}",
		memory + "orphanedCarts: Allow", memory + "orphanedCarts: Move", "criticalBackend cannot be removed or change its type"},
	{"second move", redis(`addresses: ["b:1"]`) + moveFrom(redis(`addresses: ["a:1"]`)), redis(`addresses: ["a:1"]`) + moveFrom(redis(`addresses: ["b:1"]`)), redis(`addresses: ["c:1"]`) + moveFrom(redis(`addresses: ["b:1"]`)),
		"spec.moveFrom: Invalid value: carts still move here from moveFrom: leave it until status.move.state is Finished, or move them back by exchanging what stands under backend and moveFrom.backend, or write orphanedCarts: Accept to leave those behind that have not moved"},
	{"end of a move", redis(`addresses: ["b:1"]`) + moveFrom(redis(`addresses: ["a:1"]`)), redis(`addresses: ["b:1"]`) + "\norphanedCarts: Accept", redis(`addresses: ["b:1"]`) + "\norphanedCarts: Move", "carts still move here from moveFrom"},
	{"another place during a move", redis(`addresses: ["b:1"]`) + moveFrom(redis(`addresses: ["a:1"]`)), redis(`addresses: ["b:1"], tls: {enabled: true}`) + moveFrom(redis(`addresses: ["a:1"]`)), redis(`addresses: ["c:1"]`) + moveFrom(redis(`addresses: ["a:1"]`)), "no address of redis.addresses stays"},
	{"move back with another prefix", redis(`addresses: ["b:1"]`) + moveFrom(redis(`addresses: ["a:1"]`)) + "  keyPrefix: old", redis(`addresses: ["a:1"]`) + "\nkeyPrefix: old" + moveFrom(redis(`addresses: ["b:1"]`)) + "  keyPrefix: cart", redis(`addresses: ["a:1"]`) + moveFrom(redis(`addresses: ["b:1"]`)), "carts still move here from moveFrom"},
	{"move from memory", "", redis(`addresses: ["b:1"]`) + moveFrom(redis(`addresses: ["a:1"]`)), redis(`addresses: ["b:1"]`) + moveFrom(memory),
		"carts do not move from or to backend Memory or File, which belong to one pod or one node: remove moveFrom, and write orphanedCarts: Accept to leave the carts behind"},
	{"move to files", "", dynamo("tableName: carts") + moveFrom(redis(`addresses: ["a:1"]`)), "backend: {type: File}" + moveFrom(redis(`addresses: ["a:1"]`)), "carts do not move from or to backend Memory or File"},
	{"move from a file that each pod has", "", redis(`addresses: ["b:1"]`) + moveFrom(database("dialect: SQLite, volume: {claimName: carts}")), redis(`addresses: ["b:1"]`) + moveFrom(database("dialect: SQLite")),
		"carts do not move from or to a SQLite file without a claim, since each pod has another one: write database.volume.claimName, or remove moveFrom and write orphanedCarts: Accept"},
	{"move to a file that each pod has", "", database("dialect: SQLite, volume: {claimName: carts}") + moveFrom(redis(`addresses: ["b:1"]`)), database("dialect: SQLite, volume: {sizeLimit: 1Gi}") + moveFrom(redis(`addresses: ["b:1"]`)), "without a claim"},
	{"move between two files", "", database("dialect: SQLite, volume: {claimName: a}") + moveFrom(database("dialect: MySQL, host: a, name: shop")), database("dialect: SQLite, volume: {claimName: a}") + moveFrom(database("dialect: SQLite, volume: {claimName: b}")),
		"carts do not move from one SQLite file to another, since a pod mounts one: move them to another backend first"},
	{"prefix of a move", "", redis(`addresses: ["b:1"]`) + moveFrom(redis(`addresses: ["a:1"]`)) + "  keyPrefix: shop:cart", redis(`addresses: ["b:1"]`) + moveFrom(redis(`addresses: ["a:1"]`)) + "  keyPrefix: lock.cart",
		"moveFrom.keyPrefix must be what stood under keyPrefix before, for example cart"},

	{"image with a blank", "", memory + "sidecar: {image: registry.example.com:5000/a/b-c.d__e:1.0@sha256:" + strings.Repeat("0", 64) + "}", memory + `sidecar: {image: "a b"}`,
		`spec.sidecar.image: Invalid value: "a b": must be the name of an image, for example registry.example.com/sidecart/sidecar:1.0, or with @sha256:… and 64 digits`},
	{"image in capitals", "", memory + `sidecar: {image: "sidecart:V1"}`, memory + "sidecar: {image: Sidecart}", "must be the name of an image"},
	{"image with a short digest", "", memory + `sidecar: {image: "[fd00::1]:5000/sidecart"}`, memory + `sidecar: {image: "sidecart@sha256:00"}`, "must be the name of an image"},
	{"image of a URL", "", memory + `sidecar: {image: "localhost/sidecart"}`, memory + `sidecar: {image: "https://registry.example.com/sidecart"}`, "must be the name of an image"},
	{"unknown resource", "", memory + "sidecar: {resources: {requests: {cpu: 20m, ephemeral-storage: 1Mi}}}", memory + "sidecar: {resources: {requests: {mem: 32Mi}}}",
		"a container has cpu, memory and ephemeral-storage, and what a device plugin offers under a name with a /: write one of these"},
	{"negative resource", "", memory + "sidecar: {resources: {requests: {cpu: 0}}}", memory + "sidecar: {resources: {requests: {cpu: -1}}}", "a quantity must not be negative"},
	{"memory without a unit", "", memory + "sidecar: {resources: {requests: {memory: 16Mi}, limits: {memory: 16Mi}}}", memory + "sidecar: {resources: {requests: {memory: 64}, limits: {memory: 128}}}",
		"with less than 16Mi the container does not start: write for example memory: 128Mi, and mind the unit"},
	{"name of a Secret", "", redis(`addresses: ["a:1"], credentialsSecretRef: {name: redis.auth-1}`), redis(`addresses: ["a:1"], credentialsSecretRef: {name: Redis_auth}`),
		"must be the name of a Secret: lower-case letters, digits, - and ., for example redis-auth"},
	{"key of a Secret", "", redis(`addresses: ["a:1"], credentialsSecretRef: {name: r, passwordKey: .a_B-1}`), redis(`addresses: ["a:1"], credentialsSecretRef: {name: r, passwordKey: a/b}`),
		"must be a key of the Secret: letters, digits and _ . -, for example password"},
	{"name of a claim", "", database("dialect: SQLite, volume: {claimName: carts-1}"), database("dialect: SQLite, volume: {claimName: Carts}"),
		"must be the name of a PersistentVolumeClaim: lower-case letters, digits, - and ., for example carts"},
	{"size of a volume", "", database("dialect: SQLite, volume: {sizeLimit: 1}"), database("dialect: SQLite, volume: {sizeLimit: 0}"), "must be over zero, for example 1Gi"},
}

func TestRules(t *testing.T) {
	c := envtest.Start(t)
	namespace := c.Namespace(t)
	var mu sync.Mutex
	var seen []string // what the server said, in all
	t.Run("rule", func(t *testing.T) {
		for i, r := range rules {
			t.Run(r.name, func(t *testing.T) {
				name := fmt.Sprintf("rule-%d", i)
				of := func(spec string) *unstructured.Unstructured {
					return object(t, namespace, name, spec)
				}
				try := func(spec string) error {
					o := of(spec)
					if r.old == "" {
						return strict(c).Create(t.Context(), o, client.DryRunAll)
					}
					o.SetResourceVersion(currentVersion(t, c, of("{}")))
					return strict(c).Update(t.Context(), o, client.DryRunAll)
				}
				if r.old != "" {
					if err := strict(c).Create(t.Context(), of(r.old)); err != nil {
						t.Fatal(err)
					}
				}
				if err := try(r.good); err != nil {
					t.Errorf("the good one was refused: %v\n%s", err, r.good)
				}
				err := try(r.bad)
				if err == nil {
					t.Fatalf("the bad one was accepted:\n%s", r.bad)
				}
				if !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
					t.Errorf("refused as %T: %v", err, err)
				}
				if !strings.Contains(err.Error(), r.message) {
					t.Errorf("the server said\n\t%v\nnot\n\t%s", err, r.message)
				}
				if strings.Contains(err.Error(), "evaluating rule") {
					t.Errorf("a rule broke down: %v", err)
				}
				mu.Lock()
				seen = append(seen, err.Error())
				mu.Unlock()
			})
		}
	})
	if t.Failed() {
		return
	}
	long := object(t, namespace, strings.Repeat("n", 64), memory)
	err := strict(c).Create(t.Context(), long, client.DryRunAll)
	if err == nil || !strings.Contains(err.Error(), "the name must be at most 63 characters long") {
		t.Errorf("a name of 64 characters: %v", err)
	}
	seen = append(seen, fmt.Sprint(err))
	walk(schema(t), "", func(path string, s *apiextensionsv1.JSONSchemaProps) {
		for _, rule := range s.XValidations {
			if !slices.ContainsFunc(seen, func(said string) bool { return says(said, rule) }) {
				t.Errorf("%s: no row breaks the rule\n\t%s", path, rule.Rule)
			}
		}
	})
}

var literal = regexp.MustCompile(`'([^']{12,})'`)

// says reports whether an error has the message of a rule.
func says(said string, rule apiextensionsv1.ValidationRule) bool {
	if rule.Message != "" {
		return strings.Contains(said, rule.Message)
	}
	return slices.ContainsFunc(literal.FindAllStringSubmatch(rule.MessageExpression, -1), func(m []string) bool {
		return strings.Contains(said, strings.ReplaceAll(m[1], `\"`, `"`))
	})
}

func currentVersion(t *testing.T, c *envtest.Cluster, o *unstructured.Unstructured) string {
	t.Helper()
	if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
	return o.GetResourceVersion()
}
