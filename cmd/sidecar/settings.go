package main

import (
	"strings"
)

// setting is one setting, which a flag and an environment variable can set.
type setting struct {
	// flag is its name without dashes.
	flag string
	// paths are the fields of the configuration that it sets.
	paths []string
	// value names its value in the help; "" for a switch.
	value string
	usage string
	// list says that it may be repeated; values are gathered with commas.
	list bool
}

// env is the environment variable of the setting.
func (s *setting) env() string {
	return "SIDECART_" + strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_"))
}

// group is a heading of the help and what belongs under it.
type group struct {
	title    string
	settings []setting
}

// groups are all settings. Within one layer they are applied in this order, so that the backend comes before its
// section, and the timeout of locks before the two numbers that it stands for.
var groups = []group{
	{"Backend", []setting{
		{flag: "backend", paths: at("backend.type"), value: "TYPE", usage: "where carts live: redis, memcached, dynamodb, database, memory or file"},
		{flag: "database-url", paths: at("backend.database.url"), value: "URL", usage: "sqlite:PATH of the file to keep carts in, postgres://HOST/NAME or mysql://HOST/NAME"},
		{flag: "database-url-file", paths: at("backend.database.urlFile"), value: "FILE", usage: "file that holds the URL instead, and may hold a password with it"},
		{flag: "database-username-file", paths: at("backend.database.usernameFile"), value: "FILE", usage: "file that holds the user name"},
		{flag: "database-password-file", paths: at("backend.database.passwordFile"), value: "FILE", usage: "file that holds the password"},
		{flag: "database-tls", paths: at("backend.database.tls.enabled"), usage: "speak TLS, which any other TLS flag implies"},
		{flag: "database-tls-ca-file", paths: at("backend.database.tls.caFile"), value: "FILE", usage: "PEM certificates to trust (default those of the system)"},
		{flag: "database-tls-cert-file", paths: at("backend.database.tls.certFile"), value: "FILE", usage: "client certificate in PEM"},
		{flag: "database-tls-key-file", paths: at("backend.database.tls.keyFile"), value: "FILE", usage: "key of the client certificate in PEM"},
		{flag: "database-tls-server-name", paths: at("backend.database.tls.serverName"), value: "NAME", usage: "name to verify (default the host of the URL)"},
		{flag: "database-tls-insecure-skip-verify", paths: at("backend.database.tls.insecureSkipVerify"), usage: "accept any certificate"},
		{flag: "dynamodb-table", paths: at("backend.dynamodb.tableName"), value: "NAME", usage: "the table"},
		{flag: "dynamodb-region", paths: at("backend.dynamodb.region"), value: "NAME", usage: "its region"},
		{flag: "dynamodb-endpoint", paths: at("backend.dynamodb.endpoint"), value: "URL", usage: "another server than Amazon's"},
		{flag: "dynamodb-create-table", paths: at("backend.dynamodb.createTable"), usage: "make the table where it is missing"},
		{flag: "dynamodb-access-key-id-file", paths: at("backend.dynamodb.accessKeyIdFile"), value: "FILE", usage: "file that holds the id of the access key (default what the environment has)"},
		{flag: "dynamodb-secret-access-key-file", paths: at("backend.dynamodb.secretAccessKeyFile"), value: "FILE", usage: "file that holds its secret"},
		{flag: "file-directory", paths: at("backend.file.directory"), value: "FOLDER", usage: "folder with a file for each cart"},
		{flag: "memcached-address", paths: at("backend.memcached.addresses"), value: "HOST:PORT", usage: "a server; repeat it or separate with commas", list: true},
		{flag: "redis-address", paths: at("backend.redis.addresses"), value: "HOST:PORT", usage: "the server, the sentinels or seeds of the cluster; repeat it or separate with commas", list: true},
		{flag: "redis-mode", paths: at("backend.redis.mode"), value: "MODE", usage: "standalone, sentinel or cluster (default standalone)"},
		{flag: "redis-master-name", paths: at("backend.redis.masterName"), value: "NAME", usage: "how the sentinels call the master"},
		{flag: "redis-database", paths: at("backend.redis.database"), value: "N", usage: "number of the logical database (default 0)"},
		{flag: "redis-namespace", paths: at("backend.redis.namespace"), value: "NAME", usage: "stands before every key, locks included (default nothing)"},
		{flag: "redis-min-replicas", paths: at("backend.redis.minReplicas"), value: "N", usage: "how many replicas must have a change before it is acknowledged (default 0)"},
		{flag: "redis-username-file", paths: at("backend.redis.usernameFile"), value: "FILE", usage: "file that holds the user name"},
		{flag: "redis-password-file", paths: at("backend.redis.passwordFile"), value: "FILE", usage: "file that holds the password"},
		{flag: "redis-sentinel-username-file", paths: at("backend.redis.sentinelUsernameFile"), value: "FILE", usage: "the same for the sentinels"},
		{flag: "redis-sentinel-password-file", paths: at("backend.redis.sentinelPasswordFile"), value: "FILE", usage: "the same for the sentinels"},
		{flag: "redis-tls", paths: at("backend.redis.tls.enabled"), usage: "speak TLS, which any other TLS flag implies"},
		{flag: "redis-tls-ca-file", paths: at("backend.redis.tls.caFile"), value: "FILE", usage: "PEM certificates to trust (default those of the system)"},
		{flag: "redis-tls-cert-file", paths: at("backend.redis.tls.certFile"), value: "FILE", usage: "client certificate in PEM"},
		{flag: "redis-tls-key-file", paths: at("backend.redis.tls.keyFile"), value: "FILE", usage: "key of the client certificate in PEM"},
		{flag: "redis-tls-server-name", paths: at("backend.redis.tls.serverName"), value: "NAME", usage: "name to verify (default the host of the address)"},
		{flag: "redis-tls-insecure-skip-verify", paths: at("backend.redis.tls.insecureSkipVerify"), usage: "accept any certificate"},
	}},
	{"Backend for checkouts", []setting{
		{flag: "critical-backend", paths: at("criticalBackend.type"), value: "TYPE", usage: "where checkouts go: database or dynamodb (default beside the carts)"},
		{flag: "critical-database-url", paths: at("criticalBackend.database.url"), value: "URL", usage: "postgres://HOST/NAME or mysql://HOST/NAME"},
		{flag: "critical-database-url-file", paths: at("criticalBackend.database.urlFile"), value: "FILE", usage: "file that holds the URL instead, and may hold a password with it"},
		{flag: "critical-database-username-file", paths: at("criticalBackend.database.usernameFile"), value: "FILE", usage: "file that holds the user name"},
		{flag: "critical-database-password-file", paths: at("criticalBackend.database.passwordFile"), value: "FILE", usage: "file that holds the password"},
		{flag: "critical-database-tls", paths: at("criticalBackend.database.tls.enabled"), usage: "speak TLS, which any other TLS flag implies"},
		{flag: "critical-database-tls-ca-file", paths: at("criticalBackend.database.tls.caFile"), value: "FILE", usage: "PEM certificates to trust (default those of the system)"},
		{flag: "critical-database-tls-cert-file", paths: at("criticalBackend.database.tls.certFile"), value: "FILE", usage: "client certificate in PEM"},
		{flag: "critical-database-tls-key-file", paths: at("criticalBackend.database.tls.keyFile"), value: "FILE", usage: "key of the client certificate in PEM"},
		{flag: "critical-database-tls-server-name", paths: at("criticalBackend.database.tls.serverName"), value: "NAME", usage: "name to verify (default the host of the URL)"},
		{flag: "critical-database-tls-insecure-skip-verify", paths: at("criticalBackend.database.tls.insecureSkipVerify"), usage: "accept any certificate"},
		{flag: "critical-dynamodb-table", paths: at("criticalBackend.dynamodb.tableName"), value: "NAME", usage: "the table"},
		{flag: "critical-dynamodb-region", paths: at("criticalBackend.dynamodb.region"), value: "NAME", usage: "its region"},
		{flag: "critical-dynamodb-endpoint", paths: at("criticalBackend.dynamodb.endpoint"), value: "URL", usage: "another server than Amazon's"},
		{flag: "critical-dynamodb-create-table", paths: at("criticalBackend.dynamodb.createTable"), usage: "make the table where it is missing"},
		{flag: "critical-dynamodb-access-key-id-file", paths: at("criticalBackend.dynamodb.accessKeyIdFile"), value: "FILE", usage: "file that holds the id of the access key (default what the environment has)"},
		{flag: "critical-dynamodb-secret-access-key-file", paths: at("criticalBackend.dynamodb.secretAccessKeyFile"), value: "FILE", usage: "file that holds its secret"},
	}},
	{"Carts", []setting{
		{flag: "key-prefix", paths: at("keyPrefix"), value: "PREFIX", usage: "start of every name in a shared backend"},
		{flag: "ttl", paths: at("ttl"), value: "DURATION", usage: "life of a cart from its last change; 0 is for ever"},
		{flag: "idempotency-window", paths: at("idempotencyWindow"), value: "DURATION", usage: "how long a cart remembers the idempotency keys of its last 64 changes"},
		{flag: "checkout-retention", paths: at("checkoutRetention"), value: "DURATION", usage: "how long a checkout is kept after it was settled or has expired"},
		{flag: "max-items", paths: at("limits.maxItems"), value: "N", usage: "how many items a cart may hold"},
		{flag: "max-document-bytes", paths: at("limits.maxDocumentBytes"), value: "BYTES", usage: "size of one document as compact JSON"},
		{flag: "max-cart-bytes", paths: at("limits.maxCartBytes"), value: "BYTES", usage: "size of a whole cart, with all of its documents"},
		{flag: "max-metadata-keys", paths: at("limits.maxMetadataKeys"), value: "N", usage: "how many metadata keys a cart may hold"},
		{flag: "max-quantity", paths: at("limits.maxQuantity"), value: "N", usage: "largest quantity of one item"},
		{flag: "audit-retention", paths: at("audit.retention"), value: "DURATION", usage: "keep an audit trail so long, in PostgreSQL or MySQL; 0 keeps none"},
		{flag: "allow-flush", paths: at("allowFlush"), usage: "permit the call that removes all carts of the prefix"},
		{flag: "allow-list", paths: at("allowList"), usage: "permit the call that lists all carts of the prefix"},
		{flag: "front-checkout-window", paths: at("fronts.checkoutWindow"), value: "DURATION", usage: "how long after its GetCart the EmptyCart of a demo shop takes only what that saw; 0 is never"},
	}},
	{"Locking", []setting{
		{flag: "locking", paths: at("locking.mode"), value: "MODE", usage: "enabled, disabled or auto, which is enabled wherever the backend can be shared"},
		{flag: "lock-timeout", paths: at("locking.waitTimeout", "locking.leaseDuration"), value: "DURATION", usage: "sets both of the following"},
		{flag: "wait-timeout", paths: at("locking.waitTimeout"), value: "DURATION", usage: "longest wait for a lock"},
		{flag: "lease-duration", paths: at("locking.leaseDuration"), value: "DURATION", usage: "life of a lock that its holder does not renew"},
	}},
	{"Timeouts", []setting{
		{flag: "dial-timeout", paths: at("timeouts.dial"), value: "DURATION", usage: "to connect to the backend"},
		{flag: "read-timeout", paths: at("timeouts.read"), value: "DURATION", usage: "for an answer of the backend"},
		{flag: "write-timeout", paths: at("timeouts.write"), value: "DURATION", usage: "to send to the backend"},
		{flag: "request-timeout", paths: at("timeouts.request"), value: "DURATION", usage: "for a whole request; follows --wait-timeout, and a second more"},
	}},
	{"Listeners", []setting{
		{flag: "grpc-address", paths: at("listen.grpc"), value: "HOST:PORT", usage: "loopback address for gRPC; port 0 picks a free one"},
		{flag: "http-address", paths: at("listen.http"), value: "HOST:PORT", usage: "loopback address for HTTP and JSON"},
		{flag: "admin-address", paths: at("listen.admin"), value: "HOST:PORT", usage: "address for /livez, /readyz, /metrics and /statusz"},
		{flag: "socket", paths: at("listen.socket"), value: "PATH", usage: "Unix socket that serves gRPC and HTTP as well"},
	}},
	{"Logs", []setting{
		{flag: "log-level", paths: at("logLevel"), value: "LEVEL", usage: "debug, info, warn or error"},
		{flag: "log-format", paths: at("logFormat"), value: "FORMAT", usage: "text or json"},
	}},
}

func at(paths ...string) []string { return paths }
