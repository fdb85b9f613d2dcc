package mysql

import (
	"strings"

	"github.com/sidecart/sidecart/internal/storage/sql"
)

// The time is the server's. If a row is locked, a separate statement reads the time, so that it is the time when the
// lock was granted and not when the wait began.
const (
	isRow     = ` prefix = ? AND identifier = ? AND instance = ?`
	micros    = `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))`
	exists    = `id IS NOT NULL AND (expires_at IS NULL OR expires_at > ` + micros + ` DIV 1000)`
	begin     = `START TRANSACTION`
	lockRow   = `; SELECT ` + sql.Columns + ` FROM sidecart_carts WHERE` + isRow + ` FOR UPDATE`
	queryTime = `; SELECT ` + micros
	deleteRow = `DELETE FROM sidecart_carts WHERE` + isRow
	commit    = `; COMMIT`
	nextFence = `INSERT INTO sidecart_fences () VALUES (); DELETE FROM sidecart_fences WHERE id = LAST_INSERT_ID()`
)

var (
	saved     = strings.Split(sql.Columns+", removable_at", ", ")
	insertRow = `INSERT INTO sidecart_carts (` + strings.Join(saved, ", ") + `, items, conditions, prefix, identifier, instance) VALUES (` +
		strings.Repeat("?, ", len(saved)+4) + `?)`
	updateRow = `UPDATE sidecart_carts SET ` + strings.Join(saved, " = ?, ") + ` = ?`
)

var statements = sql.Statements{
	Row: `
		SELECT ` + micros + `, ` + sql.Columns + `
		FROM (SELECT 1) AS one LEFT JOIN sidecart_carts ON` + isRow,
	Whole: `
		SELECT ` + micros + `, ` + sql.Columns + `, items, conditions
		FROM (SELECT 1) AS one LEFT JOIN sidecart_carts ON` + isRow,
	Documents: `SELECT items, conditions FROM sidecart_carts WHERE` + isRow,
	Instances: `SELECT instance FROM sidecart_carts WHERE prefix = ? AND identifier = ? AND ` + exists,
	Count:     `SELECT COUNT(*) FROM (SELECT 1 FROM sidecart_carts WHERE prefix = ? AND instance <> '' AND ` + exists + ` LIMIT ?) AS carts`,
	Page: `
		SELECT identifier, instance FROM sidecart_carts
		WHERE prefix = ? AND identifier >= ? AND (identifier > ? OR instance > ?)
		ORDER BY identifier, instance LIMIT ?`,
	Flush:    `DELETE FROM sidecart_carts WHERE prefix = ? ORDER BY identifier, instance LIMIT 500`,
	Sweep:    `DELETE FROM sidecart_carts WHERE removable_at <= ` + micros + ` DIV 1000 ORDER BY removable_at LIMIT ?`,
	Time:     `SELECT ` + micros,
	ReadOnly: `SELECT @@read_only`,
	// A turn of the probe inserts a row and deletes it, but updates none. This update finds no row.
	Prove: `UPDATE sidecart_carts SET version = 1 WHERE prefix = '' AND identifier = '' AND instance = ''`,
	// An inserted number sets the counter to the next one if that is greater, and never sets it back.
	RaiseFence: `SET @sidecart = ?; INSERT IGNORE INTO sidecart_fences (id) VALUES (@sidecart); DELETE FROM sidecart_fences WHERE id = @sidecart`,
}
