package redis

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// secured are servers that speak TLS, and the configuration that reaches them: with a certificate of its own, and as
// the users whom the documentation names.
type secured struct {
	config    Config
	authority *testserver.Authority
	masters   []*testserver.Redis
	replicas  []*testserver.Redis // replica i follows master i
}

// serversOverTLS starts a master that a sentinel watches, or a Cluster, with a replica of each master. Their
// certificates are valid for names. Without names, each is valid for the server's own address.
func serversOverTLS(t *testing.T, mode Mode, names ...string) secured {
	t.Helper()
	s := secured{authority: testserver.NewAuthority(t)}
	secure := s.authority.Secure(names...)
	password := testserver.WithPassword("s3cret-word")
	if mode == Cluster {
		c := testserver.StartRedisCluster(t, 3, secure, password)
		s.config = Config{Addresses: c.Addrs(), Mode: Cluster}
		s.masters, s.replicas = c.Nodes, c.AddReplicas(t)
	} else {
		master := testserver.StartRedis(t, secure, password)
		replica := testserver.StartRedisReplica(t, master, secure, password)
		sentinel := testserver.StartSentinels(t, 1, master, 1, secure)[0]
		do(t, sentinel, "ACL", "SETUSER", "watcher", "on", ">WATCHWORD", "+sentinel", "+subscribe", "+ping", "&*")
		s.config = Config{
			Addresses: []string{sentinel.TLSAddr}, Mode: Sentinel, MasterName: testserver.SentinelMaster,
			SentinelUsername: storage.NewSecret("watcher", "/s/watcher"), SentinelPassword: storage.NewSecret("WATCHWORD", "/s/watchword"),
		}
		s.masters, s.replicas = []*testserver.Redis{master}, []*testserver.Redis{replica}
	}
	s.config = asLeastUser(t, s.config, slices.Concat(s.masters, s.replicas)...)
	s.config.TLS = s.client(t)
	return s
}

// client trusts the servers, and has a certificate.
func (s secured) client(t *testing.T) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(s.authority.Issue("sidecart"))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: s.authority.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

// TestFailoverOverTLS: the server that takes over is verified by its own address, or by the name that the configuration
// gives to all servers. A Cluster tells the client to go there with MOVED.
func TestFailoverOverTLS(t *testing.T) {
	for _, mode := range []Mode{Sentinel, Cluster} {
		for name, names := range map[string][]string{"own addresses": nil, "one name": {"redis.example"}} {
			t.Run(string(mode)+"/"+name, func(t *testing.T) {
				servers := serversOverTLS(t, mode, names...)
				if names != nil {
					servers.config.TLS.ServerName = names[0]
				}
				servers.config.Prefix = "p"
				s := open(t, servers.config)
				mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
				lease := leaseOf(cart.PartConditions)
				mustLease(t, s, u1, lease)
				master, replica := servers.of(t, s)
				await(t, "the replica has all", func() bool { return offset(t, master) == offset(t, replica) })

				if mode == Sentinel {
					master.Kill()
					await(t, "the replica is the master", func() bool { return s.Ping(t.Context()) == nil })
				} else {
					do(t, replica, "CLUSTER", "FAILOVER")
				}
				replica.AwaitRole("master")
				mustCommit(t, s, storage.Committed, replace(u1, mustLoad(t, s, u1), `{"b":1}`))
				if now := mustLoad(t, s, u1); now.Version != 2 {
					t.Errorf("version %d, want 2", now.Version)
				}
				if _, err := s.Renew(t.Context(), u1, lease.Token, time.Hour); err != nil {
					t.Errorf("Renew: %v", err)
				}
				if mode == Cluster && !strings.Contains(do(t, master, "INFO", "errorstats"), "errorstat_MOVED") {
					t.Error("the former master was not asked")
				}
				if clients := do(t, replica, "CLIENT", "LIST"); !strings.Contains(clients, "user=sidecart") {
					t.Errorf("the clients of the new master:\n%s", clients)
				}
			})
		}
	}
}

// of returns the master that has the cart u1, and its replica.
func (s secured) of(t *testing.T, store *Store) (master, replica *testserver.Redis) {
	t.Helper()
	for i, m := range s.masters {
		if n, err := m.Do("EXISTS", store.space.names(u1).cart); err == nil && n == "1" {
			return m, s.replicas[i]
		}
	}
	t.Fatal("no master has the cart")
	return nil, nil
}

// offset returns how far a server is in the stream of changes, as INFO says it.
func offset(t *testing.T, r *testserver.Redis) string {
	t.Helper()
	_, after, _ := strings.Cut(do(t, r, "INFO", "replication"), "\r\nmaster_repl_offset:")
	n, _, _ := strings.Cut(after, "\r\n")
	return n
}

// TestRefusedOverTLS: where one side does not prove who it is, nothing is done, and the error says what is wrong.
func TestRefusedOverTLS(t *testing.T) {
	for _, mode := range []Mode{Sentinel, Cluster} {
		servers := serversOverTLS(t, mode, "localhost")
		locals := make([]string, len(servers.config.Addresses))
		for i, address := range servers.config.Addresses {
			locals[i] = strings.Replace(address, "127.0.0.1", "localhost", 1)
		}
		for name, tc := range map[string]struct {
			change func(c *Config)
			want   string // of the error; "" for none
		}{
			"right":               {func(c *Config) { c.TLS.ServerName = "localhost" }, ""},
			"another name":        {func(c *Config) { c.TLS.ServerName = "other.example" }, "certificate is valid for localhost, not other.example"},
			"no name":             {func(*Config) {}, "cannot validate certificate for 127.0.0.1"},
			"that of seeds only":  {func(c *Config) { c.Addresses = locals }, "cannot validate certificate for 127.0.0.1"},
			"another authority":   {func(c *Config) { c.TLS.ServerName, c.TLS.RootCAs = "localhost", testserver.NewAuthority(t).Pool() }, "unknown authority"},
			"without certificate": {func(c *Config) { c.TLS.ServerName, c.TLS.Certificates = "localhost", nil }, "certificate required"},
			"without TLS":         {func(c *Config) { c.TLS = nil }, "backend unavailable"},
		} {
			t.Run(string(mode)+"/"+name, func(t *testing.T) {
				c := servers.config
				c.Prefix, c.TLS = "p", c.TLS.Clone()
				tc.change(&c)
				s := open(t, c)
				err := s.Ping(t.Context())
				if tc.want == "" {
					if err != nil {
						t.Errorf("Ping: %v", err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("Ping: %v, want %q", err, tc.want)
				}
				wantUnavailable(t, s, name)
			})
		}
	}
}

// TestNamesOverTLS: nodes of a Cluster that announce names are verified by these, where the configuration has none.
func TestNamesOverTLS(t *testing.T) {
	servers := serversOverTLS(t, Cluster, "localhost")
	c := servers.config
	c.Prefix = "p"
	for i, address := range c.Addresses {
		c.Addresses[i] = strings.Replace(address, "127.0.0.1", "localhost", 1)
	}
	all := slices.Concat(servers.masters, servers.replicas)
	for _, node := range all {
		do(t, node, "CONFIG", "SET", "cluster-announce-hostname", "localhost", "cluster-preferred-endpoint-type", "hostname")
	}
	for _, node := range all {
		await(t, "a node knows all names", func() bool {
			return strings.Count(do(t, node, "CLUSTER", "NODES"), ",localhost ") == len(all)
		})
	}
	s := open(t, c)
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	_, replica := servers.of(t, s)
	do(t, replica, "CLUSTER", "FAILOVER")
	replica.AwaitRole("master")
	mustCommit(t, s, storage.Committed, replace(u1, mustLoad(t, s, u1), `{"b":1}`))
}

// TestTLSWithoutClientCertificates: servers that ask for no certificate of a client get on with a password.
func TestTLSWithoutClientCertificates(t *testing.T) {
	authority := testserver.NewAuthority(t)
	secure, trusting := authority.Secure(), testserver.WithRedisArgs("--tls-auth-clients", "no")
	master := testserver.StartRedis(t, secure, trusting)
	sentinel := testserver.StartSentinels(t, 1, master, 0, secure, trusting)[0]
	cluster := testserver.StartRedisCluster(t, 3, secure, trusting)
	for _, c := range []Config{
		asLeastUser(t, Config{Addresses: []string{sentinel.TLSAddr}, Mode: Sentinel, MasterName: testserver.SentinelMaster}, master),
		asLeastUser(t, Config{Addresses: cluster.Addrs(), Mode: Cluster}, cluster.Nodes...),
	} {
		t.Run(string(c.Mode), func(t *testing.T) {
			c.Prefix, c.TLS = "p", &tls.Config{RootCAs: authority.Pool(), MinVersion: tls.VersionTLS12}
			s := open(t, c)
			mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
			mustLease(t, s, u1, leaseOf(cart.PartAll))
			if err := s.Ping(t.Context()); err != nil {
				t.Errorf("Ping: %v", err)
			}
			c.Password = storage.NewSecret("another", "/s/password")
			wantUnavailable(t, open(t, c), "a wrong password")
		})
	}
}
