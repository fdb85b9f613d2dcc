package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"       // driver "pgx"
	_ "github.com/ncruces/go-sqlite3/driver" // driver "sqlite3"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/testserver"
)

// sqlDialect has a database's own statements for the plain loop: in a transaction that holds the cart's row.
type sqlDialect struct {
	driver string
	// dsn is what the driver calls the database at place.
	dsn func(place string) (string, error)
	// table makes the table; read locks the row of a cart, create makes it, write replaces its document.
	table, read, create, write string
	// again reports whether the database gave up a transaction that is to be made again.
	again func(error) bool
}

var (
	postgresSQL = sqlDialect{
		driver: "pgx",
		dsn:    func(place string) (string, error) { return place, nil },
		table:  `CREATE TABLE plain_carts (id text PRIMARY KEY, items text NOT NULL)`,
		read:   `SELECT items FROM plain_carts WHERE id = $1 FOR UPDATE`,
		create: `INSERT INTO plain_carts (id, items) VALUES ($1, '{}') ON CONFLICT DO NOTHING`,
		write:  `UPDATE plain_carts SET items = $1 WHERE id = $2`,
	}
	mysqlSQL = sqlDialect{
		driver: "mysql",
		dsn:    mysqlDSN,
		table:  `CREATE TABLE plain_carts (id varchar(255) PRIMARY KEY, items longtext NOT NULL)`,
		read:   `SELECT items FROM plain_carts WHERE id = ? FOR UPDATE`,
		create: `INSERT IGNORE INTO plain_carts (id, items) VALUES (?, '{}')`,
		write:  `UPDATE plain_carts SET items = ? WHERE id = ?`,
		again: func(err error) bool {
			const deadlock = 1213
			m, ok := errors.AsType[*mysql.MySQLError](err)
			return ok && m.Number == deadlock
		},
	}
	// Its transactions take the write lock of the file when they begin, and what they commit is on the disk.
	sqliteSQL = sqlDialect{
		driver: "sqlite3",
		dsn: func(place string) (string, error) {
			return "file:" + filepath.Join(place, "plain.db") + "?_txlock=immediate&_pragma=busy_timeout(60000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)", nil
		},
		table:  `CREATE TABLE plain_carts (id text PRIMARY KEY, items text NOT NULL)`,
		read:   `SELECT items FROM plain_carts WHERE id = ?`,
		create: `INSERT OR IGNORE INTO plain_carts (id, items) VALUES (?, '{}')`,
		write:  `UPDATE plain_carts SET items = ? WHERE id = ?`,
	}
)

var (
	postgresBackend = &backend{
		product: config.Product{Type: config.BackendDatabase, Dialect: "PostgreSQL"},
		start: func(tb testserver.TB) server {
			return databaseServer(tb, testserver.StartPostgres, "-c", "default_transaction_isolation=read committed")
		},
		flags: databaseFlags,
		plain: "SELECT FOR UPDATE", prepare: postgresSQL.prepare, connect: postgresSQL.connect, hot: 3,
	}
	mysqlBackend = &backend{
		product: config.Product{Type: config.BackendDatabase, Dialect: "MySQL"},
		start: func(tb testserver.TB) server {
			return databaseServer(tb, testserver.StartMariaDB, "--transaction-isolation=REPEATABLE-READ", "--completion-type=NO_CHAIN")
		},
		flags: databaseFlags,
		plain: "SELECT FOR UPDATE", prepare: mysqlSQL.prepare, connect: mysqlSQL.connect, hot: 3,
	}
	sqliteBackend = &backend{
		product: config.Product{Type: config.BackendDatabase, Dialect: "SQLite"},
		flags: func(_, dir string) []string {
			return databaseFlags("sqlite:"+filepath.Join(dir, "carts.db"), dir)
		},
		plain: "BEGIN IMMEDIATE", prepare: sqliteSQL.prepare, connect: sqliteSQL.connect,
	}
)

// databaseServer is a server with its default settings, which syncs what it acknowledges. args undo the settings that
// servers of tests have.
func databaseServer(tb testserver.TB, start func(testserver.TB, ...testserver.DatabaseOption) *testserver.DatabaseServer, args ...string) server {
	s := start(tb, testserver.WithSync(), testserver.WithServerArgs(args...))
	return server{place: s.NewDatabase(tb), pause: s.Pause, resume: s.Resume, restart: func() { s.Kill(); s.Restart() }}
}

func databaseFlags(url, _ string) []string {
	return []string{"--backend", "database", "--database-url", url}
}

// mysqlDSN is a URL as the driver writes it.
func mysqlDSN(place string) (string, error) {
	u, err := url.Parse(place)
	if err != nil {
		return "", err
	}
	c := mysql.NewConfig()
	c.Net, c.Addr, c.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	c.User = u.User.Username()
	c.Passwd, _ = u.User.Password()
	c.InterpolateParams = true
	return c.FormatDSN(), nil
}

func (d *sqlDialect) open(place string) (*sql.DB, error) {
	dsn, err := d.dsn(place)
	if err != nil {
		return nil, err
	}
	return sql.Open(d.driver, dsn)
}

func (d *sqlDialect) prepare(ctx context.Context, place string) error {
	db, err := d.open(place)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, d.table)
	return err
}

func (d *sqlDialect) connect(place string) (client, error) {
	db, err := d.open(place)
	if err != nil {
		return nil, err
	}
	return &sqlClient{db, d}, nil
}

// sqlClient is an application that keeps its carts in a database by itself.
type sqlClient struct {
	*sql.DB
	dialect *sqlDialect
}

func (c *sqlClient) AddItem(ctx context.Context, key, id string) error {
	for {
		err := c.add(ctx, key, id)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			_, err = c.ExecContext(ctx, c.dialect.create, key)
			if err != nil && (c.dialect.again == nil || !c.dialect.again(err)) {
				return err
			}
		case err == nil || c.dialect.again == nil || !c.dialect.again(err):
			return err
		}
	}
}

func (c *sqlClient) add(ctx context.Context, key, id string) error {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // which does nothing after a commit
	var raw []byte
	if err := tx.QueryRowContext(ctx, c.dialect.read, key).Scan(&raw); err != nil {
		return err
	}
	if raw, err = withItem(raw, id); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, c.dialect.write, string(raw), key); err != nil {
		return err
	}
	return tx.Commit()
}

func (c *sqlClient) Quantity(ctx context.Context, key string) (int64, error) {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	var raw []byte
	err = tx.QueryRowContext(ctx, c.dialect.read, key).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return quantityIn(raw)
}
