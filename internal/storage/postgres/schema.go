package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

//go:embed migrations
var migrations embed.FS

const (
	// The number of the lock is "sidecart" in ASCII.
	lockSchema   = `SELECT pg_advisory_xact_lock(8315177656166113908)`
	findSchema   = `SELECT to_regclass('sidecart_schema') IS NOT NULL`
	querySchema  = `SELECT coalesce(max(version), 0), coalesce(max(needs), 0) FROM sidecart_schema`
	createSchema = `CREATE TABLE sidecart_schema (version integer PRIMARY KEY, needs integer NOT NULL, applied_at timestamptz NOT NULL)`
	saveSchema   = `INSERT INTO sidecart_schema (version, needs, applied_at) VALUES ($1, $2, clock_timestamp())`
	// A fence that the database gave after the backup that it was restored from is less than the time, since none is
	// given faster than one in a microsecond. A role that may not set the sequence leaves that to one that may.
	raiseFences = `
		SELECT setval('sidecart_fences', now_us) FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us) AS clock
		WHERE coalesce(pg_sequence_last_value('sidecart_fences'), 0) < now_us
			AND has_sequence_privilege('sidecart_fences', 'UPDATE') AND NOT current_setting('transaction_read_only')::boolean`
)

// Migrate implements [sql.Dialect].
func (d *driver) Migrate(ctx context.Context, conn sql.Conn) error {
	tx, err := conn.(connection).BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}) // what another did is seen when the lock is had
	if err == nil {
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		if err = d.migrateIn(ctx, tx); err == nil {
			err = tx.Commit(ctx) // whose outcome the next try finds out
		}
	}
	if errors.Is(err, storage.ErrUnsupported) {
		return err
	}
	return d.Translate(ctx, ctx, mayNot(err))
}

func (d *driver) migrateIn(ctx context.Context, tx pgx.Tx) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, lockSchema, pgx.QueryExecModeExec); err != nil {
		return err
	}
	part, err := tx.Begin(ctx) // an error in it leaves tx as it was
	if err != nil {
		return err
	}
	if err = sql.Migrate(schema{ctx, part}, files); err == nil {
		err = part.Commit(ctx)
	} else if end := part.Rollback(ctx); end == nil && isDenied(err) && d.Optional(schema{ctx, tx}) {
		err = nil
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, raiseFences, pgx.QueryExecModeExec)
	return err
}

// schema is a [sql.Schema].
type schema struct {
	ctx context.Context //nolint:containedctx // it lives for one migration
	tx  pgx.Tx
}

func (s schema) Version() (version, needs int, err error) {
	var found bool
	if err := s.tx.QueryRow(s.ctx, findSchema, pgx.QueryExecModeExec).Scan(&found); err != nil || !found {
		return 0, 0, err
	}
	err = s.tx.QueryRow(s.ctx, querySchema, pgx.QueryExecModeExec).Scan(&version, &needs)
	return version, needs, err
}

func (s schema) Apply(version, needs int, statements string) error {
	if version == 1 {
		statements = createSchema + ";" + statements
	}
	if _, err := s.tx.Exec(s.ctx, statements, pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	_, err := s.tx.Exec(s.ctx, saveSchema, pgx.QueryExecModeExec, version, needs)
	return err
}

// isDenied reports whether the role, or the server as a whole, may not make tables.
func isDenied(err error) bool {
	server, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (server.Code == "42501" || server.Code == "25006")
}

// mayNot says what to do where the role may not make the tables.
func mayNot(err error) error {
	if server, ok := errors.AsType[*pgconn.PgError](err); ok && server.Code == "42501" {
		const advice = ": sidecart has to make or change its tables, and the role may not: start one sidecar with a role that may create in the schema, " +
			"and grant this one SELECT, INSERT, UPDATE and DELETE on sidecart_carts, SELECT on sidecart_schema, USAGE on sidecart_fences, " +
			"and for an audit trail SELECT, INSERT and DELETE on sidecart_audit"
		return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, &storage.Refusal{Words: server.Message + advice}, err)
	}
	return err
}
