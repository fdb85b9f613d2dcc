package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testserver"
)

// sqlProduct is a database server with a database called shop, which belongs to a user of that name.
type sqlProduct struct {
	start func(tb testserver.TB, opts ...testserver.DatabaseOption) *testserver.DatabaseServer
	// args are those of the server.
	args []string
	// setUp are statements that make both, the password being "right".
	setUp []string
	// admit makes the server ask for that password.
	admit func(t *testing.T, s *testserver.DatabaseServer)
	// revoke takes away a right of the user in the database, grant gives it back.
	revoke, grant string
	// needTLS makes the server refuse clients without TLS, and takeAll makes it accept them again. plain is what the
	// URL of such a client says.
	needTLS, takeAll func(t *testing.T, s *testserver.DatabaseServer)
	plain            string
	// demote makes the server a replica, promote makes it a primary again.
	demote, promote func(t *testing.T, s *testserver.DatabaseServer)
	// crowd are the arguments of a server that takes only a few connections. So many guests fill it up, each of which
	// begins with hello.
	crowd  []string
	guests int
	hello  string
	// smallDisk makes a database called small, in a folder on a small disk.
	smallDisk func(t *testing.T, s *testserver.DatabaseServer) (folder string)
}

func postgresTroubles(t *testing.T) []failure {
	return sqlTroubles(t, &sqlProduct{
		start: testserver.StartPostgres,
		args:  []string{"-c", "default_transaction_isolation=read committed"}, // a replica knows no serializable
		setUp: []string{"CREATE ROLE shop LOGIN PASSWORD 'right'", "CREATE DATABASE shop OWNER shop"},
		admit: func(t *testing.T, s *testserver.DatabaseServer) {
			admit(t, s, "host all shop 127.0.0.1/32 scram-sha-256")
		},
		revoke: "REVOKE UPDATE ON sidecart_carts FROM shop", grant: "GRANT UPDATE ON sidecart_carts TO shop",
		needTLS: func(t *testing.T, s *testserver.DatabaseServer) {
			admit(t, s, "hostssl all shop 127.0.0.1/32 scram-sha-256")
		},
		takeAll: func(t *testing.T, s *testserver.DatabaseServer) {
			admit(t, s, "host all shop 127.0.0.1/32 scram-sha-256")
		},
		plain: "?sslmode=disable",
		demote: func(t *testing.T, s *testserver.DatabaseServer) {
			signal := filepath.Join(query(t, s, "", "SHOW data_directory"), "standby.signal")
			s.Stop()
			giveFile(t, writeFile(t, signal, ""))
			s.Restart()
		},
		promote: func(t *testing.T, s *testserver.DatabaseServer) { query(t, s, "", "SELECT pg_promote()") },
		crowd:   []string{"-c", "max_connections=10", "-c", "superuser_reserved_connections=3"},
		guests:  7, hello: startup("user", "shop", "database", "shop"),
		smallDisk: func(t *testing.T, s *testserver.DatabaseServer) string {
			folder := filepath.Join(filepath.Dir(query(t, s, "", "SHOW data_directory")), "small")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			mountDisk(t, folder, "size=24m,"+nobodys)
			query(t, s, "", "CREATE TABLESPACE small LOCATION '"+folder+"'")
			query(t, s, "", "CREATE DATABASE small TABLESPACE small OWNER shop")
			return folder
		},
	})
}

func mysqlTroubles(t *testing.T) []failure {
	return sqlTroubles(t, &sqlProduct{
		start: testserver.StartMariaDB,
		setUp: []string{"CREATE DATABASE shop", "CREATE USER shop IDENTIFIED BY 'right'", "GRANT ALL ON shop.* TO shop"},
		admit: func(*testing.T, *testserver.DatabaseServer) {},
		// A connection has the rights with which it began.
		revoke: "REVOKE UPDATE ON shop.* FROM shop; KILL USER shop", grant: "GRANT UPDATE ON shop.* TO shop; KILL USER shop",
		needTLS: func(t *testing.T, s *testserver.DatabaseServer) {
			query(t, s, "", "SET GLOBAL require_secure_transport = 1")
		},
		takeAll: func(t *testing.T, s *testserver.DatabaseServer) {
			query(t, s, "", "SET GLOBAL require_secure_transport = 0")
		},
		plain:   "?tls=false",
		demote:  func(t *testing.T, s *testserver.DatabaseServer) { query(t, s, "", "SET GLOBAL read_only = 1") },
		promote: func(t *testing.T, s *testserver.DatabaseServer) { query(t, s, "", "SET GLOBAL read_only = 0") },
		crowd:   []string{"--max-connections=10", "--connect-timeout=600"},
		guests:  10,
		smallDisk: func(t *testing.T, s *testserver.DatabaseServer) string {
			query(t, s, "", "CREATE DATABASE small; GRANT ALL ON small.* TO shop")
			folder := filepath.Join(query(t, s, "", "SELECT @@datadir"), "small")
			mountDisk(t, folder, "size=2m,"+nobodys)
			return folder
		},
	})
}

// sqlTroubles are those of a database server. Most happen to the same server, since starting one takes long.
func sqlTroubles(t *testing.T, p *sqlProduct) []failure {
	start := func(opts ...testserver.DatabaseOption) *testserver.DatabaseServer {
		s := p.start(t, append(opts, testserver.WithServerArgs(p.args...))...)
		for _, statement := range p.setUp {
			query(t, s, "", statement)
		}
		return s
	}
	trusted := newAuthority(t)
	s := start(withCertificate(t, trusted))
	p.admit(t, s)
	crowded := start(testserver.WithServerArgs(p.crowd...))
	url := s.URL("shop", "shop")
	at := func(address string) string { return strings.Replace(url, s.Addr(), address, 1) }
	return []failure{
		{"the password is wrong", func(t *testing.T) scene {
			return scene{args: onDatabase(t, url, "wrong")}
		}, 2 * time.Second},
		{"no password, where one is asked for", func(t *testing.T) scene {
			return scene{args: onDatabase(t, url, "")}
		}, 2 * time.Second},
		{"the user lacks a right", func(t *testing.T) scene {
			return scene{
				args:   onDatabase(t, url, "right"),
				strike: func() { query(t, s, "shop", p.revoke) }, mend: func() { query(t, s, "shop", p.grant) },
			}
		}, 2 * time.Second},
		{"there is no such database", func(t *testing.T) scene {
			return scene{args: onDatabase(t, s.URL("shop", "other"), "right")}
		}, 2 * time.Second},
		{"the certificate is for another name", func(t *testing.T) scene {
			return scene{args: onDatabase(t, url, "right", "--database-tls-ca-file="+trusted.file, "--database-tls-server-name=other.example")}
		}, 2 * time.Second},
		{"the certificate is of an authority that is not trusted", func(t *testing.T) scene {
			return scene{args: onDatabase(t, url, "right", "--database-tls-ca-file="+newAuthority(t).file, "--database-tls-server-name=database.example")}
		}, 2 * time.Second},
		{"no TLS, where the server asks for it", func(t *testing.T) scene {
			p.needTLS(t, s)
			return scene{args: onDatabase(t, url+p.plain, "right"), mend: func() { p.takeAll(t, s) }}
		}, 2 * time.Second},
		{"TLS, which the server does not speak", func(t *testing.T) scene {
			return scene{args: onDatabase(t, crowded.URL("shop", "shop"), "right", "--database-tls-ca-file="+trusted.file)}
		}, 2 * time.Second},
		{"the server is down", func(t *testing.T) scene {
			return scene{args: onDatabase(t, url, "right"), strike: s.Kill, mend: s.Restart}
		}, 2 * time.Second},
		{"the host is unreachable: packets to it are dropped", func(t *testing.T) scene {
			return scene{args: onDatabase(t, at(blackHole(t)), "right")}
		}, 3 * time.Second},
		{"a connection is half-open: packets on it are dropped", func(t *testing.T) scene {
			return halfOpen(t, s.Addr(), func(address string) []string { return onDatabase(t, at(address), "right") })
		}, 3 * time.Second},
		{"the server is frozen (SIGSTOP)", func(t *testing.T) scene {
			return scene{args: onDatabase(t, url, "right"), strike: s.Pause, mend: s.Resume}
		}, 3 * time.Second},
		{"the server is a replica, which is read-only", func(t *testing.T) scene {
			return scene{args: onDatabase(t, url, "right"), says: "read-only", strike: func() { p.demote(t, s) }, mend: func() { p.promote(t, s) }}
		}, 2 * time.Second},
		{"the server has as many connections as it takes (`max_connections`)", func(t *testing.T) scene {
			return scene{args: onDatabase(t, crowded.URL("shop", "shop"), "right"), mend: guests(t, crowded.Addr(), p.guests, p.hello)}
		}, 2 * time.Second},
		{"the disk of the tables is full", func(t *testing.T) scene { // the last, since the disk goes with it
			folder := p.smallDisk(t, s)
			return scene{
				args: onDatabase(t, s.URL("shop", "small"), "right"), large: 300 << 10, serves: true,
				strike: func() { fill(t, folder) }, mend: func() { empty(t, folder) },
			}
		}, 2 * time.Second},
	}
}

// nobodys are the options of a disk that belongs to the user that database servers run as.
const nobodys = "mode=0700,uid=65534,gid=65534"

func onDatabase(t *testing.T, url, password string, more ...string) []string {
	t.Helper()
	args := append([]string{"--backend=database", "--database-url=" + url}, more...)
	if password != "" {
		args = append(args, "--database-password-file="+secretFile(t, password))
	}
	return args
}

// withCertificate makes a server speak TLS under the name database.example.
func withCertificate(t *testing.T, a *authority) testserver.DatabaseOption {
	t.Helper()
	cert, key := a.issue(t, "database.example")
	var content [2][]byte
	for i, path := range []string{cert, key} {
		var err error
		if content[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return testserver.WithTLS(content[0], content[1])
}

func query(t *testing.T, s *testserver.DatabaseServer, database, statements string) string {
	t.Helper()
	rows, err := s.Query(database, statements)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// admit makes a PostgreSQL server admit the clients of a line of pg_hba.conf, besides the superuser of the test.
func admit(t *testing.T, s *testserver.DatabaseServer, line string) {
	t.Helper()
	file := query(t, s, "", "SHOW hba_file")
	if err := os.WriteFile(file, []byte("host all postgres 127.0.0.1/32 trust\n"+line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Restart() // a reload is not over when it is answered
}

// giveFile gives a file to the user that database servers run as.
func giveFile(t *testing.T, path string) {
	t.Helper()
	const nobody = 65534
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
}

// startup is how a client of PostgreSQL begins.
func startup(parameters ...string) string {
	body := strings.Join(parameters, "\x00") + "\x00\x00"
	head := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return string(binary.BigEndian.AppendUint32(head, 3<<16)) + body
}
