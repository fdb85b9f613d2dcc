package redis

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Mode says how the servers work together.
type Mode string

// The modes.
const (
	Standalone Mode = "Standalone"
	Sentinel   Mode = "Sentinel"
	Cluster    Mode = "Cluster"
)

// Config is what a [Store] runs with. Addresses and Prefix have no default.
type Config struct {
	// Addresses are host:port: of the one server, of the sentinels, or of some nodes of the Cluster. A path is the unix
	// socket of a single server.
	Addresses []string
	// Mode is Standalone if it is empty.
	Mode Mode
	// MasterName is what the sentinels call the master.
	MasterName string

	// Username and Password are for the servers; the zero value is none.
	Username, Password storage.Secret
	// SentinelUsername and SentinelPassword are for the sentinels themselves.
	SentinelUsername, SentinelPassword storage.Secret
	// Database is the number of the database; a Cluster has only 0.
	Database int
	// TLS turns TLS on, for sentinels as well; nil is plain.
	TLS *tls.Config

	// Prefix is what all names begin with: see [ValidatePrefix].
	Prefix string
	// Namespace stands before every key and channel, including locks: see [ValidateNamespace]. With it, keys can equal
	// those of a program that prefixes all of its own.
	Namespace string

	// 0 stands for 1 s in DialTimeout, and for 500 ms in ReadTimeout and WriteTimeout.
	DialTimeout, ReadTimeout, WriteTimeout time.Duration
	// MinReplicas is how many replicas must confirm a change, or a lease, within WriteTimeout before it is
	// acknowledged. If fewer do, the answer is ErrUnavailable. 0 waits for no replica.
	MinReplicas int
	// PoolSize is how many connections a server is given at most at ordinary times; 0 for ten per CPU.
	PoolSize int
}

// Validate says everything that is wrong, each as an [*cart.InvalidError] on the name of the field.
func (c *Config) Validate() error {
	var problems []error
	invalid := func(field, format string, args ...any) {
		problems = append(problems, cart.Invalidf(field, format, args...))
	}
	switch c.Mode {
	case "", Standalone:
		if len(c.Addresses) != 1 {
			invalid("addresses", "a Standalone server has exactly one address, %d are given", len(c.Addresses))
		}
	case Sentinel, Cluster:
		if len(c.Addresses) == 0 {
			invalid("addresses", "must name at least one server, such as redis:6379")
		}
	default:
		invalid("mode", "%q is none: write Standalone, Sentinel or Cluster", c.Mode)
	}
	for _, a := range c.Addresses {
		if isSocket(a) && (c.Mode == "" || c.Mode == Standalone) {
			continue
		}
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			invalid("addresses", "%q is no host:port, such as redis:6379", a)
		}
	}
	if (c.Mode == Sentinel) != (c.MasterName != "") {
		invalid("masterName", "must be given for Sentinel, and for Sentinel only")
	}
	if c.Database < 0 || c.Database > 0 && c.Mode == Cluster {
		invalid("database", "%d is not possible: a Cluster has only 0, others have 0 and up", c.Database)
	}
	for field, d := range map[string]time.Duration{"dial": c.DialTimeout, "read": c.ReadTimeout, "write": c.WriteTimeout} {
		if d < 0 {
			invalid("timeouts."+field, "is %v, must not be negative", d)
		}
	}
	if c.MinReplicas < 0 {
		invalid("minReplicas", "is %d, must not be negative", c.MinReplicas)
	}
	if c.PoolSize < 0 {
		invalid("poolSize", "is %d, must not be negative", c.PoolSize)
	}
	if err := ValidatePrefix("keyPrefix", c.Prefix); err != nil {
		problems = append(problems, err)
	}
	if err := ValidateNamespace("namespace", c.Namespace); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// secrets returns what no error may quote. Servers quote the user whom they refuse, and the arguments of a command that
// they do not know, including AUTH.
func (c *Config) secrets() []storage.Secret {
	return []storage.Secret{c.Password, c.SentinelPassword, c.Username, c.SentinelUsername}
}

func isSocket(address string) bool { return strings.HasPrefix(address, "/") }

// quiet keeps the driver from writing to standard error. All that matters comes as an error of a call. No other package
// uses the driver.
var quiet = sync.OnceFunc(logging.Disable)

// timeouts are those of the configuration, or their defaults.
type timeouts struct{ dial, read, write time.Duration }

func (c *Config) timeouts() timeouts {
	const half = 500 * time.Millisecond
	return timeouts{cmp.Or(c.DialTimeout, time.Second), cmp.Or(c.ReadTimeout, half), cmp.Or(c.WriteTimeout, half)}
}

// connect makes the client; it does not dial. Retries are off everywhere: a commit must never be sent twice, since the
// first may have been made although no answer came.
func (c *Config) connect() goredis.UniversalClient {
	quiet()
	const (
		noRetries = -1
		// RESP2: the replies are single strings or flat lists, so that RESP3 would only cost a longer handshake.
		protocol = 2
		// One pool for everything, so that PoolSize bounds all connections.
		noPipelinePool = -1
	)
	minIdle := 1
	if c.TLS != nil {
		// Whether the server has closed a connection is only seen once something was read from it: see heardTLS. One
		// that was opened ahead has read nothing, and would fail its first call.
		minIdle = 0
	}
	t := c.timeouts()
	switch c.Mode {
	case Sentinel:
		client := goredis.NewFailoverClient(&goredis.FailoverOptions{
			MasterName: c.MasterName, SentinelAddrs: c.Addresses,
			SentinelUsername: c.SentinelUsername.Reveal(), SentinelPassword: c.SentinelPassword.Reveal(),
			Username: c.Username.Reveal(), Password: c.Password.Reveal(), DB: c.Database, Dialer: c.dialer(),
			Protocol: protocol, MaxRetries: noRetries, DialerRetries: 1, DisableIdentity: true, ContextTimeoutEnabled: true,
			DialTimeout: t.dial, ReadTimeout: t.read, WriteTimeout: t.write, PoolSize: c.PoolSize, MinIdleConns: minIdle,
			PipelinePoolSize: noPipelinePool,
		})
		c.confirm(client)
		return client
	case Cluster:
		// The driver follows MOVED and ASK whatever MaxRetries says. For other errors see once.
		client := goredis.NewClusterClient(&goredis.ClusterOptions{
			Addrs:    c.Addresses,
			Username: c.Username.Reveal(), Password: c.Password.Reveal(), Dialer: c.dialer(),
			Protocol: protocol, MaxRetries: noRetries, DialerRetries: 1, DisableIdentity: true, ContextTimeoutEnabled: true,
			DialTimeout: t.dial, ReadTimeout: t.read, WriteTimeout: t.write, PoolSize: c.PoolSize, MinIdleConns: minIdle,
			PipelinePoolSize: noPipelinePool, DisableRoutingPolicies: true,
		})
		client.OnNewNode(c.confirm)
		return client
	}
	network := "tcp"
	if isSocket(c.Addresses[0]) {
		network = "unix"
	}
	client := goredis.NewClient(&goredis.Options{
		Network: network, Addr: c.Addresses[0],
		Username: c.Username.Reveal(), Password: c.Password.Reveal(), DB: c.Database, Dialer: c.dialer(),
		Protocol: protocol, MaxRetries: noRetries, DialerRetries: 1, DisableIdentity: true, ContextTimeoutEnabled: true,
		DialTimeout: t.dial, ReadTimeout: t.read, WriteTimeout: t.write, PoolSize: c.PoolSize, MinIdleConns: minIdle,
		PipelinePoolSize: noPipelinePool,
	})
	c.confirm(client)
	return client
}
