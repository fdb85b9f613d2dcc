package testserver

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DynaliteVersion is the version of dynalite that hack/setup.sh installs.
const DynaliteVersion = "3.2.2"

// Dynalite is a server that speaks the protocol of DynamoDB and keeps its tables in memory. It takes any credentials,
// and knows no transactions and no time to live. Stop, Kill, Pause, Resume and PID act on the process.
type Dynalite struct {
	*process
	// Addr is "127.0.0.1:port", Endpoint the same as a URL.
	Addr, Endpoint string
}

// dynaliteGuard lets dynalite live on when a client goes away in the middle of a request. Otherwise that would end it.
const dynaliteGuard = `process.on('uncaughtException', (e) => {
	if (e.code === 'ECONNRESET') return;
	console.error(e);
	process.exit(1);
});
`

// StartDynalite starts an empty server on loopback, and stops it at the end of the test. Its tables are ready at once,
// unless creating says how long it takes to create them.
func StartDynalite(tb TB, creating ...time.Duration) *Dynalite {
	tb.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		tb.Fatalf("folder of dynalite: %v", err)
	}
	script := filepath.Join(cache, "sidecart-dynalite", DynaliteVersion, "node_modules", "dynalite", "cli.js")
	if _, err := os.Stat(script); err != nil {
		tb.Fatalf("dynalite is needed for this test and was not found, run hack/setup.sh: %v", err)
	}
	var took time.Duration
	for _, d := range creating {
		took += d
	}
	d := &Dynalite{process: newProcess(tb, "node")}
	guard := filepath.Join(d.dir, "guard.js")
	if err := os.WriteFile(guard, []byte(dynaliteGuard), 0o600); err != nil {
		tb.Fatalf("dynalite: %v", err)
	}
	const attempts = 5
	for range attempts {
		port, perr := freePort()
		if perr != nil {
			tb.Fatalf("port of dynalite: %v", perr)
		}
		d.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		d.Endpoint = "http://" + d.Addr
		err = d.start([]string{
			"--require", guard, script, "--host", "127.0.0.1", "--port", strconv.Itoa(port),
			"--createTableMs", strconv.FormatInt(took.Milliseconds(), 10), "--updateTableMs", "0", "--deleteTableMs", "0",
		}, d.ready)
		if err == nil {
			return d
		}
	}
	tb.Fatalf("%v", err)
	return nil
}

// ready is nil once the server answers.
func (d *Dynalite) ready() error {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(d.Endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", strings.ToLower(response.Status))
	}
	return nil
}
