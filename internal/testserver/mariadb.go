package testserver

import (
	"os/exec"
	"path/filepath"
	"strconv"
)

// StartMariaDB starts a MariaDB server without databases, on loopback, and stops it at the end of the test.
func StartMariaDB(tb TB, opts ...DatabaseOption) *DatabaseServer {
	tb.Helper()
	setup := setupOf(opts)
	s := newServer(tb, "mariadbd")
	s.scheme, s.user = "mysql", "root"
	data := filepath.Join(s.dir, "data")
	s.run(findProgram(tb, "mariadb-install-db"), "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal",
		"--skip-test-db", "--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=8M", "--innodb-use-native-aio=0")
	if setup.key != nil {
		cert, key := s.files(setup)
		setup.args = append(setup.args, "--ssl-cert="+cert, "--ssl-key="+key)
	}
	s.args = func(port int) []string {
		args := []string{
			"--no-defaults", "--datadir=" + data, "--port=" + strconv.Itoa(port), "--bind-address=127.0.0.1",
			"--socket=" + filepath.Join(s.dir, "socket"), "--pid-file=" + filepath.Join(s.dir, "pid"), "--skip-name-resolve",
			"--max-connections=300", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=32M",
			"--innodb-use-native-aio=0", // of which a machine has a limited number
			// Settings that a program must not rest on.
			"--default-time-zone=+05:45", "--sql-mode=ANSI,NO_BACKSLASH_ESCAPES", "--character-set-server=latin1",
			"--transaction-isolation=SERIALIZABLE", "--completion-type=CHAIN",
		}
		if !setup.durable {
			args = append(args, "--innodb-flush-log-at-trx-commit=2", "--skip-innodb-doublewrite")
		}
		return append(args, setup.args...)
	}
	s.client = func(port int, database, statements string) *exec.Cmd {
		args := []string{
			"--no-defaults", "--host=127.0.0.1", "--protocol=tcp", "--port=" + strconv.Itoa(port), "--user=root",
			"--batch", "--skip-column-names", "--raw", "--default-character-set=utf8mb4", "--execute=" + statements,
		}
		if database != "" {
			args = append(args, database)
		}
		return exec.Command("mariadb", args...)
	}
	s.launch()
	return s
}

// SharedMariaDB is a MariaDB server for all tests of the program, whose TestMain calls [Main].
func SharedMariaDB(tb TB) *DatabaseServer {
	tb.Helper()
	return share(tb, "mariadb", func(tb TB) *DatabaseServer { return StartMariaDB(tb) })
}
