package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// troubles are what can go wrong with each backend: a file beside this one for each, troubles_<name>_test.go. The page
// shows the address in place of those of a test's servers.
var troubles = []struct {
	backend, address string
	rows             func(t *testing.T) []failure
}{
	{"Redis", "redis:6379", each(redisTroubles)},
	{"PostgreSQL", "postgres:5432", postgresTroubles},
	{"MySQL", "mysql:3306", mysqlTroubles},
	{"DynamoDB", "dynamodb:8000", each(dynamodbTroubles)},
	{"Memcached", "memcached:11211", each(memcachedTroubles)},
	{"SQLite", "", each(sqliteTroubles)},
	{"File", "", each(fileTroubles)},
}

// each returns troubles that have no server in common.
func each(rows []failure) func(*testing.T) []failure {
	return func(*testing.T) []failure { return rows }
}

// failure is one thing that goes wrong with a backend.
type failure struct {
	// name says what is wrong.
	name string
	// setUp starts the servers.
	setUp func(t *testing.T) scene
	// within bounds the answer to a change. It is the sum of the timeouts that must pass, rounded up.
	within time.Duration
}

// scene is a backend and its trouble.
type scene struct {
	// args are the flags of a sidecar on it.
	args []string
	// strike breaks a working backend; nil if it does not work from the start.
	strike func()
	// mend makes it work again; nil if that takes other flags.
	mend func()
	// large is about how many bytes the requested change has, if small ones may still find room after the strike.
	large int
	// fine says that nothing is wrong with the backend: the sidecar stays ready and says no more.
	fine bool
	// warns is the code of the warning that the sidecar logs while it stays ready.
	warns string
	// serves says that the sidecar stays ready, since not all changes are refused.
	serves bool
	// ends says that the sidecar does not start with it.
	ends bool
	// says is a part of what readyz says in the end. Its words about the strike itself do not count then.
	says string
	// hide replaces text that differs in each run. Addresses are replaced everywhere.
	hide []string
}

// seen is a row of the table.
type seen struct{ trouble, change, within, read, ready string }

// TestTroubles makes everything go wrong that can. It compares the answers to clients and probes with the page for
// people. With -update it writes that page, all of it with the build tag long.
func TestTroubles(t *testing.T) {
	const page = "../../docs/troubleshooting.md"
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	noAmazon(t)
	tables := make([][]seen, len(troubles))
	t.Run("all", func(t *testing.T) { // which ends when all backends have
		for i, b := range troubles {
			if !slices.Contains(troubled, b.backend) {
				continue
			}
			t.Run(b.backend, func(t *testing.T) {
				t.Parallel() // most of the time nothing happens
				all := b.rows(t)
				rows := make([]seen, len(all))
				for i, trouble := range all {
					t.Run(trouble.name, func(t *testing.T) { rows[i] = trouble.see(t, b.address) })
				}
				if !slices.Contains(rows, seen{}) { // none failed, and all were asked for
					tables[i] = rows
				}
			})
		}
	})
	text := string(raw)
	for i, b := range troubles {
		if tables[i] == nil {
			continue
		}
		begin, end := "<!-- "+b.backend+" -->\n", "<!-- end of "+b.backend+" -->\n"
		before, rest, found := strings.Cut(text, begin)
		was, after, closed := strings.Cut(rest, end)
		if !found || !closed {
			t.Fatalf("%s has no place for the table: write %q and %q", page, begin, end)
		}
		now := table(tables[i])
		if *update {
			text = before + begin + now + end + after
		} else if diff := cmp.Diff(was, now); diff != "" {
			t.Errorf("%s is out of date for %s (-page +now); run this test with -update:\n%s", page, b.backend, diff)
		}
	}
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func table(rows []seen) string {
	var b strings.Builder
	b.WriteString("\n| what is wrong | a change gets | at most after | a read gets | `/readyz` says |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.trouble, r.change, r.within, r.read, r.ready)
	}
	return b.String() + "\n"
}

// see runs a sidecar into the trouble and writes down what it says, and then that it serves again by itself.
func (f *failure) see(t *testing.T, address string) seen {
	c := f.setUp(t)
	shown := func(words string) string {
		words = strings.Join(strings.Fields(strings.NewReplacer(c.hide...).Replace(words)), " ")
		words = relations.ReplaceAllString(ports.ReplaceAllString(words, address), `"pg_tblspc/…"`)
		words = counts.ReplaceAllString(words, "$1 …")
		words = strings.ReplaceAll(words, "|", `\|`)
		if strings.Contains(words, "`") {
			return "`` " + words + " ``"
		}
		return "`" + words + "`"
	}
	if c.ends {
		s := begin(t, append([]string{"--admin-address=127.0.0.1:0"}, c.args...)...)
		code := s.wait()
		_, words, _ := strings.Cut(s.logs.String(), "sidecar: ")
		return seen{trouble: f.name, change: fmt.Sprintf("none: the sidecar ends with code %d", code), within: "–", read: "none", ready: "none; the log: " + shown(words)}
	}
	s := launch(t, c.args...)
	if c.strike != nil {
		s.ready(true)
		s.mustPut("u1", 1)
		c.strike()
	}
	item := `{"item":{"id":"sku-2","quantity":1}}`
	if c.large > 0 {
		item = `{"item":{"id":"sku-2","quantity":1,"name":"` + strings.Repeat("x", c.large) + `"}}`
	}
	start := time.Now()
	change := s.answer(t, http.MethodPost, "/v1/carts/u1/default/items", item)
	if took := time.Since(start); took > f.within {
		t.Errorf("the answer took %v, want at most %v", took, f.within)
	}
	row := seen{
		trouble: f.name, change: counts.ReplaceAllString(change, "$1 …"), within: f.within.String(),
		read: s.answer(t, http.MethodGet, "/v1/carts/u1/default", ""),
	}
	switch {
	case c.fine:
		s.ready(true)
		_, text := s.get(s.admin + "/readyz")
		row.ready = shown(text)
	case c.warns != "":
		row.ready = "`ok`; the log warns: " + shown(s.warning(c.warns))
		s.ready(true)
	default:
		row.ready = shown(s.refusal(c.serves, c.says))
	}
	if c.mend != nil {
		c.mend()
		s.ready(true)
		s.mustPut("u1", 3)
		if q := s.quantity("u1"); q != 3 {
			t.Errorf("after it was mended, the quantity is %d, want 3", q)
		}
	}
	return row
}

// refusal returns what readyz says once the backend was asked and refused. It waits until the text contains says, and
// until the sidecar is ready or not as given.
func (s *sidecarUnderTest) refusal(ready bool, says string) string {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for over := time.After(patience); ; {
		code, body := s.get(s.admin + "/readyz")
		if text, ok := strings.CutPrefix(body, "ok\n"); ok == ready && strings.HasPrefix(text, "backend ") && strings.Contains(text, says) {
			if ready {
				text = "ok; " + text
			}
			return text
		}
		select {
		case <-tick.C:
		case <-over:
			s.t.Fatalf("readyz is %d: %s\n%s", code, body, s.logs)
		}
	}
}

// warning waits until the sidecar logs the warning of that code, and returns its text.
func (s *sidecarUnderTest) warning(code string) string {
	s.t.Helper()
	for over := time.After(patience); ; {
		line, more := s.logs.code(code)
		if line != nil {
			return line["msg"].(string)
		}
		select {
		case <-more:
		case <-over:
			s.t.Fatalf("nothing warned of %s:\n%s", code, s.logs)
		}
	}
}

// nothing is the strike for a backend that goes on working.
func nothing() {}

// counts are numbers that differ in each run.
var counts = regexp.MustCompile(`(evicted|item of|takes|at most) \d+`)

// ports are the addresses of servers of a test.
var ports = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// relations are the files of tables on a disk of their own.
var relations = regexp.MustCompile(`"pg_tblspc/[^"]+"`)

// answer is what a client gets, in short.
func (s *sidecarUnderTest) answer(t *testing.T, method, path, body string) string {
	t.Helper()
	code, text, err := request(method, s.http+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if code == http.StatusOK {
		return "200"
	}
	var e struct {
		Code            int
		Reason, Message string
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil || e.Reason == "" {
		t.Fatalf("%s %s: %d %s: %v", method, path, code, text, err)
	}
	message, _, _ := strings.Cut(e.Message, ";")
	return fmt.Sprintf("%d `%s`: %s", code, e.Reason, message)
}

// secretFile is a file that holds a secret.
func secretFile(t *testing.T, content string) string {
	t.Helper()
	return writeFile(t, filepath.Join(t.TempDir(), "secret"), content)
}

// authority signs certificates for servers of a test.
type authority struct {
	file string // the PEM of its own certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	var raw []byte
	raw, a.key = a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: rand.Text()}, IsCA: true, BasicConstraintsValid: true})
	var err error
	if a.cert, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	a.file = pemFile(t, "ca.crt", "CERTIFICATE", raw)
	return a
}

// issue makes a certificate and its key, as files.
func (a *authority) issue(t *testing.T, name string) (cert, key string) {
	t.Helper()
	raw, private := a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}})
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pemFile(t, "tls.crt", "CERTIFICATE", raw), pemFile(t, "tls.key", "PRIVATE KEY", pkcs8)
}

func (a *authority) sign(t *testing.T, template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return raw, key
}

func pemFile(t *testing.T, name, kind string, raw []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: kind, Bytes: raw}); err != nil {
		t.Fatal(err)
	}
	return writeFile(t, filepath.Join(t.TempDir(), name), b.String())
}
