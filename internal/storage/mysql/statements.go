package mysql

import (
	"strings"

	"github.com/sidecart/sidecart/internal/storage/sql"
)

// The time is the server's, in a statement of its own where a row is locked, so that it is that of when the row was
// had, not of when it was waited for.
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
	Flush: `DELETE FROM sidecart_carts WHERE prefix = ? ORDER BY identifier, instance LIMIT 500`,
	Sweep: `DELETE FROM sidecart_carts WHERE removable_at <= ` + micros + ` DIV 1000 ORDER BY removable_at LIMIT ?`,
	Time:  `SELECT ` + micros,
	// A turn of the probe inserts a row and deletes it. There is no such row here.
	Prove: `UPDATE sidecart_carts SET version = 1 WHERE prefix = '' AND identifier = '' AND instance = ''`,
	// A row with a number sets the counter to the next one where that is greater, and never back.
	RaiseFence: `SET @sidecart = ?; INSERT IGNORE INTO sidecart_fences (id) VALUES (@sidecart); DELETE FROM sidecart_fences WHERE id = @sidecart`,
}
