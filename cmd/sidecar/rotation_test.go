package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sidecart/sidecart/internal/testserver"
)

// password is a password that a sidecar reads from a file. The servers ask for it; a sidecar works only if all of them
// accept it.
type password struct {
	file    string
	servers []*testserver.Redis
}

// newPassword is the password of the user shop, which is "old-word" at first.
func newPassword(t *testing.T, servers ...*testserver.Redis) password {
	t.Helper()
	for _, r := range servers {
		do(t, r, "ACL", "SETUSER", "shop", "on", ">old-word", "~*", "&*", "+@all")
	}
	return password{secretFile(t, "old-word\n"), servers}
}

// inNoHurry are timeouts that no server exceeds, however busy the machine is.
var inNoHurry = []string{"--dial-timeout=10s", "--read-timeout=10s", "--write-timeout=10s", "--lock-timeout=10s", "--request-timeout=25s"}

// rotations are the forms of Redis: each returns the flags of a sidecar on it and the passwords that these name.
var rotations = map[string]func(t *testing.T, user string) ([]string, []password){
	"Standalone": func(t *testing.T, user string) ([]string, []password) {
		r := testserver.StartRedis(t)
		p := newPassword(t, r)
		return onRedisAt(r.Addr, "--redis-username-file="+user, "--redis-password-file="+p.file), []password{p}
	},
	"TLS": func(t *testing.T, user string) ([]string, []password) {
		a := newAuthority(t)
		r, address := startBoth(t, a)
		p := newPassword(t, r)
		return onRedisAt(
			address, "--redis-tls-ca-file="+a.file, "--redis-tls-server-name=redis.example", "--redis-username-file="+user, "--redis-password-file="+p.file,
		), []password{p}
	},
	"Sentinel": func(t *testing.T, user string) ([]string, []password) {
		master := testserver.StartRedis(t)
		replica := testserver.StartRedisReplica(t, master)
		sentinel := testserver.StartSentinels(t, 1, master, 1)[0]
		data, own := newPassword(t, replica, master), newPassword(t, sentinel)
		return onRedisAt(
			sentinel.Addr, "--redis-mode=sentinel", "--redis-master-name="+testserver.SentinelMaster,
			"--redis-username-file="+user, "--redis-password-file="+data.file,
			"--redis-sentinel-username-file="+user, "--redis-sentinel-password-file="+own.file,
		), []password{data, own}
	},
	"Cluster": func(t *testing.T, user string) ([]string, []password) {
		c := testserver.StartRedisCluster(t, 3)
		p := newPassword(t, c.Nodes...)
		return onRedisAt(
			strings.Join(c.Addrs(), ","), "--redis-mode=cluster", "--redis-username-file="+user, "--redis-password-file="+p.file,
		), []password{p}
	},
}

// TestPasswordRotation: a rotated password is used when its file changes, without a configuration file and without a
// failed request. A password that not all servers accept yet is refused, and the one before it stays in use.
func TestPasswordRotation(t *testing.T) {
	for name, start := range rotations {
		t.Run(name, func(t *testing.T) {
			args, passwords := start(t, secretFile(t, "shop"))
			s := launch(t, append(args, inNoHurry...)...)
			s.ready(true)
			s.mustPut("u1", 2)
			for i, p := range passwords {
				s.rotate(p)
				if q := s.quantity("u1"); q != 2+i {
					t.Errorf("quantity %d, want %d", q, 2+i)
				}
				s.mustPut("u1", 3+i)
			}
			if logs := s.logs.String(); strings.Contains(logs, "old-word") || strings.Contains(logs, "new-word") {
				t.Errorf("a password is in the log:\n%s", logs)
			}
		})
	}
}

// rotate replaces a password on the servers and in its file, while the sidecar is written to. In the end nobody accepts
// the old one, and no connection is left that was opened with it.
func (s *sidecarUnderTest) rotate(p password) {
	t := s.t
	t.Helper()
	last := len(p.servers) - 1
	admit := func(servers ...*testserver.Redis) {
		for _, r := range servers {
			do(t, r, "ACL", "SETUSER", "shop", ">new-word") // both work for a while
		}
	}
	stop := keepWriting(s)
	admit(p.servers[:last]...)
	writeFile(t, p.file, "new-word")
	s.await("configuration rejected, the last good one goes on")
	if st := s.status(); st.Config.State != stateRejected || !strings.Contains(st.Config.Message, "backend: Redis") {
		t.Errorf("status %+v", st)
	}
	admit(p.servers[last])
	s.signals <- syscall.SIGHUP
	if line := s.await("configuration taken over"); line["changed"] != "backend" {
		t.Errorf("taken over: %v", line)
	}
	if n := stop(); n == 0 {
		t.Error("nothing was written meanwhile")
	}
	for _, r := range p.servers {
		do(t, r, "ACL", "SETUSER", "shop", "<old-word")
		do(t, r, "CLIENT", "KILL", "USER", "shop")
	}
	s.ready(true)
	if st := s.status(); st.Config.State != stateAccepted {
		t.Errorf("status %+v", st)
	}
}

// TestCertificateRotation: when the files change, new certificates that a sidecar trusts, and its own certificate and
// key, are used without a failed request.
func TestCertificateRotation(t *testing.T) {
	before, after := newAuthority(t), newAuthority(t)
	both := writeFile(t, filepath.Join(t.TempDir(), "both.crt"), content(t, before.file)+content(t, after.file))
	r, address := startBoth(t, before, "--tls-auth-clients", "yes", "--tls-ca-cert-file", both)

	dir := t.TempDir()
	trusted := writeFile(t, filepath.Join(dir, "ca.crt"), content(t, before.file))
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	present := func(a *authority) {
		c, k := a.issue(t, "sidecar")
		writeFile(t, cert, content(t, c))
		writeFile(t, key, content(t, k))
	}
	present(before)
	s := launch(t, onRedisAt(address, append(
		inNoHurry, "--redis-tls-server-name=redis.example", "--redis-tls-ca-file="+trusted, "--redis-tls-cert-file="+cert, "--redis-tls-key-file="+key,
	)...)...)
	s.ready(true)
	s.mustPut("u1", 2)
	stop := keepWriting(s)
	writeFile(t, trusted, content(t, both))
	s.await("configuration taken over")
	present(after)
	s.await("configuration taken over")
	if n := stop(); n == 0 {
		t.Error("nothing was written meanwhile")
	}

	cert, key = after.issue(t, "redis.example")
	do(t, r, "CONFIG", "SET", "tls-cert-file", cert, "tls-key-file", key, "tls-ca-cert-file", after.file)
	do(t, r, "CLIENT", "KILL", "TYPE", "normal")
	s.ready(true)
	if q := s.quantity("u1"); q != 2 {
		t.Errorf("quantity %d, want 2", q)
	}
	writeFile(t, trusted, content(t, after.file))
	s.await("configuration taken over")
	s.mustPut("u1", 3)
}

func content(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
