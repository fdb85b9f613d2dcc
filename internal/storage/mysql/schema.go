package mysql

import (
	"context"
	stdsql "database/sql"
	"embed"
	"fmt"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

//go:embed migrations
var migrations embed.FS

const (
	// A named lock belongs to the whole server, which may have several databases.
	lockSchema   = `SELECT GET_LOCK(CONCAT('sidecart ', MD5(DATABASE())), 10)`
	unlockSchema = `DO RELEASE_LOCK(CONCAT('sidecart ', MD5(DATABASE())))`
	// A restored database may have given fences after its backup. They are less than the time in microseconds, because
	// fewer than one fence is given in a microsecond. An inserted number raises the counter and never lowers it.
	raiseFences = `
		SET @sidecart = ` + micros + `; INSERT IGNORE INTO sidecart_fences (id) VALUES (@sidecart); DELETE FROM sidecart_fences WHERE id <= @sidecart`
)

// Migrate implements [sql.Dialect].
func (d *driver) Migrate(ctx context.Context, taken sql.Conn) error {
	conn := taken.(connection)
	var locked stdsql.NullInt64
	if err := conn.QueryRowContext(ctx, lockSchema).Scan(&locked); err != nil {
		return err
	}
	if locked.Int64 != 1 {
		return fmt.Errorf("%w: another sidecar migrates the database", storage.ErrUnavailable)
	}
	err := sql.Migrate(tables(ctx, conn), migrations)
	if (isError(err, denied...) || isError(err, readOnly...)) && d.Optional(tables(ctx, conn)) {
		err = nil
	}
	if err == nil {
		if _, raise := conn.run(ctx, raiseFences); !isError(raise, readOnly...) { // otherwise the statements below fail too, and report it
			err = raise
		}
	}
	if _, end := conn.run(ctx, unlockSchema); end != nil {
		conn.discard() // this ends the lock
	}
	return err
}

// denied are the errors of users who may not make tables.
var denied = []uint16{1044, 1142}

// readOnly are the errors of servers and transactions that are read-only.
var readOnly = []uint16{1290, 1792, 1836}

// tables returns the schema as a connection sees it.
func tables(ctx context.Context, conn connection) sql.Tables {
	return sql.Tables{
		Find: `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'sidecart_schema'`,
		Create: `
			CREATE TABLE IF NOT EXISTS sidecart_schema (
				version int NOT NULL PRIMARY KEY, needs int NOT NULL, applied_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP
			) ENGINE = InnoDB`,
		Query: `SELECT COALESCE(MAX(version), 0), COALESCE(MAX(needs), 0) FROM sidecart_schema`,
		Save:  `INSERT INTO sidecart_schema (version, needs) VALUES (?, ?)`,
		Row: func(query string, into ...any) error {
			return conn.QueryRowContext(ctx, query).Scan(into...)
		},
		Run: func(statements string, args ...any) error {
			_, err := conn.run(ctx, statements, args...)
			return err
		},
	}
}

// rights are what a user needs.
var rights = sql.Rights{Account: "user", Create: "create tables", Fences: "SELECT, INSERT and DELETE"}
