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
	// maxConnections is how many connections a sidecar has at most, unless the URL sets pool_max_conns. There may be
	// many sidecars, and a server takes a hundred connections by default.
	maxConnections = 8
	// idleConnection is how long an unused connection stays open, unless the URL says otherwise.
	idleConnection = 5 * time.Minute
	// idleLimit ends a transaction if its sidecar falls silent in the middle of it. A frozen process, or a machine
	// without power, would keep the rows locked. Normally the statements of a transaction are milliseconds apart.
	idleLimit = `idle_in_transaction_session_timeout = '5s'`
)

// configure returns the pool's configuration. Errors about the URL do not quote it.
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
	d.Hidden = d.Secrets(cc.Password, parts...)
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
	c.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false } // a call that finds its connection lost tries again
	c.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
		cc.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
		if d.pooled.Load() {
			cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe // it uses no named statements
		}
		return nil
	}
	c.AfterConnect = d.greet
	return c, nil
}

// problem returns what is wrong with a URL, without the URL that the error quotes.
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

// secure uses the given TLS for every server of the URL, and allows no connection without it.
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
	for _, f := range cc.Fallbacks { // a server may be listed twice, with TLS and without
		if s := (server{f.Host, f.Port}); !seen[s] {
			seen[s] = true
			f2 := named(f.Host)
			f2.Port = f.Port
			fallbacks = append(fallbacks, f2)
		}
	}
	cc.Fallbacks = fallbacks
}

// errPooled: the connection leads to a pooler, and was set up as if it led to the server.
var errPooled = fmt.Errorf("%w: %w: a pooler stands before the server", storage.ErrUnavailable, sql.ErrAgain)

// greet finds out whether a new connection leads to a pooler. A pooler invents the process id that it tells the client,
// and the server knows its own.
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

// connection is a [sql.Conn].
type connection struct{ *pgxpool.Conn }

// Connect implements [sql.Dialect].
func (d *driver) Connect(ctx context.Context) (sql.Conn, error) {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return connection{conn}, nil
}

// Query implements [sql.Conn].
func (c connection) Query(ctx context.Context, each func(scan func(into ...any) error) error, statement string, args ...any) error {
	rows, err := c.Conn.Query(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Exec implements [sql.Conn].
func (c connection) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	tag, err := c.Conn.Exec(ctx, statement, args...)
	return tag.RowsAffected(), err
}

// Rollback implements [sql.Conn]. The pool closes a connection that is in a transaction still.
func (c connection) Rollback(ctx context.Context) {
	if !c.Conn.Conn().IsClosed() {
		_, _ = c.Conn.Exec(ctx, `ROLLBACK`, pgx.QueryExecModeExec)
	}
}

// channelOf is the notification channel of a prefix. Names of channels must be shorter than 64 bytes.
func channelOf(prefix string) string {
	sum := sha256.Sum256([]byte(prefix))
	return "sidecart_" + hex.EncodeToString(sum[:8])
}
