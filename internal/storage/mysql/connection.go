package mysql

import (
	"context"
	stdsql "database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	driverlib "github.com/go-sql-driver/mysql"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

const (
	// maxConnections is how many connections a sidecar has at most. There may be many sidecars, and a server takes 150
	// connections by default.
	maxConnections = 8
	// idleConnection is how long an unused connection stays open. It is less than the server's own limit.
	idleConnection = 20 * time.Second
	// setUp gives a connection the settings that the statements expect, whatever those of the server are. The wait for
	// a row ends after a second, or a few if a write may take longer. A sidecar that falls silent in the middle of a
	// transaction would keep its rows locked. MariaDB knows that the connection is in a transaction, and ends it after
	// 5 seconds; MySQL ends it after 30.
	setUp = `SET NAMES utf8mb4;
		SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1, completion_type = 'NO_CHAIN',
			time_zone = '+00:00', innodb_lock_wait_timeout = ?, wait_timeout = 30 /*M!100301 , idle_transaction_timeout = 5 */;
		SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED`
)

// configure makes the pool, which connects later. Errors about the URL do not quote it.
func (d *driver) configure() error {
	where := "database URL"
	if d.SecretURL != (storage.Secret{}) {
		where = d.SecretURL.String()
	}
	c, err := parse(d.Address())
	if err != nil {
		return fmt.Errorf("%w: %s: %w: write mysql://HOST:PORT/DATABASE, such as mysql://db:3306/shop?tls=true", storage.ErrUnsupported, where, err)
	}
	host, _, _ := net.SplitHostPort(c.Addr)
	d.Hidden = d.Secrets(c.Passwd, c.User, c.DBName, host, c.Addr)
	if user := d.Username.Reveal(); user != "" {
		c.User = user
	}
	if password := d.Password.Reveal(); password != "" {
		c.Passwd = password
	}
	if d.TLS != nil {
		c.TLSConfig, c.TLS = "", d.TLS
	}
	c.Timeout = d.Dial
	connector, err := driverlib.NewConnector(c)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", storage.ErrUnsupported, where, storage.Hide(err, d.Hidden...))
	}
	d.pool = stdsql.OpenDB(&connecting{connector, d})
	d.pool.SetMaxOpenConns(maxConnections)
	d.pool.SetMaxIdleConns(maxConnections)
	d.pool.SetConnMaxIdleTime(idleConnection)
	return nil
}

// parse reads a URL.
func parse(address string) (*driverlib.Config, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("it cannot be read")
	}
	c := driverlib.NewConfig()
	c.User = u.User.Username()
	c.Passwd, _ = u.User.Password()
	c.Net, c.Addr, c.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	switch {
	case u.Scheme != "mysql":
		return nil, errors.New("its scheme is not mysql")
	case u.Hostname() == "":
		return nil, errors.New("it names no host")
	case c.DBName == "" || strings.Contains(c.DBName, "/"):
		return nil, errors.New("it names no database")
	}
	if u.Port() == "" {
		c.Addr = net.JoinHostPort(u.Hostname(), "3306")
	}
	c.TLSConfig = "preferred"
	for name, values := range u.Query() {
		if name != "tls" {
			return nil, fmt.Errorf("it has the parameter %q, and the only one there is, is tls", name)
		}
		switch c.TLSConfig = values[0]; c.TLSConfig {
		case "true", "false", "skip-verify", "preferred":
		default:
			return nil, errors.New("its parameter tls is not true, false, skip-verify or preferred")
		}
	}
	// The driver puts parameters into the text of a statement, quoted by the server's rules. So several statements make
	// one round trip, and none must be prepared.
	c.InterpolateParams, c.MultiStatements = true, true
	c.ClientFoundRows = true // an update that alters nothing still counts the row that it found
	c.MaxAllowedPacket = 0   // the server's
	c.Logger = &driverlib.NopLogger{}
	return c, nil
}

// connecting makes connections and sets them up.
type connecting struct {
	sqldriver.Connector
	driver *driver
}

// Connect implements [sqldriver.Connector].
func (c *connecting) Connect(ctx context.Context) (sqldriver.Conn, error) {
	ctx, cancel := sql.Bounded(ctx, c.driver.Dial)
	defer cancel()
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, &connectError{err}
	}
	wait := max(1, int64(c.driver.Write/time.Second)) // the server knows only whole seconds
	if _, err := execOn(ctx, conn, setUp, wait); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// connectError says that no server could be reached.
type connectError struct{ cause error }

func (e *connectError) Error() string { return "connect: " + e.cause.Error() }
func (e *connectError) Unwrap() error { return e.cause }

// execOn runs statements directly on a connection of the driver. Only there can the results of all statements be had,
// and the error that says that they are too long to send.
func execOn(ctx context.Context, raw any, statements string, args ...any) (driverlib.Result, error) {
	named := make([]sqldriver.NamedValue, len(args))
	for i, arg := range args {
		named[i] = sqldriver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	result, err := raw.(sqldriver.ExecerContext).ExecContext(ctx, statements, named)
	if errors.Is(err, sqldriver.ErrSkip) {
		return nil, driverlib.ErrPktTooLarge
	}
	if err != nil {
		return nil, err
	}
	return result.(driverlib.Result), nil
}

// connection is a [sql.Conn].
type connection struct{ *stdsql.Conn }

// Connect implements [sql.Dialect].
func (d *driver) Connect(ctx context.Context) (sql.Conn, error) {
	conn, err := d.pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return connection{conn}, nil
}

// Query implements [sql.Conn].
func (c connection) Query(ctx context.Context, each func(scan func(into ...any) error) error, statement string, args ...any) error {
	rows, err := c.QueryContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Exec implements [sql.Conn].
func (c connection) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	result, err := c.run(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return result.AllRowsAffected()[0], nil
}

// run runs statements in one round trip.
func (c connection) run(ctx context.Context, statements string, args ...any) (result driverlib.Result, err error) {
	err = c.Raw(func(raw any) error {
		result, err = execOn(ctx, raw, statements, args...)
		return err
	})
	return result, err
}

// Rollback implements [sql.Conn].
func (c connection) Rollback(ctx context.Context) {
	if _, err := c.run(ctx, `ROLLBACK`); err != nil {
		c.discard()
	}
}

// discard closes the connection instead of keeping it for others.
func (c connection) discard() {
	_ = c.Raw(func(any) error { return sqldriver.ErrBadConn })
}

// Release implements [sql.Conn].
func (c connection) Release() { _ = c.Close() }

// drain waits until no call has a connection. The pool's own Close waits for none.
func (d *driver) drain() {
	const pause = 2 * time.Millisecond
	for deadline := time.Now().Add(2 * time.Second); d.pool.Stats().InUse > 0 && time.Now().Before(deadline); {
		time.Sleep(pause)
	}
}
