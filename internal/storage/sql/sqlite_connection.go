package sql

import (
	"errors"
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// connection is one connection with its statements. It is for one goroutine at
// a time.
type connection struct {
	*sqlite3.Conn
	prefix     string
	statements map[string]*sqlite3.Stmt
}

const (
	queryRow = `
		SELECT id, version, items_version, conditions_version, created_at, updated_at, expires_at,
			locks, metadata, transfer, received
		FROM sidecart_carts WHERE prefix = ?1 AND identifier = ?2 AND instance = ?3`
	queryWhole = `
		SELECT id, version, items_version, conditions_version, created_at, updated_at, expires_at,
			locks, metadata, transfer, received, items, conditions
		FROM sidecart_carts WHERE prefix = ?1 AND identifier = ?2 AND instance = ?3`
	queryDocuments = `
		SELECT items, conditions
		FROM sidecart_carts WHERE prefix = ?1 AND identifier = ?2 AND instance = ?3`
	queryInstances = `
		SELECT instance FROM sidecart_carts
		WHERE prefix = ?1 AND identifier = ?2 AND id IS NOT NULL AND (expires_at IS NULL OR expires_at > ?3)
		ORDER BY instance`
	// A document that is NULL stays as it is.
	save = `
		INSERT INTO sidecart_carts (prefix, identifier, instance,
			id, version, items_version, conditions_version, created_at, updated_at, expires_at, removable_at,
			locks, metadata, transfer, received, items, conditions)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, coalesce(?16, '{}'), coalesce(?17, '{}'))
		ON CONFLICT DO UPDATE SET
			id = ?4, version = ?5, items_version = ?6, conditions_version = ?7,
			created_at = ?8, updated_at = ?9, expires_at = ?10, removable_at = ?11,
			locks = ?12, metadata = ?13, transfer = ?14, received = ?15,
			items = coalesce(?16, items), conditions = coalesce(?17, conditions)`
	remove = `
		DELETE FROM sidecart_carts WHERE prefix = ?1 AND identifier = ?2 AND instance = ?3`
	purge = `
		DELETE FROM sidecart_carts WHERE rowid IN (
			SELECT rowid FROM sidecart_carts WHERE removable_at <= ?1 LIMIT 100)`
	flush = `
		DELETE FROM sidecart_carts WHERE rowid IN (
			SELECT rowid FROM sidecart_carts WHERE prefix = ?1 LIMIT 500)`
	nextFence = `
		UPDATE sidecart_fences SET last = last + 1 WHERE id = 1 RETURNING last`
	dataVersion = `PRAGMA data_version`
	begin       = `BEGIN IMMEDIATE`
	commit      = `COMMIT`
)

var (
	reading = []string{queryRow, queryWhole, queryInstances, queryCount}
	writing = []string{queryRow, queryDocuments, save, remove, purge, flush, nextFence, dataVersion, begin, commit, saveProbe, removeProbe}
)

func (c *connection) prepare(queries []string) error {
	c.statements = make(map[string]*sqlite3.Stmt, len(queries))
	for _, q := range queries {
		stmt, _, err := c.PrepareFlags(q, sqlite3.PREPARE_PERSISTENT)
		if err != nil {
			return err
		}
		c.statements[q] = stmt
	}
	return nil
}

func (c *connection) close() error {
	for _, stmt := range c.statements {
		_ = stmt.Close() // repeats the statement's last error
	}
	return c.Conn.Close()
}

// query binds args, calls row for each row, and ends the statement.
func (c *connection) query(q string, row func(stmt *sqlite3.Stmt) error, args ...any) (err error) {
	stmt := c.statements[q]
	for i, arg := range args {
		if err := bind(stmt, i+1, arg); err != nil {
			return err
		}
	}
	defer func() {
		if end := stmt.Reset(); err == nil {
			err = end
		}
	}()
	for stmt.Step() {
		if err := row(stmt); err != nil {
			return err
		}
	}
	return stmt.Err()
}

// exec is a query without rows.
func (c *connection) exec(q string, args ...any) error {
	return c.query(q, func(*sqlite3.Stmt) error { return nil }, args...)
}

// bind knows the types that the queries use: nil is NULL, as is the zero time.
func bind(stmt *sqlite3.Stmt, param int, arg any) error {
	switch arg := arg.(type) {
	case nil:
		return stmt.BindNull(param)
	case string:
		return stmt.BindText(param, arg)
	case text:
		return stmt.BindRawText(param, arg)
	case []byte:
		return stmt.BindBlob(param, arg)
	case uint64:
		return stmt.BindInt64(param, int64(arg))
	case time.Time:
		if arg.IsZero() {
			return stmt.BindNull(param)
		}
		return stmt.BindInt64(param, arg.UnixMilli())
	}
	panic(fmt.Sprintf("bind %T", arg))
}

// text is JSON to be stored as text; nil is NULL.
type text []byte

// row reads a row.
func (c *connection) row(key cart.Key, documents bool) (*record, error) {
	r := &record{key: key}
	r.documents = func() error { return c.documents(r) }
	q := queryRow
	if documents {
		q = queryWhole
	}
	size := 0
	err := c.query(q, func(stmt *sqlite3.Stmt) error {
		size = len(stmt.ColumnRawText(8))
		if err := scan(stmt, r); err != nil || !documents {
			return err
		}
		size += len(stmt.ColumnRawText(11)) + len(stmt.ColumnRawText(12))
		return scanDocuments(stmt, 11, &r.state.Cart)
	}, c.prefix, key.Identifier, key.Instance)
	c.tidy(size)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// documents reads what row left out. The row must not have changed since.
func (c *connection) documents(r *record) error {
	size := 0
	defer func() { c.tidy(size) }()
	return c.query(queryDocuments, func(stmt *sqlite3.Stmt) error {
		size = len(stmt.ColumnRawText(0)) + len(stmt.ColumnRawText(1))
		return scanDocuments(stmt, 0, &r.state.Cart)
	}, c.prefix, r.key.Identifier, r.key.Instance)
}

// scan reads the columns of queryRow.
func scan(stmt *sqlite3.Stmt, r *record) error {
	r.found = true
	if err := decodeLocks(&r.state, stmt.ColumnRawText(7)); err != nil {
		return err
	}
	k := &r.state.Cart
	if k.ID = stmt.ColumnText(0); k.ID == "" {
		return nil
	}
	r.stored = k.ID
	k.Version = uint64(stmt.ColumnInt64(1))
	k.Items.Version, k.Conditions.Version = uint64(stmt.ColumnInt64(2)), uint64(stmt.ColumnInt64(3))
	k.CreatedAt, k.UpdatedAt, k.ExpiresAt = columnTime(stmt, 4), columnTime(stmt, 5), columnTime(stmt, 6)
	k.Transfer, k.Received = columnBlob(stmt, 9), columnBlob(stmt, 10)
	return decodeMetadata(k, stmt.ColumnRawText(8))
}

func scanDocuments(stmt *sqlite3.Stmt, col int, k *cart.Cart) (err error) {
	if !k.Exists() {
		return nil
	}
	if k.Items.Object, err = cart.TrustedObject(stmt.ColumnRawText(col)); err != nil {
		return damaged("items", err)
	}
	if k.Conditions.Object, err = cart.TrustedObject(stmt.ColumnRawText(col + 1)); err != nil {
		return damaged("conditions", err)
	}
	return nil
}

func columnTime(stmt *sqlite3.Stmt, col int) time.Time {
	if stmt.ColumnType(col) == sqlite3.NULL {
		return time.Time{}
	}
	return time.UnixMilli(stmt.ColumnInt64(col)).UTC()
}

// columnBlob is nil for NULL only.
func columnBlob(stmt *sqlite3.Stmt, col int) []byte {
	if stmt.ColumnType(col) == sqlite3.NULL {
		return nil
	}
	return append([]byte{}, stmt.ColumnRawBlob(col)...)
}

// store writes a row, or deletes it where nothing is left of it.
func (c *connection) store(r *record) error {
	if r.empty() {
		if !r.found {
			return nil
		}
		return c.exec(remove, c.prefix, r.key.Identifier, r.key.Instance)
	}
	k := &r.state.Cart
	var id any
	if k.Exists() {
		id = k.ID
	}
	items, conditions := r.texts()
	return c.exec(save, c.prefix, r.key.Identifier, r.key.Instance,
		id, k.Version, k.Items.Version, k.Conditions.Version,
		k.CreatedAt, k.UpdatedAt, k.ExpiresAt, r.removable(),
		text(encodeLocks(&r.state)), text(encodeMetadata(k)), k.Transfer, k.Received,
		text(items), text(conditions))
}

// giveFences draws fences from the counter of the file, in the transaction that stores them.
func (c *connection) giveFences(s *storage.State) (err error) {
	s.GiveFences(func() (fence uint64) {
		if err == nil {
			err = c.query(nextFence, func(stmt *sqlite3.Stmt) error {
				fence = uint64(stmt.ColumnInt64(0))
				return nil
			})
			if err == nil && fence == 0 {
				err = damaged("last", errors.New("the counter of fences is gone"))
			}
		}
		return fence
	})
	return err
}

func (c *connection) instances(identifier string, now time.Time) (instances []string, err error) {
	err = c.query(queryInstances, func(stmt *sqlite3.Stmt) error {
		instances = append(instances, stmt.ColumnText(0))
		return nil
	}, c.prefix, identifier, now)
	return instances, err
}
