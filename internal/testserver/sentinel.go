package testserver

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// SentinelMaster is the name under which sentinels watch their master.
const SentinelMaster = "shop"

// StartRedisReplica starts a server that follows master, and waits until it has all of master's data.
func StartRedisReplica(tb TB, master *Redis, opts ...RedisOption) *Redis {
	tb.Helper()
	host, port, err := net.SplitHostPort(master.among())
	if err != nil {
		tb.Fatalf("address of the master: %v", err)
	}
	r := StartRedis(tb, append(opts, WithRedisArgs("--replicaof", host+" "+port))...)
	r.AwaitRole("slave")
	return r
}

// AwaitRole waits until the server is a "master", or a "slave" that is in touch with its master.
func (r *Redis) AwaitRole(role string) {
	r.tb.Helper()
	want := "role:" + role + "\r\n"
	if err := poll(nil, func() error {
		info, err := r.Do("INFO", "replication")
		if err == nil && (!strings.Contains(info, want) || role == "slave" && !strings.Contains(info, "master_link_status:up\r\n")) {
			err = fmt.Errorf("%s is no %s yet:\n%s", r.Addr, role, info)
		}
		return err
	}); err != nil {
		r.tb.Fatalf("%v", err)
	}
}

// StartSentinel starts a Redis Sentinel that watches master, alone: one vote suffices for a failover.
func StartSentinel(tb TB, master *Redis) *Redis {
	tb.Helper()
	return StartSentinels(tb, 1, master, 0)[0]
}

// StartSentinels starts n sentinels that watch master, which has so many replicas, and waits until they know each other
// and the replicas. The majority of them decides. Where master has a password, the sentinels have the same. If master
// speaks TLS, they must be given [Authority.Secure] too.
func StartSentinels(tb TB, n int, master *Redis, replicas int, opts ...RedisOption) []*Redis {
	tb.Helper()
	host, port, err := net.SplitHostPort(master.among())
	if err != nil {
		tb.Fatalf("address of the master: %v", err)
	}
	sentinels := make([]*Redis, n)
	for i := range sentinels {
		s := &Redis{process: newProcess(tb, "redis-server"), password: master.password}
		sentinels[i] = s
		conf := filepath.Join(s.dir, "sentinel.conf")
		text := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s %[4]d\nsentinel down-after-milliseconds %[1]s 500\n"+
			"sentinel failover-timeout %[1]s 2000\n", SentinelMaster, host, port, n/2+1)
		if master.password != "" {
			text += fmt.Sprintf("sentinel auth-pass %[1]s %[2]s\nrequirepass %[2]s\nsentinel sentinel-pass %[2]s\n", SentinelMaster, master.password)
		}
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			tb.Fatalf("configuration of the sentinel: %v", err)
		}
		var setup redisSetup
		for _, o := range opts {
			o(&setup)
		}
		if err := s.launch(setup, []string{conf, "--sentinel"}); err != nil {
			tb.Fatalf("%v", err)
		}
	}
	want := fmt.Sprintf("slaves=%d,sentinels=%d", replicas, n)
	for _, s := range sentinels {
		if err := poll(nil, func() error {
			info, err := s.Do("INFO", "sentinel")
			if err == nil && !strings.Contains(info, want) {
				err = fmt.Errorf("not yet %s:\n%s", want, info)
			}
			return err
		}); err != nil {
			tb.Fatalf("sentinel %s: %v", s.Addr, err)
		}
	}
	return sentinels
}

// WithPassword makes the server ask for a password, and use it towards its master. Do knows it.
func WithPassword(password string) RedisOption {
	return func(s *redisSetup) {
		s.password = password
		s.args = append(s.args, "--requirepass", password, "--masterauth", password)
	}
}
