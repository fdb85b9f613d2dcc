package open_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/open"
	"github.com/sidecart/sidecart/internal/testserver"
)

// of is the default configuration with another backend.
func of(b config.Backend) *config.Config {
	c := config.Default()
	c.Backend = b
	return c
}

func redisAt(r config.Redis) *config.Config {
	return of(config.Backend{Type: config.BackendRedis, Redis: &r})
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openStore(t *testing.T, c *config.Config) storage.Store {
	t.Helper()
	if err := c.Validate().Err(); err != nil {
		t.Fatal(err)
	}
	s, err := open.Store(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// commit makes a cart and reads it back.
func commit(t *testing.T, s storage.Store) {
	t.Helper()
	key := cart.Key{Identifier: "u1", Instance: "default"}
	outs, err := s.Commit(t.Context(), storage.Commit{
		Key:    key,
		Change: storage.Change{NewID: "0b37a9a0-7a54-4b35-9d4e-3f1f5a7a5a11", Steps: 1, TTL: time.Hour, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(`{"a":{"id":"a"}}`), Step: 1}}},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartItems}},
	})
	if err != nil || outs[0].Status != storage.Committed {
		t.Fatalf("Commit = %v, %v", outs, err)
	}
	c, err := s.Load(t.Context(), key)
	if err != nil || c.Version != 1 || c.Items.Object.Len() != 1 {
		t.Fatalf("Load = %+v, %v", c, err)
	}
}

func TestStoreOpensWhatTheConfigurationNames(t *testing.T) {
	sqlite := "sqlite:" + filepath.Join(t.TempDir(), "carts.db")
	for name, tc := range map[string]struct {
		backend config.Backend
		want    string
	}{
		"memory":         {config.Backend{Type: config.BackendMemory}, "Memory"},
		"sqlite":         {config.Backend{Type: config.BackendDatabase, Database: &config.Database{URL: config.URL(sqlite)}}, "Database"},
		"sqlite by file": {config.Backend{Type: config.BackendDatabase, Database: &config.Database{URLFile: write(t, "url", "sqlite:"+filepath.Join(t.TempDir(), "carts.db")+"\n")}}, "Database"},
		"dynamodb": {config.Backend{Type: config.BackendDynamoDB, DynamoDB: &config.DynamoDB{
			TableName: "carts", Region: "local", Endpoint: testserver.StartDynalite(t).Endpoint, CreateTable: true,
			AccessKeyIDFile: write(t, "id", "AKIDEXAMPLE\n"), SecretAccessKeyFile: write(t, "secret", "s3cret\n"),
		}}, "DynamoDB"},
		"memcached": {config.Backend{Type: config.BackendMemcached, Memcached: &config.Memcached{Addresses: []string{testserver.StartMemcached(t).Addr}}}, "Memcached"},
		"file":      {config.Backend{Type: config.BackendFile, File: &config.File{Directory: t.TempDir()}}, "File"},
		"redis":     {config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{testserver.StartRedis(t).Addr}}}, "Redis"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, of(tc.backend))
			if got := s.Capabilities().Backend; got != tc.want {
				t.Errorf("backend %s, want %s", got, tc.want)
			}
			if err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
			commit(t, s)
			if meter, ok := storage.As[storage.Meter](s); !ok || meter.CommitCounts().Commits != 1 {
				t.Error("the commit was not counted")
			}
		})
	}
}

// The password is the content of the file without its final newline, and no other.
func TestRedisPasswordFile(t *testing.T) {
	server := testserver.StartRedis(t, testserver.WithRedisArgs("--requirepass", "s3cret "))
	for content, ok := range map[string]bool{"s3cret ": true, "s3cret \n": true, "s3cret \r\n": true, "s3cret \n\n": false, "wrong": false} {
		s := openStore(t, redisAt(config.Redis{Addresses: []string{server.Addr}, PasswordFile: write(t, "password", content)}))
		err := s.Ping(t.Context())
		if (err == nil) != ok {
			t.Errorf("password %q: Ping = %v", content, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

// A server that is down is not an error of opening: the sidecar starts and waits.
func TestStoreDoesNotNeedTheServer(t *testing.T) {
	s := openStore(t, redisAt(config.Redis{Addresses: []string{"127.0.0.1:1"}}))
	if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Ping = %v, want ErrUnavailable", err)
	}
}

func TestStoreRefuses(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	junk := write(t, "junk.pem", "no PEM")
	cert, _ := certificate(t)
	_, otherKey := certificate(t)
	critical := func(d config.Database) *config.Config {
		c := of(config.Backend{Type: config.BackendMemory})
		c.CriticalBackend = &config.Backend{Type: config.BackendDatabase, Database: &d}
		return c
	}
	audited := of(config.Backend{Type: config.BackendDatabase, Database: &config.Database{URLFile: write(t, "url", "sqlite:"+filepath.Join(t.TempDir(), "s3cret.db"))}})
	audited.Audit.Retention = config.Duration(time.Hour)
	for name, tc := range map[string]struct {
		c    *config.Config
		want string // problems, without the text of the operating system
	}{
		"audit trail":  {audited, "audit.retention: " + config.NoAudit},
		"junk, file":   {of(config.Backend{Type: config.BackendDatabase, Database: &config.Database{URLFile: write(t, "url", "?:s3cret@")}}), "url must start with sqlite:, postgres:// or mysql://"},
		"parameter":    {of(config.Backend{Type: config.BackendDatabase, Database: &config.Database{URL: "mysql://db/shop?sslmode=require"}}), `backend.database.url: open database: unsupported by this backend: database URL: it has the parameter "sslmode", and the only one there is, is tls: write mysql://HOST:PORT/DATABASE`},
		"tls, twice":   {of(config.Backend{Type: config.BackendDatabase, Database: &config.Database{URLFile: write(t, "url", "postgres://u:s3cret@db/shop?sslmode=require"), TLS: config.TLS{Enabled: true}}}), "backend.database.tls: must not be set beside a URL that says how to speak TLS"},
		"database ca":  {of(config.Backend{Type: config.BackendDatabase, Database: &config.Database{URL: "postgres://db/shop", TLS: config.TLS{CAFile: junk}}}), "backend.database.tls.caFile: " + junk + " holds no certificate in PEM"},
		"url file":     {of(config.Backend{Type: config.BackendDatabase, Database: &config.Database{URLFile: missing}}), "backend.database.urlFile: open " + missing + ": no such file or directory"},
		"empty url":    {of(config.Backend{Type: config.BackendDatabase, Database: &config.Database{URLFile: write(t, "url", "")}}), "is empty"},
		"critical url": {critical(config.Database{URLFile: missing}), "criticalBackend.database.urlFile: open " + missing + ": no such file or directory"},
		"critical ca":  {critical(config.Database{URL: "postgres://db/shop", TLS: config.TLS{CAFile: junk}}), "criticalBackend.database.tls.caFile: " + junk + " holds no certificate in PEM"},
		"critical, file": {
			critical(config.Database{URLFile: write(t, "url", "sqlite:"+filepath.Join(t.TempDir(), "s3cret.db"))}),
			"criticalBackend.database.urlFile: " + config.NoCriticalSQLite,
		},
		"secrets":      {redisAt(config.Redis{Addresses: []string{"r:1"}, UsernameFile: missing, PasswordFile: missing}), "backend.redis.usernameFile: open " + missing + ": no such file or directory\nbackend.redis.passwordFile: open " + missing + ": no such file or directory"},
		"ca":           {redisAt(config.Redis{Addresses: []string{"r:1"}, TLS: config.TLS{CAFile: junk}}), "backend.redis.tls.caFile: " + junk + " holds no certificate in PEM"},
		"key pair":     {redisAt(config.Redis{Addresses: []string{"r:1"}, TLS: config.TLS{CertFile: cert, KeyFile: otherKey}}), "backend.redis.tls.certFile: " + cert + " and " + otherKey + " are no pair: the private key cannot be used, or is not that of the certificate"},
		"unknown type": {of(config.Backend{Type: "Tape"}), `backend.type: "Tape" is no backend; available are ` + config.BuiltNames()},
	} {
		t.Run(name, func(t *testing.T) {
			opens := open.Store
			if tc.c.CriticalBackend != nil {
				opens = open.Critical
			}
			s, err := opens(t.Context(), tc.c)
			if s != nil {
				t.Error("a store came with the error")
			}
			problems, ok := errors.AsType[config.Problems](err)
			if !ok {
				t.Fatalf("err = %v, want Problems", err)
			}
			if !strings.Contains(problems.Error(), tc.want) {
				t.Errorf("problems:\n%s\nwant:\n%s", problems, tc.want)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Error("the error tells the secret")
			}
		})
	}
}

// What stands in urlFile is told by no error, neither at the start nor later: the file's name is.
func TestNoErrorQuotesTheURLOfAFile(t *testing.T) {
	folder := t.TempDir()
	directory := filepath.Join(folder, "hush-directory")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	of := func(url string) (*config.Config, string) {
		file := write(t, "url", url)
		return of(config.Backend{Type: config.BackendDatabase, Database: &config.Database{URLFile: file}}), file
	}
	for name, url := range map[string]string{
		"no URL":          "hush-hush",
		"a user as name":  "hush-hush:word@db/shop",
		"another scheme":  "hush-hush://db/shop",
		"no host":         "postgres:hush-hush",
		"no port":         "postgres://hush:hush@db:hush/shop",
		"no parameter":    "mysql://hush:hush@hush-hush/shop?password=hush",
		"a DSN":           "host=hush-hush password=hush",
		"NUL":             "sqlite:hush\x00hush",
		"no folder":       "sqlite:" + folder + "/hush-hush/carts.db",
		"a folder":        "sqlite:" + directory,
		"a URI":           "sqlite:file:hush-hush.db",
		"in memory":       "sqlite::hush-memory:",
		"no database":     "sqlite:" + write(t, "hush-garbage", strings.Repeat("garbage ", 1000)),
		"nothing to open": "sqlite:" + strings.Repeat("/hush-hush", 500),
		"a control":       "postgres://hush\x7fhush",
		"a bad port":      "mysql://hush:hush@db:hush/",
	} {
		t.Run(name, func(t *testing.T) {
			c, file := of(url)
			s, err := open.Store(t.Context(), c)
			if err == nil {
				_ = s.Close()
				t.Fatal("it was opened")
			}
			if strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), file) {
				t.Errorf("the error tells of the URL, or not of the file %s: %v", file, err)
			}
		})
	}
	// Servers are found when they are asked, by a name that the resolver does not know either.
	for _, url := range []string{"postgres://hush:hushhush@hush-hush.invalid/hush", "mysql://hush:hushhush@hush-hush.invalid/hush"} {
		c, file := of(url)
		s := openStore(t, c)
		if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), file) {
			t.Errorf("%.8s: %v", url, err)
		}
	}
	path := filepath.Join(folder, "hush-hush.db")
	c, file := of("sqlite:" + path + "\n")
	s := openStore(t, c)
	commit(t, s)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), file) {
		t.Errorf("after the database was moved: %v", err)
	}
}

// The library's errors about a key pair quote the kinds of the blocks in both files.
func TestNoErrorQuotesAKeyPair(t *testing.T) {
	cert, key := certificate(t)
	block := func(kind string) string {
		return write(t, "pem", "-----BEGIN "+kind+"-----\naHVzaC1odXNo\n-----END "+kind+"-----\n")
	}
	for name, tc := range map[string]struct{ cert, key, want string }{
		"no certificate":       {block("HUSH HUSH"), key, "holds no certificate in PEM"},
		"no PEM":               {write(t, "crt", "hush-hush"), key, "holds no certificate in PEM"},
		"a broken certificate": {block("CERTIFICATE"), key, "holds a certificate that cannot be read"},
		"no key":               {cert, block("HUSH HUSH"), "holds no private key in PEM"},
		"a certificate as key": {cert, cert, "holds no private key in PEM"},
		"a broken key":         {cert, block("RSA PRIVATE KEY"), "are no pair: the private key cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open.Store(t.Context(), redisAt(config.Redis{Addresses: []string{"r:1"}, TLS: config.TLS{CertFile: tc.cert, KeyFile: tc.key}}))
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(strings.ToLower(err.Error()), "hush") || strings.Contains(err.Error(), "BEGIN") {
				t.Errorf("err = %v, want %q", err, tc.want)
			}
		})
	}
}

// Client and server prove to each other who they are.
func TestRedisOverTLS(t *testing.T) {
	cert, key := certificate(t)
	port := freePort(t)
	testserver.StartRedis(t, testserver.WithRedisArgs("--tls-port", port,
		"--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "yes"))
	for name, tc := range map[string]struct {
		tls config.TLS
		ok  bool
	}{
		"both sides proven":     {config.TLS{CAFile: cert, CertFile: cert, KeyFile: key, ServerName: "redis"}, true},
		"any server":            {config.TLS{InsecureSkipVerify: true, CertFile: cert, KeyFile: key}, true},
		"unknown authority":     {config.TLS{Enabled: true, CertFile: cert, KeyFile: key, ServerName: "redis"}, false},
		"another server":        {config.TLS{CAFile: cert, CertFile: cert, KeyFile: key, ServerName: "other"}, false},
		"no client certificate": {config.TLS{CAFile: cert, ServerName: "redis"}, false},
		"plain text":            {config.TLS{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, redisAt(config.Redis{Addresses: []string{"127.0.0.1:" + port}, TLS: tc.tls}))
			if err := s.Ping(t.Context()); (err == nil) != tc.ok {
				t.Errorf("Ping = %v", err)
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// The identity changes with everything that a store is opened from, and with nothing else.
func TestIdentity(t *testing.T) {
	password := write(t, "password", "one")
	base := func() *config.Config {
		return redisAt(config.Redis{Addresses: []string{"r:1"}, PasswordFile: password})
	}
	before := open.Identity(base())
	for name, tc := range map[string]struct {
		change func(*config.Config)
		same   bool
	}{
		"nothing":       {func(*config.Config) {}, true},
		"ttl":           {func(c *config.Config) { c.TTL = 0 }, true},
		"locking":       {func(c *config.Config) { c.Locking.Mode = config.LockingDisabled; c.Locking.WaitTimeout = 1 }, true},
		"request":       {func(c *config.Config) { c.Timeouts.Request = 1 }, true},
		"generation":    {func(c *config.Config) { c.Generation = 8 }, true},
		"address":       {func(c *config.Config) { c.Backend.Redis.Addresses = []string{"r:2"} }, false},
		"database":      {func(c *config.Config) { c.Backend.Redis.Database = 1 }, false},
		"prefix":        {func(c *config.Config) { c.KeyPrefix = "other" }, false},
		"audit trail":   {func(c *config.Config) { c.Audit.Retention = 1 }, false},
		"read timeout":  {func(c *config.Config) { c.Timeouts.Read = 1 }, false},
		"another file":  {func(c *config.Config) { c.Backend.Redis.PasswordFile = write(t, "password", "one") }, false},
		"tls":           {func(c *config.Config) { c.Backend.Redis.TLS.Enabled = true }, false},
		"other backend": {func(c *config.Config) { c.Backend = config.Backend{Type: config.BackendMemory} }, false},
	} {
		c := base()
		tc.change(c)
		if same := open.Identity(c) == before; same != tc.same {
			t.Errorf("%s: same identity = %v, want %v", name, same, tc.same)
		}
	}
	if err := os.WriteFile(password, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	if open.Identity(base()) == before {
		t.Error("a rotated password left the identity as it was")
	}
	memory := of(config.Backend{Type: config.BackendMemory})
	changed := of(config.Backend{Type: config.BackendMemory, Memory: &config.Memory{}})
	changed.Timeouts.Read, changed.KeyPrefix = 1, "other"
	if d := cmp.Diff(open.Identity(memory), open.Identity(changed)); d != "" {
		t.Error("memory would be opened anew, and lose its carts: " + d)
	}
}

// certificate is a self-signed pair of files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"}, DNSNames: []string{"redis"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}
