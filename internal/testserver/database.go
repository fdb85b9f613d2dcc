package testserver

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// DatabaseServer is a server of relational databases: PostgreSQL, MariaDB, or a PgBouncer before a PostgreSQL. Stop,
// Kill, Pause, Resume and PID act on its process; Restart starts it again in the same place.
type DatabaseServer struct {
	*process
	// Port is where it listens, on 127.0.0.1.
	Port int

	scheme, user string // of a superuser, who needs no password
	args         func(port int) []string
	client       func(port int, database, statements string) *exec.Cmd
}

// DatabaseOption changes how a database server is started.
type DatabaseOption func(*databaseSetup)

type databaseSetup struct {
	durable   bool
	cert, key []byte
	args      []string
}

// WithSync makes every acknowledged change survive a crash of the machine, as servers do by default. Tests that at most
// end the process do not need it.
func WithSync() DatabaseOption { return func(s *databaseSetup) { s.durable = true } }

// WithServerArgs adds arguments to the command line of the server.
func WithServerArgs(args ...string) DatabaseOption {
	return func(s *databaseSetup) { s.args = append(s.args, args...) }
}

// WithTLS lets the server speak TLS with a certificate and a key in PEM.
func WithTLS(cert, key []byte) DatabaseOption {
	return func(s *databaseSetup) { s.cert, s.key = cert, key }
}

// files writes certificate and key where the server finds them, readable by nobody else.
func (s *DatabaseServer) files(setup databaseSetup) (cert, key string) {
	s.tb.Helper()
	cert, key = filepath.Join(s.dir, "tls.crt"), filepath.Join(s.dir, "tls.key")
	for path, content := range map[string][]byte{cert: setup.cert, key: setup.key} {
		err := os.WriteFile(path, content, 0o600)
		if err == nil {
			err = s.giveAway(path)
		}
		if err != nil {
			s.tb.Fatalf("%v", err)
		}
	}
	return cert, key
}

// launch finds a port and starts the server. If somebody took the port meanwhile, it tries another.
func (s *DatabaseServer) launch() {
	s.tb.Helper()
	const attempts = 5
	var err error
	for range attempts {
		if s.Port, err = freePort(); err != nil {
			break
		}
		if err = s.start(s.args(s.Port), s.ready); err == nil {
			return
		}
	}
	s.tb.Fatalf("%v", err)
}

// Restart stops the server, if it runs, and starts it in the same place with the same data. After a kill, the server's
// child processes hold its memory until they notice; Restart starts it again until they have gone.
func (s *DatabaseServer) Restart() {
	s.tb.Helper()
	s.Stop()
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-retry.C {
		err := s.start(s.args(s.Port), s.ready)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("%v", err)
		}
	}
}

func (s *DatabaseServer) ready() error {
	conn, err := net.Dial("tcp", s.Addr()) // which is quicker to find out than to start a client
	if err != nil {
		return err
	}
	_ = conn.Close()
	_, err = s.Query("", "SELECT 1")
	return err
}

// Addr is host:port.
func (s *DatabaseServer) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// URL names a database as user, who needs no password.
func (s *DatabaseServer) URL(user, database string) string {
	return fmt.Sprintf("%s://%s@%s/%s", s.scheme, user, s.Addr(), database)
}

// NewDatabase makes an empty database, and returns its URL as a superuser. It exists as long as the server does.
func (s *DatabaseServer) NewDatabase(tb TB) (url string) {
	tb.Helper()
	name := "db_" + strings.ToLower(rand.Text())
	if _, err := s.Query("", "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("create a database: %v", err)
	}
	return s.URL(s.user, name)
}

// Query runs statements as a superuser, in a database or, if that is "", in the server's own. It returns the rows, one
// per line, with tabs between the columns.
func (s *DatabaseServer) Query(database, statements string) (string, error) {
	cmd := s.client(s.Port, database, statements)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", s.name, err, out)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// DatabaseOf is the name of the database in a URL of [DatabaseServer.NewDatabase].
func DatabaseOf(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// newServer is a server whose data belongs to a user without rights, since database servers refuse to run as root.
func newServer(tb TB, name string) *DatabaseServer {
	tb.Helper()
	// Other users cannot see into a test's own folder, and paths of sockets are short by law.
	dir, err := os.MkdirTemp("", "sidecart-"+name+"-")
	if err != nil {
		tb.Fatalf("folder of the server: %v", err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &DatabaseServer{process: newProcess(tb, name)}
	s.dir, s.unprivileged = dir, true
	if err := s.giveAway(dir); err != nil {
		tb.Fatalf("folder of the server: %v", err)
	}
	return s
}

// run runs a program to its end as the user that the server runs as.
func (s *DatabaseServer) run(name string, args ...string) {
	s.tb.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	s.isolate(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.tb.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// findProgram is the path of a program of a database, which some distributions keep where PATH does not lead.
func findProgram(tb TB, name string) string {
	tb.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	var found []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/", "/usr/sbin/", "/usr/libexec/"} {
		paths, _ := filepath.Glob(pattern + name)
		found = append(found, paths...)
	}
	if len(found) == 0 {
		tb.Fatalf("%s is needed for this test and was not found", name)
		return ""
	}
	return slices.Max(found)
}

// shared holds the servers that the tests of one program share.
var shared struct {
	sync.Mutex
	servers map[string]*DatabaseServer
	cleanup []func()
}

// share returns the one server of a kind, which is started the first time.
func share(tb TB, kind string, start func(TB) *DatabaseServer) *DatabaseServer {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if s := shared.servers[kind]; s != nil {
		return s
	}
	if shared.servers == nil {
		shared.servers = map[string]*DatabaseServer{}
	}
	s := start(lasting{tb})
	shared.servers[kind] = s
	return s
}

// lasting is a test whose servers other tests use too.
type lasting struct{ TB }

// Cleanup is done by [CloseShared].
func (lasting) Cleanup(f func()) { shared.cleanup = append(shared.cleanup, f) }

// CloseShared stops the servers that tests have shared. It is for TestMain, when all tests have ended.
func CloseShared() {
	shared.Lock()
	defer shared.Unlock()
	for _, f := range slices.Backward(shared.cleanup) {
		f()
	}
	shared.servers, shared.cleanup = nil, nil
}

// Main runs the tests of a program that shares servers, and stops these. It is all that its TestMain needs.
func Main(m interface{ Run() int }) {
	code := m.Run()
	CloseShared()
	os.Exit(code)
}
