package sqlite

import (
	"errors"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

const (
	isRow          = ` WHERE prefix = ?1 AND identifier = ?2 AND instance = ?3`
	queryRow       = `SELECT ` + sql.Columns + ` FROM sidecart_carts` + isRow
	queryWhole     = `SELECT ` + sql.Columns + `, items, conditions FROM sidecart_carts` + isRow
	queryDocuments = `SELECT items, conditions FROM sidecart_carts` + isRow
	// A document whose argument is NULL stays as it is stored.
	save = `
		INSERT INTO sidecart_carts (prefix, identifier, instance, ` + sql.Columns + `, removable_at, items, conditions)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, coalesce(?18, '{}'), coalesce(?19, '{}'))
		ON CONFLICT DO UPDATE SET (` + sql.Columns + `, removable_at, items, conditions)
			= (?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, coalesce(?18, items), coalesce(?19, conditions))`
	remove = `DELETE FROM sidecart_carts` + isRow
	purge  = `
		DELETE FROM sidecart_carts WHERE rowid IN (
			SELECT rowid FROM sidecart_carts WHERE removable_at <= ?1 LIMIT 100)`
	nextFence   = `UPDATE sidecart_fences SET last = last + 1 WHERE id = 1 RETURNING last`
	lastFence   = `SELECT last FROM sidecart_fences WHERE id = 1`
	dataVersion = `PRAGMA data_version`
	begin       = `BEGIN IMMEDIATE`
	commit      = `COMMIT`
)

// The time is that of this machine, as SQLite reads it.
const micros = `CAST(round(unixepoch('subsec') * 1000) AS INTEGER) * 1000`

const exists = `id IS NOT NULL AND (expires_at IS NULL OR expires_at > ` + micros + ` / 1000)`

var statements = sql.Statements{
	Instances: `SELECT instance FROM sidecart_carts WHERE prefix = ?1 AND identifier = ?2 AND ` + exists,
	Count:     `SELECT count(*) FROM (SELECT 1 FROM sidecart_carts WHERE prefix = ?1 AND instance <> '' AND ` + exists + ` LIMIT ?2)`,
	Page: `
		SELECT identifier, instance FROM sidecart_carts WHERE prefix = ?1 AND (identifier, instance) > (?2, ?4)
		ORDER BY identifier, instance LIMIT ?5`,
	Flush: `
		DELETE FROM sidecart_carts WHERE rowid IN (
			SELECT rowid FROM sidecart_carts WHERE prefix = ?1 LIMIT 500)`,
	// It raises the counter to the time at least, so that it seldom has to be raised again.
	RaiseFence: `UPDATE sidecart_fences SET last = max(?1, ` + micros + `) WHERE last < ?1`,
}

var (
	reading = []string{queryRow, queryWhole, statements.Instances, statements.Count, statements.Page, lastFence}
	writing = []string{
		queryRow, queryDocuments, save, remove, purge, statements.Flush, nextFence, statements.RaiseFence,
		dataVersion, begin, commit, saveProbe, removeProbe,
	}
)

// load reads the row of key, with its documents if asked.
func (c *connection) load(key cart.Key, documents bool) (r cell.Record, err error) {
	q, size := queryRow, 0
	if documents {
		q = queryWhole
	}
	err = c.query(q, func(stmt *sqlite3.Stmt) error {
		row := scan(stmt)
		size = len(row.Metadata)
		if r.State, err = row.State(); err != nil || !documents {
			return err
		}
		items, conditions := stmt.ColumnRawText(13), stmt.ColumnRawText(14)
		size += len(items) + len(conditions)
		return sql.Documents(items, conditions, &r.State.Cart)
	}, c.prefix, key.Identifier, key.Instance)
	c.tidy(size)
	return r, err
}

// scan reads the columns of queryRow. Locks and Metadata are in SQLite's memory and hold until the next step.
func scan(stmt *sqlite3.Stmt) sql.Row {
	return sql.Row{
		ID: stmt.ColumnText(0), Version: uint64(stmt.ColumnInt64(1)),
		ItemsVersion: uint64(stmt.ColumnInt64(2)), ConditionsVersion: uint64(stmt.ColumnInt64(3)),
		CreatedAt: columnTime(stmt, 4), UpdatedAt: columnTime(stmt, 5), ExpiresAt: columnTime(stmt, 6),
		Locks: stmt.ColumnRawText(7), Metadata: stmt.ColumnRawText(8),
		Transfer: columnBlob(stmt, 9), Received: columnBlob(stmt, 10),
		Ledger: columnBlob(stmt, 11), LedgerVersion: uint64(stmt.ColumnInt64(12)),
	}
}

// documents reads what load left out. The row must not have changed since.
func (c *connection) documents(key cart.Key, into *cart.Cart) error {
	size := 0
	defer func() { c.tidy(size) }()
	return c.query(queryDocuments, func(stmt *sqlite3.Stmt) error {
		items, conditions := stmt.ColumnRawText(0), stmt.ColumnRawText(1)
		size = len(items) + len(conditions)
		return sql.Documents(items, conditions, into)
	}, c.prefix, key.Identifier, key.Instance)
}

// store writes a row, or deletes it if nothing is left to store.
func (c *connection) store(key cart.Key, r *cell.Record) error {
	if r.State.Empty() {
		return c.exec(remove, c.prefix, key.Identifier, key.Instance)
	}
	row := sql.RowOf(r)
	var id any
	if row.ID != "" {
		id = row.ID
	}
	return c.exec(save, c.prefix, key.Identifier, key.Instance,
		id, row.Version, row.ItemsVersion, row.ConditionsVersion, row.CreatedAt, row.UpdatedAt, row.ExpiresAt,
		text(row.Locks), text(row.Metadata), row.Transfer, row.Received, row.Ledger, row.LedgerVersion, row.RemovableAt, text(row.Items), text(row.Conditions))
}

// nextFence draws a fence from the counter of the file, in the transaction that stores it.
func (c *connection) nextFence() (fence uint64, err error) {
	err = c.query(nextFence, func(stmt *sqlite3.Stmt) error {
		fence = uint64(stmt.ColumnInt64(0))
		return nil
	})
	if err == nil && fence == 0 {
		err = sql.Damaged("last", errors.New("the counter of fences is gone"))
	}
	return fence, err
}
