package testserver_test

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sidecart/sidecart/internal/testserver"
)

func do(t *testing.T, r *testserver.Redis, args ...string) string {
	t.Helper()
	reply, err := r.Do(args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return reply
}

func TestRedisAOFSurvivesKill(t *testing.T) {
	for name, opts := range map[string][]testserver.RedisOption{
		"port":   {testserver.WithAOF()},
		"socket": {testserver.WithAOF(), testserver.WithSocket()},
	} {
		t.Run(name, func(t *testing.T) {
			r := testserver.StartRedis(t, opts...)
			do(t, r, "SET", "k", "v")
			before := r.PID()
			r.Kill()
			if r.PID() != 0 {
				t.Fatalf("PID after Kill = %d, want 0", r.PID())
			}
			if _, err := r.Do("PING"); err == nil {
				t.Fatal("the server answers after Kill")
			}
			r.Restart()
			if r.PID() == before {
				t.Fatal("Restart did not start a new process")
			}
			if got := do(t, r, "GET", "k"); got != "v" {
				t.Fatalf("after Kill and Restart k = %q, want v", got)
			}
		})
	}
}

func TestRedisWithoutAOFForgets(t *testing.T) {
	r := testserver.StartRedis(t)
	do(t, r, "SET", "k", "v")
	r.Restart()
	if got := do(t, r, "DBSIZE"); got != "0" {
		t.Fatalf("DBSIZE after Restart = %s, want 0", got)
	}
}

func TestRedisPauseStop(t *testing.T) {
	r := testserver.StartRedis(t)
	r.Pause()
	r.Resume()
	if got := do(t, r, "PING"); got != "PONG" {
		t.Fatalf("PING after Resume = %q", got)
	}
	r.Pause()
	r.Stop() // also from a pause
	if r.PID() != 0 {
		t.Fatal("runs after Stop")
	}
}

func TestRedisCluster(t *testing.T) {
	c := testserver.StartRedisCluster(t, 3)
	if got := len(c.Addrs()); got != 3 {
		t.Fatalf("%d nodes, want 3", got)
	}
	moved := 0
	for _, n := range c.Nodes {
		_, err := n.Do("SET", "k", "v")
		if err != nil && !strings.HasPrefix(err.Error(), "MOVED") {
			t.Fatalf("SET: %v", err)
		}
		if err != nil {
			moved++
		}
	}
	if moved != 2 {
		t.Fatalf("%d nodes sent the client elsewhere, want 2", moved)
	}
}

func TestSentinelKnowsMaster(t *testing.T) {
	r := testserver.StartRedis(t)
	s := testserver.StartSentinel(t, r)
	info := do(t, s, "INFO", "sentinel")
	if !strings.Contains(info, "name="+testserver.SentinelMaster+",status=ok,address="+r.Addr) {
		t.Fatalf("the sentinel does not watch %s:\n%s", r.Addr, info)
	}
}

// fatal is a TB that remembers that it failed.
type fatal struct {
	testing.TB
	failed string
}

func (f *fatal) Fatalf(format string, _ ...any) {
	f.failed = format
	panic(f)
}

func TestMissingBinaryFails(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	f := &fatal{TB: t}
	func() {
		defer func() { _ = recover() }()
		testserver.StartRedis(f)
	}()
	if !strings.Contains(f.failed, "needed for this test") {
		t.Fatalf("without redis-server StartRedis said %q", f.failed)
	}
}

func query(t *testing.T, s *testserver.DatabaseServer, database, statements string) string {
	t.Helper()
	out, err := s.Query(database, statements)
	if err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
	return out
}

func TestDatabaseServersSurviveKill(t *testing.T) {
	for name, start := range map[string]func(testserver.TB, ...testserver.DatabaseOption) *testserver.DatabaseServer{
		"postgres": testserver.StartPostgres, "mariadb": testserver.StartMariaDB,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			one, two := testserver.DatabaseOf(s.NewDatabase(t)), testserver.DatabaseOf(s.NewDatabase(t))
			query(t, s, one, "CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2), (3, 4)")
			before := s.PID()
			s.Kill()
			if _, err := s.Query(one, "SELECT 1"); err == nil {
				t.Fatal("the server answers after Kill")
			}
			s.Restart()
			if s.PID() == before {
				t.Fatal("Restart did not start a new process")
			}
			if got := query(t, s, one, "SELECT a, b FROM t ORDER BY a"); got != "1\t2\n3\t4" {
				t.Errorf("after Kill and Restart: %q", got)
			}
			if _, err := s.Query(two, "SELECT a FROM t"); err == nil {
				t.Error("another database has the table too")
			}
		})
	}
}

func TestPgBouncerLendsConnections(t *testing.T) {
	server := testserver.StartPostgres(t)
	database := testserver.DatabaseOf(server.NewDatabase(t))
	bouncer := testserver.StartPgBouncer(t, server)
	if got := query(t, bouncer, database, "SELECT current_database()"); got != database {
		t.Errorf("through the pooler it is database %q, want %q", got, database)
	}
}

// Dynalite lives on when clients go away in the middle of a request.
func TestDynaliteOutlivesItsClients(t *testing.T) {
	t.Parallel()
	d := testserver.StartDynalite(t)
	for range 20 {
		conn, err := net.Dial("tcp", d.Addr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Write([]byte("POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.GetItem\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 100\r\n\r\n{"))
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil { // it ends with a reset
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	response, err := http.Get(d.Endpoint)
	if err != nil {
		t.Fatalf("afterwards: %v", err)
	}
	_ = response.Body.Close()
}
