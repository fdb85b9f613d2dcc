package mysql

import (
	"strings"

	"github.com/sidecart/sidecart/internal/storage/sql"
)

// The time is the server's, in a statement of its own where a row is locked, so that it is that of when the row was
// had, not of when it was waited for.
const (
	isRow    = ` prefix = ? AND identifier = ? AND instance = ?`
	micros   = `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))`
	exists   = `id IS NOT NULL AND (expires_at IS NULL OR expires_at > ` + micros + ` DIV 1000)`
	queryRow = `
		SELECT ` + micros + `, ` + sql.Columns + `
		FROM (SELECT 1) AS one LEFT JOIN sidecart_carts ON` + isRow
	queryWhole = `
		SELECT ` + micros + `, ` + sql.Columns + `, items, conditions
		FROM (SELECT 1) AS one LEFT JOIN sidecart_carts ON` + isRow
	begin          = `START TRANSACTION`
	lockRow        = `; SELECT ` + sql.Columns + ` FROM sidecart_carts WHERE` + isRow + ` FOR UPDATE`
	queryTime      = `; SELECT ` + micros
	queryDocuments = `SELECT items, conditions FROM sidecart_carts WHERE` + isRow
	queryInstances = `SELECT instance FROM sidecart_carts WHERE prefix = ? AND identifier = ? AND ` + exists
	queryCount     = `SELECT COUNT(*) FROM (SELECT 1 FROM sidecart_carts WHERE prefix = ? AND ` + exists + ` LIMIT ?) AS carts`
	deleteRow      = `DELETE FROM sidecart_carts WHERE` + isRow
	commit         = `; COMMIT`
	rollback       = `ROLLBACK`
	flush          = `DELETE FROM sidecart_carts WHERE prefix = ? ORDER BY identifier, instance LIMIT 500`
	sweep          = `DELETE FROM sidecart_carts WHERE removable_at <= ` + micros + ` DIV 1000 ORDER BY removable_at LIMIT ?`
	nextFence      = `INSERT INTO sidecart_fences () VALUES (); DELETE FROM sidecart_fences WHERE id = LAST_INSERT_ID()`
)

var (
	saved     = strings.Split(sql.Columns+", removable_at", ", ")
	insertRow = `INSERT INTO sidecart_carts (` + strings.Join(saved, ", ") + `, items, conditions, prefix, identifier, instance) VALUES (` +
		strings.Repeat("?, ", len(saved)+4) + `?)`
	updateRow = `UPDATE sidecart_carts SET ` + strings.Join(saved, " = ?, ") + ` = ?`
)
