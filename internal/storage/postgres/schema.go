package postgres

import (
	"context"
	"embed"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sidecart/sidecart/internal/storage/sql"
)

//go:embed migrations
var migrations embed.FS

const (
	// The number of the lock is "sidecart" in ASCII.
	lockSchema = `SELECT pg_advisory_xact_lock(8315177656166113908)`
	// A restored database may have given fences after its backup. They are less than the time in microseconds, because
	// fewer than one fence is given in a microsecond. A role that may not set the sequence leaves this to a role that
	// may.
	raiseFences = `
		SELECT setval('sidecart_fences', now_us) FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us) AS clock
		WHERE coalesce(pg_sequence_last_value('sidecart_fences'), 0) < now_us
			AND has_sequence_privilege('sidecart_fences', 'UPDATE') AND NOT current_setting('transaction_read_only')::boolean`
)

// Migrate implements [sql.Dialect].
func (d *driver) Migrate(ctx context.Context, conn sql.Conn) error {
	tx, err := conn.(connection).BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}) // shows what others committed before the lock was granted
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := d.migrateIn(ctx, tx); err != nil {
		return err
	}
	return tx.Commit(ctx) // the next try finds out the outcome
}

func (d *driver) migrateIn(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, lockSchema, pgx.QueryExecModeExec); err != nil {
		return err
	}
	part, err := tx.Begin(ctx) // an error in it leaves tx as it was
	if err != nil {
		return err
	}
	if err = sql.Migrate(tables(ctx, part), migrations); err == nil {
		err = part.Commit(ctx)
	} else if end := part.Rollback(ctx); end == nil && isDenied(err) && d.Optional(tables(ctx, tx)) {
		err = nil
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, raiseFences, pgx.QueryExecModeExec)
	return err
}

// tables returns the schema as a transaction sees it.
func tables(ctx context.Context, tx pgx.Tx) sql.Tables {
	return sql.Tables{
		Find:   `SELECT (to_regclass('sidecart_schema') IS NOT NULL)::integer`,
		Create: `CREATE TABLE sidecart_schema (version integer PRIMARY KEY, needs integer NOT NULL, applied_at timestamptz NOT NULL)`,
		Query:  `SELECT coalesce(max(version), 0), coalesce(max(needs), 0) FROM sidecart_schema`,
		Save:   `INSERT INTO sidecart_schema (version, needs, applied_at) VALUES ($1, $2, clock_timestamp())`,
		Row: func(query string, into ...any) error {
			return tx.QueryRow(ctx, query, pgx.QueryExecModeExec).Scan(into...)
		},
		Run: func(statements string, args ...any) error {
			mode := pgx.QueryExecModeExec
			if len(args) == 0 {
				mode = pgx.QueryExecModeSimpleProtocol // it allows several statements at once
			}
			_, err := tx.Exec(ctx, statements, append([]any{mode}, args...)...)
			return err
		},
	}
}

// isDenied reports whether the role, or the server as a whole, may not make tables.
func isDenied(err error) bool {
	server, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (server.Code == "42501" || server.Code == "25006")
}

// rights are what a role needs.
var rights = sql.Rights{Account: "role", Create: "create in the schema", Fences: "USAGE"}
