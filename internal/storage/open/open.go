package open

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/dynamodb"
	"github.com/sidecart/sidecart/internal/storage/file"
	"github.com/sidecart/sidecart/internal/storage/memcached"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/middleware"
	"github.com/sidecart/sidecart/internal/storage/mysql"
	"github.com/sidecart/sidecart/internal/storage/postgres"
	"github.com/sidecart/sidecart/internal/storage/redis"
	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/storage/sqlite"
)

// Check reports what a valid configuration asks for and this build does not have. It is a rule for
// [config.Builder.Rule].
func Check(c *config.Config) config.Problems { return config.NotBuilt(c) }

// Store opens the store that c names, which must be valid. It does not demand that a server answers: ask Ping. An error
// of the type [config.Problems] says that the configuration, or a file that it names, is wrong; any other, that what it
// names cannot be opened now.
//
// It returns the backend within the decorators of package middleware.
func Store(ctx context.Context, c *config.Config) (storage.Store, error) {
	if err := Check(c).Err(); err != nil {
		return nil, err
	}
	s, err := backend(ctx, c)
	if err != nil {
		return nil, err
	}
	return middleware.Measure(s), nil
}

// Critical opens the store that c names for checkouts. It returns nil if they are beside the carts. Otherwise it
// behaves like [Store].
func Critical(ctx context.Context, c *config.Config) (storage.Store, error) {
	critical := c.Critical()
	if critical == nil {
		return nil, nil
	}
	err := sharedURL(critical.Backend.Database)
	var s storage.Store
	if err == nil {
		s, err = backend(ctx, critical)
	}
	if err != nil {
		return nil, under("criticalBackend", "the critical backend", err)
	}
	return middleware.Measure(s), nil
}

// sharedURL refuses a file that names an SQLite file, which is not for all sidecars. Nothing is opened.
func sharedURL(d *config.Database) error {
	if d == nil || d.URLFile == "" {
		return nil
	}
	const path = "backend.database.urlFile"
	var r reader
	if url := r.url(path, d); config.URL(url.Reveal()).Scheme() == "sqlite" {
		return config.Problems{{Path: path, Message: config.NoCriticalSQLite}}
	}
	return r.problems.Err()
}

// backend opens what the type and the URL of a configuration name, with the audit trail that it asks for.
func backend(ctx context.Context, c *config.Config) (storage.Store, error) {
	s, err := anyBackend(ctx, c)
	if err != nil || c.Audit.Retention == 0 || c.MoveFrom != nil { // which asks for both backends by themselves
		return s, err
	}
	if a, ok := s.(storage.Auditor); !ok || !a.Audits() { // the URL stood in a file
		return nil, errors.Join(config.Problems{{Path: "audit.retention", Message: config.NoAudit}}, s.Close())
	}
	return s, nil
}

// anyBackend is backend for the case in which the backend need not be able to keep an audit trail.
func anyBackend(ctx context.Context, c *config.Config) (storage.Store, error) {
	if c.MoveFrom != nil {
		return openMoving(ctx, c)
	}
	switch b := &c.Backend; b.Type {
	case config.BackendRedis:
		rc, err := RedisConfig(c)
		if err != nil {
			return nil, err
		}
		return redis.New(ctx, rc)
	case config.BackendMemcached:
		return memcached.New(memcached.Config{
			Addresses: b.Memcached.Addresses, Prefix: c.KeyPrefix,
			Dial: c.Timeouts.Dial.Std(), Read: c.Timeouts.Read.Std(), Write: c.Timeouts.Write.Std(),
		}), nil
	case config.BackendDynamoDB:
		dc, err := dynamodbConfig(c)
		if err != nil {
			return nil, err
		}
		return dynamodb.New(ctx, dc)
	case config.BackendDatabase:
		return openDatabase(ctx, c)
	case config.BackendFile:
		return file.Open(file.Config{Directory: b.File.Directory, Prefix: c.KeyPrefix, Write: c.Timeouts.Write.Std()})
	case config.BackendMemory:
		return memory.New(), nil
	}
	return nil, config.Problems{{Path: "backend.type", Message: fmt.Sprintf("%q is no backend; available are %s", c.Backend.Type, config.BuiltNames())}}
}

// openDatabase opens the database that the URL names, which may stand in a file.
func openDatabase(ctx context.Context, c *config.Config) (storage.Store, error) {
	d := c.Backend.Database
	var secret storage.Secret
	url := d.URL
	if url == "" {
		var r reader
		secret = r.url("backend.database.urlFile", d)
		if err := r.problems.Err(); err != nil {
			return nil, err
		}
		url = config.URL(secret.Reveal())
	}
	switch scheme := url.Scheme(); scheme {
	case "postgres", "postgresql":
		return openServer(ctx, c, secret, postgres.Open)
	case "mysql":
		return openServer(ctx, c, secret, mysql.Open)
	case "sqlite":
		return sqlite.Open(ctx, sqlite.Config{
			URL: string(d.URL), SecretURL: secret, Prefix: c.KeyPrefix,
			Dial: c.Timeouts.Dial.Std(), Read: c.Timeouts.Read.Std(), Write: c.Timeouts.Write.Std(),
		})
	default:
		return nil, config.Problems{{Path: "backend.database.url", Message: fmt.Sprintf("%q is no scheme of a database; available are %s", scheme, config.BuiltNames())}}
	}
}

// openServer opens the database of a server. url is its URL if that comes from a file.
func openServer(ctx context.Context, c *config.Config, url storage.Secret, open func(context.Context, sql.Config) (*cell.Store, error)) (storage.Store, error) {
	const path = "backend.database."
	d := c.Backend.Database
	var files reader
	sc := sql.Config{
		URL: string(d.URL), SecretURL: url, Prefix: c.KeyPrefix,
		Username: files.secret(path+"usernameFile", d.UsernameFile), Password: files.secret(path+"passwordFile", d.PasswordFile),
		TLS:  files.tls(path+"tls", d.TLS),
		Dial: c.Timeouts.Dial.Std(), Read: c.Timeouts.Read.Std(), Write: c.Timeouts.Write.Std(),
		Audit: sql.Audit{Retention: c.Audit.Retention.Std(), Who: storage.ProcessName()},
	}
	if err := files.problems.Err(); err != nil {
		return nil, err
	}
	store, err := open(ctx, sc)
	if err == nil {
		return store, nil
	}
	if errors.Is(err, storage.ErrUnsupported) {
		field := "url"
		if d.URL == "" {
			field = "urlFile"
		}
		err = config.Problems{{Path: path + field, Message: err.Error()}}
	}
	return nil, err // and no typed nil
}

// url returns the URL in urlFile. Its errors quote nothing of the URL.
func (r *reader) url(path string, d *config.Database) storage.Secret {
	text := r.secret(path, d.URLFile)
	url := config.URL(strings.TrimSpace(text.Reveal()))
	switch {
	case len(r.problems) > 0:
	case url == "":
		r.problem(path, "%s is empty", d.URLFile)
	case url.Problem() != "":
		r.problem(path, "the URL in %s %s", d.URLFile, url.Problem())
	case len(config.NotBuiltURL(path, url)) > 0:
		r.problem(path, "the URL in %s names a database that is not built into this version; available are %s", d.URLFile, config.BuiltNames())
	case d.TLSProblem(url) != "":
		r.problem(strings.TrimSuffix(path, "urlFile")+"tls", "%s", d.TLSProblem(url))
	case url.Scheme() == "sqlite" && (d.UsernameFile != "" || d.PasswordFile != ""):
		r.problem(path, "%s names an SQLite file, which knows no users: remove usernameFile and passwordFile", d.URLFile)
	}
	return storage.NewSecret(string(url), d.URLFile)
}

// RedisConfig is what the Redis of c is reached with, secrets included. The error is [config.Problems].
func RedisConfig(c *config.Config) (redis.Config, error) {
	const path = "backend.redis."
	r := c.Backend.Redis
	var files reader
	rc := redis.Config{
		Addresses:        r.Addresses,
		Mode:             redis.Mode(r.Mode),
		MasterName:       r.MasterName,
		Database:         r.Database,
		Username:         files.secret(path+"usernameFile", r.UsernameFile),
		Password:         files.secret(path+"passwordFile", r.PasswordFile),
		SentinelUsername: files.secret(path+"sentinelUsernameFile", r.SentinelUsernameFile),
		SentinelPassword: files.secret(path+"sentinelPasswordFile", r.SentinelPasswordFile),
		TLS:              files.tls(path+"tls", r.TLS),
		Prefix:           c.KeyPrefix,
		Namespace:        r.Namespace,
		MinReplicas:      r.MinReplicas,
		DialTimeout:      c.Timeouts.Dial.Std(),
		ReadTimeout:      c.Timeouts.Read.Std(),
		WriteTimeout:     c.Timeouts.Write.Std(),
	}
	return rc, files.problems.Err()
}

// dynamodbConfig is the configuration of the DynamoDB room, secrets included.
func dynamodbConfig(c *config.Config) (dynamodb.Config, error) {
	const path = "backend.dynamodb."
	d := c.Backend.DynamoDB
	var files reader
	dc := dynamodb.Config{
		Table:           d.TableName,
		Region:          d.Region,
		Endpoint:        d.Endpoint,
		CreateTable:     d.CreateTable,
		AccessKeyID:     files.secret(path+"accessKeyIdFile", d.AccessKeyIDFile),
		SecretAccessKey: files.secret(path+"secretAccessKeyFile", d.SecretAccessKeyFile),
		Prefix:          c.KeyPrefix,
		DialTimeout:     c.Timeouts.Dial.Std(),
		ReadTimeout:     c.Timeouts.Read.Std(),
		WriteTimeout:    c.Timeouts.Write.Std(),
	}
	return dc, files.problems.Err()
}

// CriticalIdentity is [Identity] for the store of [Critical]; "" if there is none.
func CriticalIdentity(c *config.Config) string {
	if critical := c.Critical(); critical != nil {
		return Identity(critical)
	}
	return ""
}

// Identity returns a digest of everything that the store of c is opened from, including the contents of secret files.
// If it stays the same, the open store can stay. A file that cannot be read counts by its error.
func Identity(c *config.Config) string {
	carts := *c
	carts.CriticalBackend = nil
	c = &carts
	h := sha256.New()
	write := func(s string) { _, _ = fmt.Fprintf(h, "%d:%s", len(s), s) }
	if c.Backend.Type == config.BackendMemory && c.MoveFrom == nil {
		return string(c.Backend.Type) // a memory store depends on nothing else, and opening it anew loses carts
	}
	backend, err := config.Marshal(&config.Config{Backend: c.Backend, MoveFrom: c.MoveFrom, Audit: c.Audit})
	if err != nil {
		write(err.Error())
	}
	write(string(backend))
	write(c.KeyPrefix)
	write(fmt.Sprint(c.Timeouts.Dial, c.Timeouts.Read, c.Timeouts.Write))
	for path, file := range c.SecretFiles() {
		raw, err := readFile(file)
		write(path)
		write(string(raw))
		write(fmt.Sprint(err))
	}
	return hex.EncodeToString(h.Sum(nil))
}
