package postgres

import (
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// The time is the server's. Where a row is locked it is asked for outside of what locks the row, so that it is that of
// when the row was had, not of when it was waited for. A row that is not there is one of NULLs.
const (
	isRow   = ` prefix = $1 AND identifier = $2 AND instance = $3`
	micros  = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint` // of which the text is the same whatever the datestyle is
	exists  = `id IS NOT NULL AND (expires_at IS NULL OR expires_at > ` + micros + ` / 1000)`
	lockRow = `
		WITH mine AS MATERIALIZED (SELECT ` + sql.Columns + ` FROM sidecart_carts WHERE` + isRow + ` FOR UPDATE)
		SELECT ` + micros + `, ` + sql.Columns + ` FROM (SELECT 1) AS one LEFT JOIN mine ON true`
	insertRow = `
		INSERT INTO sidecart_carts (prefix, identifier, instance, ` + sql.Columns + `, removable_at, items, conditions)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, coalesce($18, '{}'), coalesce($19, '{}'))
		ON CONFLICT DO NOTHING`
	// A document that is NULL stays as it is.
	updateRow = `
		UPDATE sidecart_carts SET (` + sql.Columns + `, removable_at, items, conditions)
			= ROW ($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, coalesce($18, items), coalesce($19, conditions))
		WHERE` + isRow
	deleteRow = `DELETE FROM sidecart_carts WHERE` + isRow
	nextFence = `SELECT nextval('sidecart_fences')`
	notify    = `SELECT pg_notify($1, $2)`
	// Not read committed by default, where somebody changed that for the database: a transaction would fail each time
	// that it had to wait for another.
	begin  = `BEGIN ISOLATION LEVEL READ COMMITTED`
	commit = `COMMIT`
)

var statements = sql.Statements{
	Row: `
		SELECT ` + micros + `, ` + sql.Columns + `
		FROM (SELECT 1) AS one LEFT JOIN sidecart_carts ON` + isRow,
	Whole: `
		SELECT ` + micros + `, ` + sql.Columns + `, items, conditions
		FROM (SELECT 1) AS one LEFT JOIN sidecart_carts ON` + isRow,
	Documents: `SELECT items, conditions FROM sidecart_carts WHERE` + isRow,
	Instances: `SELECT instance FROM sidecart_carts WHERE prefix = $1 AND identifier = $2 AND ` + exists,
	Count:     `SELECT count(*) FROM (SELECT 1 FROM sidecart_carts WHERE prefix = $1 AND instance <> '' AND ` + exists + ` LIMIT $2) AS carts`,
	Page: `
		SELECT identifier, instance FROM sidecart_carts
		WHERE prefix = $1 AND identifier >= $2 AND (identifier > $3 OR instance > $4)
		ORDER BY identifier, instance LIMIT $5`,
	// The rows are locked in the order in which others lock them, and named by their key, which stays as it is when
	// somebody writes to them meanwhile.
	Flush: `
		DELETE FROM sidecart_carts WHERE prefix = $1 AND (identifier, instance) IN (
			SELECT identifier, instance FROM sidecart_carts WHERE prefix = $1
			ORDER BY identifier, instance LIMIT 500 FOR UPDATE)`,
	// Rows that somebody uses just now are left for the next time. The time is that of the statement: an index helps
	// only with one that stays the same throughout.
	Sweep: `
		DELETE FROM sidecart_carts WHERE (prefix, identifier, instance) IN (
			SELECT prefix, identifier, instance FROM sidecart_carts
			WHERE removable_at <= (extract(epoch FROM statement_timestamp()) * 1000)::bigint
			ORDER BY removable_at LIMIT $1 FOR UPDATE SKIP LOCKED)`,
	// To set the sequence is no step of a transaction, so two that raise it take turns, or the one could set back what
	// the other has set. The margin is more than leases can take meanwhile, which take no turns.
	Time: `SELECT ` + micros,
	RaiseFence: `
		WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended('sidecart_fences', 0)))
		SELECT setval('sidecart_fences', $1::bigint + 1000000) FROM turn WHERE coalesce(pg_sequence_last_value('sidecart_fences'), 0) < $1::bigint`,
}
