package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
)

// BackendType names a kind of backend.
//
// +kubebuilder:validation:Enum=Redis;Memcached;DynamoDB;Database;Memory;File
type BackendType string

// The kinds of backends.
const (
	BackendRedis     BackendType = "Redis"
	BackendMemcached BackendType = "Memcached"
	BackendDynamoDB  BackendType = "DynamoDB"
	BackendDatabase  BackendType = "Database"
	BackendMemory    BackendType = "Memory"
	BackendFile      BackendType = "File"
)

// Backend is where carts live: a type, and the one section that belongs to it.
//
// +kubebuilder:validation:XValidation:rule="has(self.redis) == (self.type == 'Redis')",messageExpression="self.type == 'Redis' ? 'type Redis needs its section: write redis: {addresses: [\"redis:6379\"]}' : 'the section redis does not belong to type ' + self.type + ': remove it, or write type: Redis'"
// +kubebuilder:validation:XValidation:rule="has(self.memcached) == (self.type == 'Memcached')",messageExpression="self.type == 'Memcached' ? 'type Memcached needs its section: write memcached: {addresses: [\"memcached:11211\"]}' : 'the section memcached does not belong to type ' + self.type + ': remove it, or write type: Memcached'"
// +kubebuilder:validation:XValidation:rule="has(self.dynamodb) == (self.type == 'DynamoDB')",messageExpression="self.type == 'DynamoDB' ? 'type DynamoDB needs its section: write dynamodb: {region: eu-central-1, tableName: carts}' : 'the section dynamodb does not belong to type ' + self.type + ': remove it, or write type: DynamoDB'"
// +kubebuilder:validation:XValidation:rule="has(self.database) == (self.type == 'Database')",messageExpression="self.type == 'Database' ? 'type Database needs its section: write database: {dialect: SQLite}' : 'the section database does not belong to type ' + self.type + ': remove it, or write type: Database'"
// +kubebuilder:validation:XValidation:rule="!has(self.memory) || self.type == 'Memory'",messageExpression="'the section memory does not belong to type ' + self.type + ': remove it, or write type: Memory'"
// +kubebuilder:validation:XValidation:rule="!has(self.file) || self.type == 'File'",messageExpression="'the section file does not belong to type ' + self.type + ': remove it, or write type: File'"
type Backend struct {
	// The kind of backend. Memory, File, and Database with dialect SQLite serve one pod: they cannot lock across
	// replicas.
	// +required
	Type BackendType `json:"type"`

	// Redis, Valkey and other servers with their protocol.
	// +optional
	Redis *RedisBackend `json:"redis,omitempty"`
	// Memcached servers. They forget carts when they restart or run full.
	// +optional
	Memcached *MemcachedBackend `json:"memcached,omitempty"`
	// A table of Amazon DynamoDB.
	// +optional
	DynamoDB *DynamoDBBackend `json:"dynamodb,omitempty"`
	// A relational database.
	// +optional
	Database *DatabaseBackend `json:"database,omitempty"`
	// The memory of each sidecar: for tests and single pods; carts end with the pod.
	// +optional
	Memory *MemoryBackend `json:"memory,omitempty"`
	// A file per cart, on a volume of the pod.
	// +optional
	File *FileBackend `json:"file,omitempty"`
}

// CriticalBackend is where checkouts go: durable and shared by all replicas. An empty one stands for no such backend.
//
// +kubebuilder:validation:XValidation:rule="has(self.type) || (!has(self.dynamodb) && !has(self.database))",message="criticalBackend needs its type: write type: Database or type: DynamoDB, or leave criticalBackend empty for none"
// +kubebuilder:validation:XValidation:rule="!has(self.type) || has(self.dynamodb) == (self.type == 'DynamoDB')",messageExpression="self.type == 'DynamoDB' ? 'type DynamoDB needs its section: write dynamodb: {region: eu-central-1, tableName: carts}' : 'the section dynamodb does not belong to type ' + self.type + ': remove it, or write type: DynamoDB'"
// +kubebuilder:validation:XValidation:rule="!has(self.type) || has(self.database) == (self.type == 'Database')",messageExpression="self.type == 'Database' ? 'type Database needs its section: write database: {dialect: PostgreSQL, host: postgres, name: shop}' : 'the section database does not belong to type ' + self.type + ': remove it, or write type: Database'"
// +kubebuilder:validation:XValidation:rule="!has(self.database) || self.database.dialect != 'SQLite'",fieldPath=".database.dialect",message="a SQLite file belongs to one pod, and criticalBackend must be shared by all: write dialect: PostgreSQL or MySQL"
type CriticalBackend struct {
	// The kind of backend. It must survive restarts: Database or DynamoDB.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self in ['Database', 'DynamoDB']",message="criticalBackend.type must be Database or DynamoDB, the other backends do not promise to keep a checkout"
	Type BackendType `json:"type,omitempty"`
	// A table of Amazon DynamoDB.
	// +optional
	DynamoDB *DynamoDBBackend `json:"dynamodb,omitempty"`
	// A relational database: PostgreSQL or MySQL.
	// +optional
	Database *DatabaseBackend `json:"database,omitempty"`
}

// Address is a host and a port.
//
// +kubebuilder:validation:MaxLength=261
// +kubebuilder:validation:XValidation:rule="(self.startsWith('[') ? self.contains(']:') && isIP(self.substring(1, self.lastIndexOf(']:'))) : self.matches('^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?:[0-9]+$')) && self.matches(':[1-9][0-9]{0,4}$') && int(self.substring(self.lastIndexOf(':') + 1)) <= 65535",message="must be host:port, for example redis:6379 or [fd00::1]:6379"
type Address string

// RedisMode says what the addresses of Redis are.
//
// +kubebuilder:validation:Enum=Standalone;Sentinel;Cluster
type RedisMode string

// How the addresses of Redis are meant.
const (
	RedisStandalone RedisMode = "Standalone"
	RedisSentinel   RedisMode = "Sentinel"
	RedisCluster    RedisMode = "Cluster"
)

// RedisBackend is Redis, alone, behind Sentinels, or as a cluster.
//
// +kubebuilder:validation:XValidation:rule="self.mode != 'Standalone' || size(self.addresses) == 1",fieldPath=".addresses",message="mode Standalone takes one address: write one, or mode: Sentinel or mode: Cluster"
// +kubebuilder:validation:XValidation:rule="self.mode != 'Sentinel' || has(self.masterName)",message="mode Sentinel needs masterName: write the name that the Sentinels know the master by, for example masterName: mymaster"
// +kubebuilder:validation:XValidation:rule="self.mode == 'Sentinel' || !has(self.masterName)",fieldPath=".masterName",message="masterName is for mode Sentinel: remove it, or write mode: Sentinel"
// +kubebuilder:validation:XValidation:rule="self.mode == 'Sentinel' || !has(self.sentinelCredentialsSecretRef)",fieldPath=".sentinelCredentialsSecretRef",message="sentinelCredentialsSecretRef is for mode Sentinel: remove it, or write mode: Sentinel"
// +kubebuilder:validation:XValidation:rule="self.mode != 'Cluster' || self.database == 0",fieldPath=".database",message="a Redis Cluster has database 0 only: remove database, and keep shops apart by keyPrefix"
type RedisBackend struct {
	// host:port of the server, of the Sentinels, or of some nodes of the cluster (the others are found through them).
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Addresses []Address `json:"addresses"`

	// What the addresses are: one server (Standalone), Sentinels that know the master (Sentinel), or nodes of a cluster
	// (Cluster).
	// +optional
	// +kubebuilder:default=Standalone
	Mode RedisMode `json:"mode,omitempty"`

	// The Sentinels' name of the master. Mode Sentinel only.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	MasterName string `json:"masterName,omitempty"`

	// The number of the database. A cluster has 0 only.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	Database int32 `json:"database,omitempty"`

	// A prefix of every key, locks included: up to 128 letters, digits and "_", ":", ".", "-". With it, locks can have
	// the same names as those of a program that prefixes all of its keys. To keep carts apart, use keyPrefix.
	// +optional
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_:.-]*$')",message="namespace must be up to 128 letters, digits and _ : . -, for example laravel_database_laravel_cache_"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^(lock|queue|index|fence)[.]')",message="namespace must not begin with lock, queue, index or fence as its first part, these names are Sidecart's own: write another name"
	Namespace string `json:"namespace,omitempty"`

	// How many replicas of the master must have a change, or a lease, before it is acknowledged, so that a failover
	// does not lose it. If fewer confirm it within timeouts.write, the answer is UNAVAILABLE: the change was made once
	// or not at all. Each master needs one more replica than this, so that shops go on after one is lost.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16
	MinReplicas int32 `json:"minReplicas,omitempty"`

	// The secret with the password, and the user name if it is not "default".
	// +optional
	CredentialsSecretRef *RedisCredentials `json:"credentialsSecretRef,omitempty"`

	// The secret with the password of the Sentinels, if they ask for one. Mode Sentinel only.
	// +optional
	SentinelCredentialsSecretRef *RedisCredentials `json:"sentinelCredentialsSecretRef,omitempty"`

	// How to speak TLS. Write {enabled: true} to trust the usual authorities.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
}

// MemcachedBackend is one or more Memcached servers; a cart lives on one of them.
type MemcachedBackend struct {
	// host:port of every server. Adding or removing a server loses some carts, since they are looked for on another
	// server then.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Addresses []Address `json:"addresses"`
}

// DynamoDBBackend is a table of Amazon DynamoDB.
type DynamoDBBackend struct {
	// The name of the table.
	// +required
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_.-]{3,255}$')",message="must be 3 to 255 letters, digits and _ . -, for example carts"
	TableName string `json:"tableName"`

	// The region of the table, for example eu-central-1.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9-]+$')",message="must be a region, for example eu-central-1"
	Region string `json:"region"`

	// Another address than that of AWS, as a URL: for a local DynamoDB or a VPC endpoint.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="isURL(self) && (url(self).getScheme() == 'https' || url(self).getScheme() == 'http')",message="must be a URL, for example http://dynamodb:8000"
	Endpoint string `json:"endpoint,omitempty"`

	// Create the table if it is missing, billed per request and with expiry by its field expires. Without this, you
	// must create it.
	// +optional
	CreateTable bool `json:"createTable,omitempty"`

	// The secret with the access key. Without it the sidecar uses the role of the pod's service account or of its node.
	// +optional
	CredentialsSecretRef *AWSCredentials `json:"credentialsSecretRef,omitempty"`
}

// DatabaseDialect names a database product.
//
// +kubebuilder:validation:Enum=PostgreSQL;MySQL;SQLite
type DatabaseDialect string

// The database products.
const (
	PostgreSQL DatabaseDialect = "PostgreSQL"
	MySQL      DatabaseDialect = "MySQL"
	SQLite     DatabaseDialect = "SQLite"
)

// DatabaseBackend is a relational database. Sidecart makes its tables by itself.
//
// +kubebuilder:validation:XValidation:rule="self.dialect == 'SQLite' || has(self.urlSecretRef) != has(self.host)",messageExpression="has(self.host) ? 'host and urlSecretRef exclude each other: the URL names the host already, remove one of them' : 'dialect ' + self.dialect + ' needs an address: write host: postgres, or urlSecretRef: {name: shop-database}'"
// +kubebuilder:validation:XValidation:rule="self.dialect == 'SQLite' || !has(self.host) || has(self.name)",message="host needs the name of a database: write name: shop"
// +kubebuilder:validation:XValidation:rule="!has(self.urlSecretRef) || !(has(self.port) || has(self.name) || has(self.tls))",fieldPath=".urlSecretRef",message="the URL names port, database and TLS already: remove port, name and tls, or write host in place of urlSecretRef"
// +kubebuilder:validation:XValidation:rule="self.dialect != 'SQLite' || !(has(self.host) || has(self.port) || has(self.name) || has(self.credentialsSecretRef) || has(self.urlSecretRef) || has(self.tls))",fieldPath=".dialect",message="SQLite is a file of the pod: remove host, port, name, credentialsSecretRef, urlSecretRef and tls"
// +kubebuilder:validation:XValidation:rule="self.dialect == 'SQLite' || !has(self.volume)",fieldPath=".volume",message="volume is for dialect SQLite: remove it"
type DatabaseBackend struct {
	// The product: PostgreSQL, MySQL (which MariaDB is too), or SQLite, a file of one pod, which cannot lock across
	// replicas.
	// +required
	Dialect DatabaseDialect `json:"dialect"`

	// The name or IP address of the server.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="isIP(self) || self.matches('^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$')",message="must be a host name or an IP address without a port, for example postgres.shop.svc; the port goes into port"
	Host string `json:"host,omitempty"`

	// The port of the server. Without it 5432 for PostgreSQL and 3306 for MySQL.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// The name of the database on the server.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_-]+$')",message="must be letters, digits and _ -, for example shop"
	Name string `json:"name,omitempty"`

	// The secret with user name and password.
	// +optional
	CredentialsSecretRef *DatabaseCredentials `json:"credentialsSecretRef,omitempty"`

	// The secret with a whole URL, instead of host, port, name and tls, for example
	// postgres://user:password@postgres/shop.
	// +optional
	URLSecretRef *URLSecretRef `json:"urlSecretRef,omitempty"`

	// How to speak TLS. Write {enabled: true} to trust the usual authorities. Without it, TLS is used if the server
	// offers it, and its certificate is not verified. With urlSecretRef, the URL decides.
	// +optional
	TLS *DatabaseTLS `json:"tls,omitempty"`

	// Where the file of SQLite is. Dialect SQLite only.
	// +optional
	Volume *Volume `json:"volume,omitempty"`
}

// MemoryBackend is the memory of each sidecar. There is nothing to set.
type MemoryBackend struct{}

// FileBackend is a file per cart.
type FileBackend struct {
	// Where the files are.
	// +optional
	Volume *Volume `json:"volume,omitempty"`
}

// Volume is a volume of the pod that holds carts.
//
// +kubebuilder:validation:XValidation:rule="!has(self.claimName) || !has(self.sizeLimit)",fieldPath=".sizeLimit",message="a claim has its own size: remove sizeLimit, or claimName"
type Volume struct {
	// The PersistentVolumeClaim in the pod's namespace. Without it the volume and its carts end with the pod.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",message="must be the name of a PersistentVolumeClaim: lower-case letters, digits, - and ., for example carts"
	// +kubebuilder:validation:MaxLength=253
	ClaimName string `json:"claimName,omitempty"`

	// How large a volume without a claim may become, for example 1Gi.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="must be over zero, for example 1Gi"
	SizeLimit *resource.Quantity `json:"sizeLimit,omitempty"`
}
