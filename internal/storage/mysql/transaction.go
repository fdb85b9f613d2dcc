package mysql

import (
	"cmp"
	"context"
	stdsql "database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	driverlib "github.com/go-sql-driver/mysql"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// transaction is a [sql.Transaction].
type transaction struct {
	*driver
	conn *stdsql.Conn
	open bool // it has begun, and must be ended
}

func (d *driver) begin(ctx context.Context) (sql.Transaction, error) {
	conn, err := d.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return &transaction{driver: d, conn: conn}, nil
}

// Lock implements [sql.Transaction], in one round trip.
func (t *transaction) Lock(ctx context.Context, keys []cart.Key) ([]sql.Scan, time.Time, error) {
	bounded, cancel := sql.Bounded(ctx, t.Write)
	defer cancel()
	rows, now := make([]sql.Scan, len(keys)), time.Time{}
	t.open = true
	err := t.lock(bounded, keys, rows, &now)
	return rows, now, t.translate(ctx, bounded, err)
}

func (t *transaction) lock(ctx context.Context, keys []cart.Key, into []sql.Scan, now *time.Time) error {
	var args []any
	for _, key := range keys {
		args = append(args, t.name(key)...)
	}
	rows, err := t.conn.QueryContext(ctx, begin+strings.Repeat(lockRow, len(keys))+queryTime, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for i := range into {
		for rows.Next() {
			if err := rows.Scan(into[i].Into(false)...); err != nil {
				return err
			}
		}
		if !rows.NextResultSet() {
			return cmp.Or(rows.Err(), errors.New("the server left out a result"))
		}
	}
	var us int64
	if !rows.Next() {
		return cmp.Or(rows.Err(), errors.New("the server left out the time"))
	}
	if err := rows.Scan(&us); err != nil {
		return err
	}
	*now = time.UnixMicro(us).UTC()
	return rows.Close()
}

// Documents implements [sql.Transaction].
func (t *transaction) Documents(ctx context.Context, key cart.Key) (items, conditions []byte, err error) {
	bounded, cancel := sql.Bounded(ctx, t.Write)
	defer cancel()
	err = t.conn.QueryRowContext(bounded, queryDocuments, t.name(key)...).Scan(&items, &conditions)
	return items, conditions, t.translate(ctx, bounded, err)
}

// NextFence implements [sql.Transaction]. The row is gone at once, and the counter stays.
func (t *transaction) NextFence(ctx context.Context) (uint64, error) {
	bounded, cancel := sql.Bounded(ctx, t.Write)
	defer cancel()
	result, err := exec(bounded, t.conn, nextFence)
	if err != nil {
		return 0, t.translate(ctx, bounded, err)
	}
	return uint64(result.AllLastInsertIds()[0]), nil
}

// Commit implements [sql.Transaction], in one round trip. A statement that fails keeps those behind it from being run,
// the commit among them.
func (t *transaction) Commit(ctx context.Context, changes []sql.Change) error {
	bounded, cancel := sql.Bounded(ctx, t.Write)
	defer cancel()
	var (
		statements []string
		args       []any
	)
	for _, c := range changes {
		q, a := t.store(c)
		statements, args = append(statements, q), append(args, a...)
	}
	result, err := exec(bounded, t.conn, strings.Join(statements, "; ")+commit, args...)
	if err != nil {
		switch {
		case isError(err, errDuplicate):
			return errQuicker
		case !refused(err):
			err = fmt.Errorf("%w: %w", err, cell.ErrOutcomeUnknown)
		}
		return t.translate(ctx, bounded, err)
	}
	t.open = false
	for _, n := range result.AllRowsAffected()[:len(changes)] {
		if n != 1 {
			return fmt.Errorf("%w: %w: a change of one row changed %d", storage.ErrCorrupt, cell.ErrOutcomeUnknown, n)
		}
	}
	return nil
}

// errQuicker: nothing was stored, since another transaction had inserted the row.
var errQuicker = fmt.Errorf("%w: %w: another transaction made the cart", storage.ErrUnavailable, sql.ErrAgain)

// store is the statement that stores a row.
func (t *transaction) store(c sql.Change) (q string, args []any) {
	if c.Record.State.Empty() {
		return deleteRow, t.name(c.Key)
	}
	row := sql.RowOf(c.Record)
	values := row.Values()
	if !c.Found {
		items, conditions := cmp.Or(string(row.Items), "{}"), cmp.Or(string(row.Conditions), "{}")
		return insertRow, slices.Concat(values, []any{items, conditions}, t.name(c.Key))
	}
	q = updateRow
	if row.Items != nil {
		q, values = q+", items = ?", append(values, string(row.Items))
	}
	if row.Conditions != nil {
		q, values = q+", conditions = ?", append(values, string(row.Conditions))
	}
	return q + " WHERE" + isRow, append(values, t.name(c.Key)...)
}

// Rollback implements [sql.Transaction]. A connection that cannot roll back is closed.
func (t *transaction) Rollback() {
	if t.open {
		limit := t.Write
		if limit <= 0 {
			limit = rollbackLimit
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		if _, err := exec(ctx, t.conn, rollback); err != nil {
			discard(t.conn)
		}
		cancel()
	}
	_ = t.conn.Close()
}

// rollbackLimit is for how long a rollback is waited for where nothing else bounds a write.
const rollbackLimit = time.Second

// name is the key of a row, as bytes, which no character set of a connection converts.
func (d *driver) name(key cart.Key) []any {
	return []any{[]byte(d.Prefix), []byte(key.Identifier), []byte(key.Instance)}
}

// isError reports whether err is the server's, of one of these numbers.
func isError(err error, numbers ...uint16) bool {
	server, ok := errors.AsType[*driverlib.MySQLError](err)
	return ok && slices.Contains(numbers, server.Number)
}
