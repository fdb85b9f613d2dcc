package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

const (
	// maxConnections is how many connections a sidecar has at most, where the URL does not say it by pool_max_conns.
	// There may be many sidecars, and a server takes a hundred connections by default.
	maxConnections = 8
	// idleConnection is after which time a connection that is not used is closed, where the URL does not say it.
	idleConnection = 5 * time.Minute
	// idleLimit ends a transaction whose sidecar has gone silent in the middle of it: a frozen process, or a machine
	// that lost its power, would keep the rows locked. Two statements of one are milliseconds apart.
	idleLimit = `idle_in_transaction_session_timeout = '5s'`
)

// configure is the pool's configuration. What is wrong with the URL is said without a word of it.
func (d *driver) configure() (*pgxpool.Config, error) {
	url := d.Address()
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		where := "database URL"
		if d.SecretURL != (storage.Secret{}) {
			where = d.SecretURL.String()
		}
		return nil, fmt.Errorf("%w: %s: %s: write postgres://HOST:PORT/DATABASE, such as postgres://db:5432/shop?sslmode=verify-full",
			storage.ErrUnsupported, where, problem(err))
	}
	cc := &c.ConnConfig.Config
	parts := []string{cc.User, cc.Database, cc.Host}
	for _, f := range cc.Fallbacks {
		parts = append(parts, f.Host)
	}
	d.secrets = d.Secrets(cc.Password, parts...)
	if user := d.Username.Reveal(); user != "" {
		cc.User = user
	}
	if password := d.Password.Reveal(); password != "" {
		cc.Password = password
	}
	if d.TLS != nil {
		d.secure(cc)
	}
	if d.Dial > 0 {
		cc.ConnectTimeout = d.Dial
	}
	if cc.RuntimeParams["application_name"] == "" {
		cc.RuntimeParams["application_name"] = "sidecart"
	}
	if !strings.Contains(url, "pool_max_conns=") {
		c.MaxConns = maxConnections
	}
	if !strings.Contains(url, "pool_max_conn_idle_time=") {
		c.MaxConnIdleTime = idleConnection
	}
	c.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false } // who meets a lost connection tries again
	c.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
		cc.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
		if d.pooled.Load() {
			cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe // which names no statement
		}
		return nil
	}
	c.AfterConnect = d.greet
	return c, nil
}

// problem is what is wrong with a URL, which the error quotes.
func problem(err error) string {
	var parse *pgconn.ParseConfigError
	if !errors.As(err, &parse) {
		return "it cannot be read"
	}
	text := err.Error()
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		text = text[i+len("`: "):]
	}
	text, _, _ = strings.Cut(text, " (")
	return text
}

// secure uses the given TLS for every server of the URL, and never goes without.
func (d *driver) secure(cc *pgconn.Config) {
	named := func(host string) *pgconn.FallbackConfig {
		t := d.TLS.Clone()
		if t.ServerName == "" {
			t.ServerName = host
		}
		return &pgconn.FallbackConfig{Host: host, TLSConfig: t}
	}
	cc.TLSConfig = named(cc.Host).TLSConfig
	type server struct {
		host string
		port uint16
	}
	seen := map[server]bool{{cc.Host, cc.Port}: true}
	var fallbacks []*pgconn.FallbackConfig
	for _, f := range cc.Fallbacks { // a server may be there twice, with TLS and without
		if s := (server{f.Host, f.Port}); !seen[s] {
			seen[s] = true
			f2 := named(f.Host)
			f2.Port = f.Port
			fallbacks = append(fallbacks, f2)
		}
	}
	cc.Fallbacks = fallbacks
}

// errPooled: the connection is a pooler's, and would be used as if it were the server's.
var errPooled = fmt.Errorf("%w: %w: a pooler stands before the server", storage.ErrUnavailable, sql.ErrAgain)

// greet looks whom a new connection has led to. A pooler makes up the process id that a client is told, and the server
// knows its own.
func (d *driver) greet(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := sql.Bounded(ctx, d.Dial)
	defer cancel()
	var pid int64
	var encoding string
	err := conn.QueryRow(ctx, `SELECT pg_backend_pid(), current_setting('server_encoding')`, pgx.QueryExecModeExec).Scan(&pid, &encoding)
	if err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, &storage.Refusal{
			Words: "the database has the encoding " + encoding + ", which cannot keep every name: make one with ENCODING 'UTF8'",
		})
	}
	if pid != int64(conn.PgConn().PID()) {
		if !d.pooled.Swap(true) {
			return errPooled
		}
		return nil
	}
	_, err = conn.Exec(ctx, `SET `+idleLimit, pgx.QueryExecModeExec)
	return err
}

// acquire takes a connection from the pool, to a database whose schema is up to date.
func (d *driver) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	if err := d.schema.Do(ctx, d.migrate); err != nil {
		return nil, err
	}
	return d.connection(ctx)
}

// connection takes a connection from the pool.
func (d *driver) connection(ctx context.Context) (*pgxpool.Conn, error) {
	if err := d.life.Usable(ctx); err != nil {
		return nil, err
	}
	limit := time.Duration(0)
	if d.Dial > 0 && d.Write > 0 {
		limit = d.Dial + d.Write // of which the second is for those before it
	}
	bounded, cancel := sql.Bounded(ctx, limit)
	defer cancel()
	conn, err := d.pool.Acquire(bounded)
	if err != nil {
		return nil, d.translate(ctx, bounded, err)
	}
	return conn, nil
}

// read is a call that is bounded as a read is.
func (d *driver) read(ctx context.Context, f func(ctx context.Context, conn *pgxpool.Conn) error) error {
	return d.call(ctx, d.Read, f)
}

// call lends a connection to f, again where it is lost: f may be done twice.
func (d *driver) call(ctx context.Context, limit time.Duration, f func(ctx context.Context, conn *pgxpool.Conn) error) error {
	if err := d.life.Usable(ctx); err != nil {
		return err
	}
	ctx, cancel := d.life.Context(ctx)
	defer cancel()
	return sql.Retry(ctx, func() error {
		conn, err := d.acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		bounded, cancel := sql.Bounded(ctx, limit)
		defer cancel()
		return d.translate(ctx, bounded, f(bounded, conn))
	})
}

// channelOf is the channel of notifications of a prefix: names are shorter than 64 bytes there.
func channelOf(prefix string) string {
	sum := sha256.Sum256([]byte(prefix))
	return "sidecart_" + hex.EncodeToString(sum[:8])
}
