package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testserver"
)

// With the default timeouts: dial 1 s, read and write 500 ms, a request 6 s.
var redisTroubles = []failure{
	{"the password is wrong", func(t *testing.T) scene {
		r := testserver.StartRedis(t, testserver.WithPassword("right"))
		return scene{args: onRedisAt(r.Addr, "--redis-password-file="+secretFile(t, "wrong"))}
	}, 2 * time.Second},
	{"no password, where one is asked for", func(t *testing.T) scene {
		return scene{args: onRedisAt(testserver.StartRedis(t, testserver.WithPassword("right")).Addr)}
	}, 2 * time.Second},
	{"the user lacks a right", func(t *testing.T) scene {
		r := testserver.StartRedis(t)
		do(t, r, "ACL", "SETUSER", "shop", "on", ">word", "~*", "&*", "+@all")
		return scene{
			args:   onRedisAt(r.Addr, "--redis-username-file="+secretFile(t, "shop"), "--redis-password-file="+secretFile(t, "word")),
			strike: func() { do(t, r, "ACL", "SETUSER", "shop", "-hset") },
			mend:   func() { do(t, r, "ACL", "SETUSER", "shop", "+hset") },
		}
	}, 2 * time.Second},
	{"the certificate is for another name", func(t *testing.T) scene {
		a := newAuthority(t)
		return scene{args: onRedisAt(startTLS(t, a), "--redis-tls-ca-file="+a.file, "--redis-tls-server-name=other.example")}
	}, 2 * time.Second},
	{"the certificate is of an authority that is not trusted", func(t *testing.T) scene {
		return scene{args: onRedisAt(startTLS(t, newAuthority(t)), "--redis-tls-ca-file="+newAuthority(t).file, "--redis-tls-server-name=redis.example")}
	}, 2 * time.Second},
	{"no client certificate, where one is asked for", func(t *testing.T) scene {
		a := newAuthority(t)
		return scene{args: onRedisAt(startTLS(t, a, "--tls-auth-clients", "yes"), "--redis-tls-ca-file="+a.file, "--redis-tls-server-name=redis.example"), hide: []string{"remote error: ", ""}}
	}, 2 * time.Second},
	{"no TLS, where the server speaks it", func(t *testing.T) scene {
		return scene{args: onRedisAt(startTLS(t, newAuthority(t))), hide: []string{"EOF", "read: connection reset by peer"}}
	}, 2 * time.Second},
	{"the server is down", func(t *testing.T) scene {
		r := testserver.StartRedis(t)
		return scene{args: onRedisAt(r.Addr), strike: r.Kill, mend: r.Restart}
	}, 2 * time.Second},
	{"the host is unreachable: packets to it are dropped", func(t *testing.T) scene {
		return scene{args: onRedisAt(blackHole(t))}
	}, 3 * time.Second},
	{"a connection is half-open: packets on it are dropped", func(t *testing.T) scene {
		return halfOpen(t, testserver.StartRedis(t).Addr, func(address string) []string { return onRedisAt(address) })
	}, 3 * time.Second},
	{"the server is frozen (SIGSTOP)", func(t *testing.T) scene {
		r := testserver.StartRedis(t)
		return scene{args: onRedisAt(r.Addr), strike: r.Pause, mend: r.Resume}
	}, 3 * time.Second},
	{"the server is a replica, which is read-only", func(t *testing.T) scene {
		r, master := testserver.StartRedis(t), testserver.StartRedis(t)
		host, port, _ := net.SplitHostPort(master.Addr)
		return scene{
			args: onRedisAt(r.Addr), hide: eitherProbe,
			strike: func() { do(t, r, "REPLICAOF", host, port); r.AwaitRole("slave") },
			mend:   func() { do(t, r, "REPLICAOF", "NO", "ONE") },
		}
	}, 2 * time.Second},
	{"the server is out of memory (`maxmemory`, `noeviction`)", func(t *testing.T) scene {
		r := testserver.StartRedis(t)
		return scene{
			args: onRedisAt(r.Addr), hide: eitherProbe,
			strike: func() { do(t, r, "CONFIG", "SET", "maxmemory", "1") },
			mend:   func() { do(t, r, "CONFIG", "SET", "maxmemory", "0") },
		}
	}, 2 * time.Second},
	{"the server has as many clients as it takes (`maxclients`)", func(t *testing.T) scene {
		const most = 10
		r := testserver.StartRedis(t, testserver.WithRedisArgs("--maxclients", strconv.Itoa(most)))
		return scene{args: onRedisAt(r.Addr), mend: guests(t, r.Addr, most, "PING\r\n")}
	}, 2 * time.Second},
	{"no snapshot can be written (`stop-writes-on-bgsave-error`)", func(t *testing.T) scene {
		r := testserver.StartRedis(t, testserver.WithRedisArgs("--enable-protected-configs", "yes"))
		folder := filepath.Join(t.TempDir(), "snapshots")
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		return scene{
			args: onRedisAt(r.Addr), hide: eitherProbe,
			strike: func() {
				do(t, r, "CONFIG", "SET", "dir", folder)
				do(t, r, "CONFIG", "SET", "save", "3600 1")
				if err := os.Remove(folder); err != nil {
					t.Fatal(err)
				}
				do(t, r, "BGSAVE")
				awaitInfo(t, r, "persistence", "rdb_last_bgsave_status:err")
			},
			mend: func() { do(t, r, "CONFIG", "SET", "save", "") },
		}
	}, 2 * time.Second},
	{"the disk is full (append-only file)", func(t *testing.T) scene {
		r := testserver.StartRedis(t, testserver.WithRedisArgs("--appendonly", "yes", "--appendfsync", "everysec", "--enable-protected-configs", "yes"))
		folder := smallDisk(t)
		return scene{
			args: onRedisAt(r.Addr), hide: eitherProbe,
			strike: func() {
				do(t, r, "CONFIG", "SET", "appendonly", "no")
				do(t, r, "CONFIG", "SET", "dir", folder)
				do(t, r, "CONFIG", "SET", "appendonly", "yes")
				awaitInfo(t, r, "persistence", "aof_rewrite_in_progress:0")
				fill(t, folder)
				// The first writes still fit into the last block of the file.
				for n := 0; !strings.Contains(info(t, r, "persistence"), "aof_last_write_status:err"); n++ {
					_, _ = r.Do("SET", "filler", strings.Repeat("x", 1000))
				}
			},
			mend: func() { empty(t, folder) },
		}
	}, 2 * time.Second},
	{"fewer replicas are there than `minReplicas` asks for", func(t *testing.T) scene {
		r := testserver.StartRedis(t)
		replica := testserver.StartRedisReplica(t, r)
		return scene{
			args: onRedisAt(r.Addr, "--redis-min-replicas=1"), strike: replica.Kill,
			mend: func() { replica.Restart(); replica.AwaitRole("slave") },
		}
	}, 3 * time.Second},
	{"no sentinel answers", func(t *testing.T) scene {
		master := testserver.StartRedis(t)
		sentinel := testserver.StartSentinel(t, master)
		// A sidecar that is connected to the master goes on without sentinels.
		sentinel.Kill()
		return scene{args: []string{"--backend=redis", "--redis-mode=sentinel", "--redis-master-name=" + testserver.SentinelMaster, "--redis-address=" + sentinel.Addr}}
	}, 3 * time.Second},
	{"the sentinels know no master of that name", func(t *testing.T) scene {
		sentinel := testserver.StartSentinel(t, testserver.StartRedis(t))
		return scene{args: []string{"--backend=redis", "--redis-mode=sentinel", "--redis-master-name=other", "--redis-address=" + sentinel.Addr}}
	}, 3 * time.Second},
	{"a Cluster has lost a master (no replica takes over)", func(t *testing.T) scene {
		c := testserver.StartRedisCluster(t, 3)
		return scene{
			args: []string{"--backend=redis", "--redis-mode=cluster", "--redis-address=" + c.Nodes[0].Addr},
			strike: func() {
				c.Nodes[2].Kill()
				awaitInfoOf(t, c.Nodes[0], "cluster_state:fail", "CLUSTER", "INFO")
				awaitInfoOf(t, c.Nodes[1], "cluster_state:fail", "CLUSTER", "INFO")
			},
			mend: c.Nodes[2].Restart,
		}
	}, 3 * time.Second},
}

// eitherProbe makes the two probes of a backend say the same: the whole one adds what was refused first.
var eitherProbe = []string{" (HSET on a cart)", ""}

func onRedisAt(address string, more ...string) []string {
	return append([]string{"--backend=redis", "--redis-address=" + address}, more...)
}

// startTLS starts a server that speaks TLS under the name redis.example, and returns its address.
func startTLS(t *testing.T, a *authority, more ...string) string {
	t.Helper()
	_, address := startBoth(t, a, more...)
	return address
}

// startBoth starts a server that speaks TLS at address, and plain text on another port.
func startBoth(t *testing.T, a *authority, more ...string) (r *testserver.Redis, address string) {
	t.Helper()
	cert, key := a.issue(t, "redis.example")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(address)
	r = testserver.StartRedis(t, testserver.WithRedisArgs(append([]string{
		"--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", a.file, "--tls-auth-clients", "no",
	}, more...)...))
	return r, address
}

func info(t *testing.T, r *testserver.Redis, section string) string {
	t.Helper()
	return do(t, r, "INFO", section)
}

func awaitInfo(t *testing.T, r *testserver.Redis, section, want string) {
	t.Helper()
	awaitInfoOf(t, r, want, "INFO", section)
}

// awaitInfoOf asks until the answer has a text.
func awaitInfoOf(t *testing.T, r *testserver.Redis, want string, command ...string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for over := time.After(patience); ; {
		text := do(t, r, command...)
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("%v does not say %s:\n%s", command, want, text)
		}
	}
}
