package config

import (
	"bytes"
	"time"

	"net"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// APIVersion and Kind are those that a configuration file must have.
const (
	APIVersion = "sidecar.sidecart.dev/v1alpha1"
	Kind       = "SidecarConfig"
)

// Config is what a sidecar runs on. The zero value is not valid: start from [Default].
type Config struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	// Generation counts the configurations that the operator has rendered; 0 without an operator.
	Generation int64 `yaml:"generation"`
	// Backend is where carts live.
	Backend Backend `yaml:"backend"`
	// CriticalBackend is where checkouts go, if not into Backend: Database or DynamoDB.
	CriticalBackend *Backend `yaml:"criticalBackend,omitempty"`
	// MoveFrom is where carts move from, to Backend, while they are used. It is nil if none move.
	MoveFrom *MoveFrom `yaml:"moveFrom,omitempty"`
	// KeyPrefix starts the name of every cart in a shared backend: 1 to 64 of A-Z a-z 0-9 _ : . and -.
	KeyPrefix string `yaml:"keyPrefix"`
	// TTL is the life of a cart from its last change; 0 is for ever.
	TTL Duration `yaml:"ttl"`
	// IdempotencyWindow is for how long a cart remembers the idempotency keys of its last changes, if it lives as long.
	IdempotencyWindow Duration `yaml:"idempotencyWindow,omitempty"`
	// CheckoutRetention is for how long a checkout is kept after it was settled or has expired, whichever came last.
	CheckoutRetention Duration `yaml:"checkoutRetention,omitempty"`

	Locking  Locking  `yaml:"locking"`
	Timeouts Timeouts `yaml:"timeouts"`
	Limits   Limits   `yaml:"limits"`
	Listen   Listen   `yaml:"listen"`
	// LogLevel is the least serious level that is logged.
	LogLevel LogLevel `yaml:"logLevel"`
	// LogFormat is how log lines look.
	LogFormat LogFormat `yaml:"logFormat"`
	// AllowFlush permits the call that removes all carts of the prefix.
	AllowFlush bool `yaml:"allowFlush,omitempty"`
	// AllowList permits the call that lists all carts of the prefix.
	AllowList bool `yaml:"allowList,omitempty"`
	// Audit is the trail of who changed what. A sidecar of the release before does not know it.
	Audit Audit `yaml:"audit,omitempty"`
	// Fronts are the cart services of the demo shops.
	Fronts Fronts `yaml:"fronts,omitempty"`
}

// Fronts are services for programs that exist already.
type Fronts struct {
	// CheckoutWindow is how long after a user's GetCart an EmptyCart removes only what that GetCart saw; 0 is never.
	CheckoutWindow Duration `yaml:"checkoutWindow,omitempty"`
}

// Audit is a trail, in the database of the carts, of who changed what.
type Audit struct {
	// Retention is how long its lines are kept; 0 for no trail.
	Retention Duration `yaml:"retention,omitempty"`
}

// MarshalYAML leaves out newer fields that have their defaults: see [Limits.MarshalYAML].
func (c Config) MarshalYAML() (any, error) {
	type plain Config
	if c.IdempotencyWindow == Default().IdempotencyWindow {
		c.IdempotencyWindow = 0
	}
	if c.CheckoutRetention == Default().CheckoutRetention {
		c.CheckoutRetention = 0
	}
	return plain(c), nil
}

// Backend says where carts live: a type, and the section of that type.
type Backend struct {
	Type      BackendType `yaml:"type"`
	Redis     *Redis      `yaml:"redis,omitempty"`
	Memcached *Memcached  `yaml:"memcached,omitempty"`
	DynamoDB  *DynamoDB   `yaml:"dynamodb,omitempty"`
	Database  *Database   `yaml:"database,omitempty"`
	File      *File       `yaml:"file,omitempty"`
	Memory    *Memory     `yaml:"memory,omitempty"`
}

// MoveFrom is the backend that carts move away from.
type MoveFrom struct {
	Backend Backend `yaml:"backend"`
	// KeyPrefix is that of the carts there; "" for the same as that of the carts in the new backend.
	KeyPrefix string `yaml:"keyPrefix,omitempty"`
}

// Redis is a Redis, Valkey or anything that speaks their protocol.
type Redis struct {
	// Addresses are host:port: the server, the sentinels, or seeds of the cluster. A single server may be named by the
	// absolute path of its Unix socket.
	Addresses []string `yaml:"addresses"`
	// Mode is "" for Standalone.
	Mode RedisMode `yaml:"mode,omitempty"`
	// MasterName is what the sentinels call the master; for Sentinel only.
	MasterName string `yaml:"masterName,omitempty"`
	// Database is the number of the logical database; a cluster has only 0.
	Database int `yaml:"database,omitempty"`
	// Namespace stands before every key, locks included: up to 128 of A-Z a-z 0-9 _ : . and -.
	Namespace string `yaml:"namespace,omitempty"`
	// MinReplicas is how many replicas must have a change before it is acknowledged; 0 for none.
	MinReplicas          int    `yaml:"minReplicas,omitempty"`
	UsernameFile         string `yaml:"usernameFile,omitempty"`
	PasswordFile         string `yaml:"passwordFile,omitempty"`
	SentinelUsernameFile string `yaml:"sentinelUsernameFile,omitempty"`
	SentinelPasswordFile string `yaml:"sentinelPasswordFile,omitempty"`
	TLS                  TLS    `yaml:"tls,omitempty"`
}

// TLS is how to speak TLS to a backend. It is used if Enabled is true or any other field is set, since a configuration
// with a CA does not mean plain text.
type TLS struct {
	Enabled bool `yaml:"enabled,omitempty"`
	// CAFile holds the PEM certificates to trust; "" for those of the system.
	CAFile string `yaml:"caFile,omitempty"`
	// CertFile and KeyFile are the client's certificate and key in PEM.
	CertFile string `yaml:"certFile,omitempty"`
	KeyFile  string `yaml:"keyFile,omitempty"`
	// ServerName is the name to verify; "" for the host of the address.
	ServerName string `yaml:"serverName,omitempty"`
	// InsecureSkipVerify accepts any certificate.
	InsecureSkipVerify bool `yaml:"insecureSkipVerify,omitempty"`
}

// Active reports whether TLS is to be spoken.
func (t TLS) Active() bool { return t != TLS{} }

// Memcached is a set of Memcached servers.
type Memcached struct {
	// Addresses are host:port.
	Addresses []string `yaml:"addresses"`
}

// DynamoDB is a table.
type DynamoDB struct {
	TableName string `yaml:"tableName"`
	Region    string `yaml:"region"`
	// Endpoint is the URL of another server than Amazon's.
	Endpoint string `yaml:"endpoint,omitempty"`
	// CreateTable makes the table if it is missing.
	CreateTable bool `yaml:"createTable,omitempty"`
	// AccessKeyIDFile and SecretAccessKeyFile hold static credentials; without them those of the environment are used.
	AccessKeyIDFile     string `yaml:"accessKeyIdFile,omitempty"`
	SecretAccessKeyFile string `yaml:"secretAccessKeyFile,omitempty"`
}

// Database is a SQL database.
type Database struct {
	// URL is sqlite:PATH, postgres://… or mysql://…; in a file without a password.
	URL URL `yaml:"url,omitempty"`
	// URLFile holds the URL instead, and may hold a password with it.
	URLFile      string `yaml:"urlFile,omitempty"`
	UsernameFile string `yaml:"usernameFile,omitempty"`
	PasswordFile string `yaml:"passwordFile,omitempty"`
	// TLS is not for SQLite. If it is not active, the parameters of the URL decide about TLS, as its driver reads them.
	TLS TLS `yaml:"tls,omitempty"`
}

// File is a folder with a file for each cart.
type File struct {
	Directory string `yaml:"directory"`
}

// Memory is a map in the process. It has no settings.
type Memory struct{}

// Locking says when a lock is taken in the backend.
type Locking struct {
	Mode LockingMode `yaml:"mode"`
	// WaitTimeout is the longest wait for a lock.
	WaitTimeout Duration `yaml:"waitTimeout"`
	// LeaseDuration is how long a lock lives if its holder does not renew it.
	LeaseDuration Duration `yaml:"leaseDuration"`
	// Reason is why the operator chose the mode, for the status page.
	Reason string `yaml:"reason,omitempty"`
}

// Timeouts bound what a sidecar waits for.
type Timeouts struct {
	// Dial, Read and Write bound one exchange with the backend.
	Dial  Duration `yaml:"dial"`
	Read  Duration `yaml:"read"`
	Write Duration `yaml:"write"`
	// Request bounds one request of a client, the wait for a lock included.
	Request Duration `yaml:"request"`
}

// Limits bound what a cart may hold.
type Limits struct {
	MaxItems int `yaml:"maxItems"`
	// MaxDocumentBytes is the size of one document as compact JSON.
	MaxDocumentBytes int `yaml:"maxDocumentBytes"`
	// MaxCartBytes is the size of a whole cart, with all of its documents.
	MaxCartBytes int `yaml:"maxCartBytes,omitempty"`
	// MaxMetadataKeys is how many metadata keys a cart may hold.
	MaxMetadataKeys int `yaml:"maxMetadataKeys,omitempty"`
	// MaxQuantity is the largest quantity of one item.
	MaxQuantity int64 `yaml:"maxQuantity"`
}

// MarshalYAML leaves out limits that an older release does not know, if they have their defaults. A sidecar refuses a
// file with an unknown field, and an older sidecar may restart on a file that a newer operator wrote.
func (l Limits) MarshalYAML() (any, error) {
	type plain Limits
	d := Default().Limits
	if l.MaxCartBytes == d.MaxCartBytes {
		l.MaxCartBytes = 0
	}
	if l.MaxMetadataKeys == d.MaxMetadataKeys {
		l.MaxMetadataKeys = 0
	}
	return plain(l), nil
}

// Listen says where the sidecar serves. The API has no authentication, so clients reach it only on loopback or by the
// socket.
type Listen struct {
	GRPC string `yaml:"grpc"`
	HTTP string `yaml:"http"`
	// Admin serves probes, metrics and the status page, on any address.
	Admin string `yaml:"admin"`
	// Socket is the path of a Unix socket that serves gRPC and HTTP; "" for none.
	Socket string `yaml:"socket,omitempty"`
}

// Ports where a sidecar listens by default.
const (
	GRPCPort  = 7420
	HTTPPort  = 7421
	AdminPort = 7422
)

// defaultWait is how long a change waits for a lock, and how long a lock lives after its holder has died.
const defaultWait = Duration(5 * time.Second)

// RequestTimeout is the default for how long a request may take: its wait for a lock, and a second for the work.
func RequestTimeout(wait Duration) Duration {
	return min(wait+Duration(time.Second), Duration(MaxTimeout))
}

func onLoopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Default is the configuration of a sidecar without any setting: it keeps carts in a SQLite file in its working folder.
func Default() *Config {
	return &Config{
		APIVersion: APIVersion,
		Kind:       Kind,
		Backend:    Backend{Type: BackendDatabase, Database: &Database{URL: DefaultDatabaseURL}},
		KeyPrefix:  "cart",
		TTL:        Duration(24 * time.Hour),

		IdempotencyWindow: Duration(24 * time.Hour),
		CheckoutRetention: Duration(720 * time.Hour),
		Locking: Locking{
			Mode:          LockingAuto,
			WaitTimeout:   defaultWait,
			LeaseDuration: defaultWait,
		},
		Timeouts: Timeouts{
			Dial:    Duration(time.Second),
			Read:    Duration(500 * time.Millisecond),
			Write:   Duration(500 * time.Millisecond),
			Request: RequestTimeout(defaultWait),
		},
		Limits:    Limits{MaxItems: 1000, MaxDocumentBytes: 1 << 20, MaxCartBytes: 2 << 20, MaxMetadataKeys: 1000, MaxQuantity: 10_000},
		Listen:    Listen{GRPC: onLoopback(GRPCPort), HTTP: onLoopback(HTTPPort), Admin: onLoopback(AdminPort)},
		LogLevel:  LogInfo,
		LogFormat: LogText,
	}
}

// DefaultDatabaseURL is the database of a sidecar without any setting.
const DefaultDatabaseURL URL = "sqlite:sidecart.db"

// Load reads a configuration file over the defaults. The error is [Problems] and lists everything that is wrong.
func Load(data []byte) (*Config, error) {
	b := NewBuilder()
	b.File(data)
	return b.Build()
}

// Marshal writes c as a file that [Load] reads as an equal configuration. The same configuration always gives the same
// bytes.
func Marshal(c *Config) ([]byte, error) {
	var buf bytes.Buffer
	e := yaml.NewEncoder(&buf)
	e.SetIndent(2)
	if err := e.Encode(c); err != nil {
		return nil, err
	}
	return buf.Bytes(), e.Close()
}
