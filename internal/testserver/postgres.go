package testserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// StartPostgres starts a PostgreSQL server without databases, on loopback, and stops it at the end of the test.
func StartPostgres(tb TB, opts ...DatabaseOption) *DatabaseServer {
	tb.Helper()
	setup := setupOf(opts)
	s := newServer(tb, "postgres")
	s.scheme, s.user = "postgres", "postgres"
	data := filepath.Join(s.dir, "data")
	s.run(findProgram(tb, "initdb"), "--pgdata", data, "--username", s.user, "--auth", "trust", "--encoding", "UTF8",
		"--locale", "C", "--no-sync", "--no-instructions")
	if setup.key != nil {
		cert, key := s.files(setup)
		setup.args = append(setup.args, "-c", "ssl=on", "-c", "ssl_cert_file="+cert, "-c", "ssl_key_file="+key)
	}
	s.args = func(port int) []string {
		args := []string{
			"-D", data, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
			"-c", "max_connections=300", "-c", "shared_buffers=32MB",
			// Settings that a program must not rest on.
			"-c", "timezone=Asia/Kathmandu", "-c", "default_transaction_isolation=serializable", "-c", "datestyle=SQL, DMY",
			"-c", "bytea_output=escape", "-c", "standard_conforming_strings=off",
		}
		if !setup.durable {
			args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
		}
		return append(args, setup.args...)
	}
	s.client = psql
	s.launch()
	return s
}

// psql runs statements as a superuser.
func psql(port int, database, statements string) *exec.Cmd {
	if database == "" {
		database = "postgres"
	}
	return exec.Command("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator", "\t",
		"--set", "ON_ERROR_STOP=1", "--command", statements, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", port, database))
}

// SharedPostgres is a PostgreSQL server for all tests of the program, whose TestMain calls [Main].
func SharedPostgres(tb TB) *DatabaseServer {
	tb.Helper()
	return share(tb, "postgres", func(tb TB) *DatabaseServer { return StartPostgres(tb) })
}

// StartPgBouncer starts a PgBouncer in transaction mode before a PostgreSQL server: connections are lent for one
// transaction each. The databases are those of the server.
func StartPgBouncer(tb TB, server *DatabaseServer) *DatabaseServer {
	tb.Helper()
	s := newServer(tb, "pgbouncer")
	s.scheme, s.user, s.client = server.scheme, server.user, psql
	conf := filepath.Join(s.dir, "pgbouncer.ini")
	s.args = func(port int) []string {
		// A few connections for many clients, so that none has one to itself.
		text := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%d user=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\n"+
			"auth_type = any\npool_mode = transaction\nmax_client_conn = 500\ndefault_pool_size = 4\nunix_socket_dir =\n",
			server.Port, server.user, port)
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil { //nolint:gosec // it holds no secret, and another user reads it
			tb.Fatalf("configuration of pgbouncer: %v", err)
		}
		return []string{conf}
	}
	s.launch()
	return s
}

func setupOf(opts []DatabaseOption) (s databaseSetup) {
	for _, o := range opts {
		o(&s)
	}
	return s
}
