package mysql

import (
	"context"
	stdsql "database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	driverlib "github.com/go-sql-driver/mysql"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

//go:embed migrations
var migrations embed.FS

const (
	// A lock is the server's, and there may be several databases on it.
	lockSchema   = `SELECT GET_LOCK(CONCAT('sidecart ', MD5(DATABASE())), 10)`
	unlockSchema = `DO RELEASE_LOCK(CONCAT('sidecart ', MD5(DATABASE())))`
	findSchema   = `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'sidecart_schema'`
	querySchema  = `SELECT COALESCE(MAX(version), 0), COALESCE(MAX(needs), 0) FROM sidecart_schema`
	createSchema = `
		CREATE TABLE IF NOT EXISTS sidecart_schema (
			version int NOT NULL PRIMARY KEY, needs int NOT NULL, applied_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP
		) ENGINE = InnoDB`
	saveSchema = `INSERT INTO sidecart_schema (version, needs) VALUES (?, ?)`
	// A fence that the database gave after the backup that it was restored from is less than the time, since none is
	// given faster than one in a microsecond. A number that is inserted raises the counter, and never lowers it.
	raiseFences = `
		SET @sidecart = ` + micros + `; INSERT IGNORE INTO sidecart_fences (id) VALUES (@sidecart); DELETE FROM sidecart_fences WHERE id <= @sidecart`
)

// Migrate implements [sql.Dialect].
func (d *driver) Migrate(ctx context.Context, conn sql.Conn) error {
	err := d.migrateOn(ctx, conn.(connection))
	if errors.Is(err, storage.ErrUnsupported) {
		return err
	}
	return d.Translate(ctx, ctx, mayNot(err))
}

func (d *driver) migrateOn(ctx context.Context, conn connection) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	var locked stdsql.NullInt64
	if err := conn.QueryRowContext(ctx, lockSchema).Scan(&locked); err != nil {
		return err
	}
	if locked.Int64 != 1 {
		return fmt.Errorf("%w: another sidecar migrates the database", storage.ErrUnavailable)
	}
	err = sql.Migrate(schema{ctx, conn}, files)
	if (isError(err, denied...) || isError(err, readOnly...)) && d.Optional(schema{ctx, conn}) {
		err = nil
	}
	if err == nil {
		if _, raise := conn.run(ctx, raiseFences); !isError(raise, readOnly...) { // then nothing else can be done either, and says so
			err = raise
		}
	}
	if _, end := conn.run(ctx, unlockSchema); end != nil {
		conn.discard() // which ends the lock
	}
	return err
}

// denied are the errors of users who may not make tables.
var denied = []uint16{1044, 1142}

// readOnly are the errors of servers and transactions that only read.
var readOnly = []uint16{1290, 1792, 1836}

// schema is a [sql.Schema].
type schema struct {
	ctx  context.Context //nolint:containedctx // it lives for one migration
	conn connection
}

func (s schema) Version() (version, needs int, err error) {
	var found int
	if err := s.conn.QueryRowContext(s.ctx, findSchema).Scan(&found); err != nil || found == 0 {
		return 0, 0, err
	}
	err = s.conn.QueryRowContext(s.ctx, querySchema).Scan(&version, &needs)
	return version, needs, err
}

func (s schema) Apply(version, needs int, statements string) error {
	if version == 1 {
		statements = createSchema + ";\n" + statements
	}
	if _, err := s.conn.run(s.ctx, statements); err != nil {
		return err
	}
	_, err := s.conn.run(s.ctx, saveSchema, int64(version), int64(needs))
	return err
}

// mayNot says what to do where the user may not make the tables.
func mayNot(err error) error {
	if server, ok := errors.AsType[*driverlib.MySQLError](err); ok && slices.Contains(denied, server.Number) {
		const advice = ": sidecart has to make or change its tables, and the user may not: start one sidecar with a user that may create tables, " +
			"and grant this one SELECT, INSERT, UPDATE and DELETE on sidecart_carts, SELECT on sidecart_schema, SELECT, INSERT and DELETE on sidecart_fences, " +
			"and for an audit trail SELECT, INSERT and DELETE on sidecart_audit"
		return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, &storage.Refusal{Words: server.Message + advice}, err)
	}
	return err
}
