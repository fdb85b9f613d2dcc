package postgres

import (
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// The time is the server's. If a row is locked, the time is read outside the part that locks it, so that it is the time
// when the lock was granted and not when the wait began. A missing row reads as NULLs.
const (
	isRow   = ` prefix = $1 AND identifier = $2 AND instance = $3`
	micros  = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint` // this text does not depend on the datestyle
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
	// The level is explicit because somebody may have changed the database's default. Under another level a transaction
	// would fail whenever it had to wait for another.
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
	// The rows are locked in the same order as elsewhere. They are named by their key, because that does not change if
	// somebody writes to them meanwhile.
	Flush: `
		DELETE FROM sidecart_carts WHERE prefix = $1 AND (identifier, instance) IN (
			SELECT identifier, instance FROM sidecart_carts WHERE prefix = $1
			ORDER BY identifier, instance LIMIT 500 FOR UPDATE)`,
	// Rows that are in use are left for the next time. The time is that of the statement: the index can be used only if
	// the time stays the same throughout.
	Sweep: `
		DELETE FROM sidecart_carts WHERE (prefix, identifier, instance) IN (
			SELECT prefix, identifier, instance FROM sidecart_carts
			WHERE removable_at <= (extract(epoch FROM statement_timestamp()) * 1000)::bigint
			ORDER BY removable_at LIMIT $1 FOR UPDATE SKIP LOCKED)`,
	Time:     `SELECT ` + micros,
	ReadOnly: `SELECT current_setting('transaction_read_only')::boolean`,
	// Setting the sequence is not transactional, so two callers that raise it take turns. Otherwise one could set it
	// back after the other. Leases do not take turns; the margin is more than they can take meanwhile.
	RaiseFence: `
		WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended('sidecart_fences', 0)))
		SELECT setval('sidecart_fences', $1::bigint + 1000000) FROM turn WHERE coalesce(pg_sequence_last_value('sidecart_fences'), 0) < $1::bigint`,
}
