package mysql

import (
	"cmp"
	"context"
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

// Lock implements [sql.Dialect].
func (d *driver) Lock(ctx context.Context, conn sql.Conn, keys []cart.Key, into []sql.Scan) (us int64, err error) {
	var args []any
	for _, key := range keys {
		args = append(args, d.Name(key)...)
	}
	rows, err := conn.(connection).QueryContext(ctx, begin+strings.Repeat(lockRow, len(keys))+queryTime, args...)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	for i := range into {
		for rows.Next() {
			if err := rows.Scan(into[i].Into(false)...); err != nil {
				return 0, err
			}
		}
		if !rows.NextResultSet() {
			return 0, cmp.Or(rows.Err(), errors.New("the server left out a result"))
		}
	}
	if !rows.Next() {
		return 0, cmp.Or(rows.Err(), errors.New("the server left out the time"))
	}
	if err := rows.Scan(&us); err != nil {
		return 0, err
	}
	return us, rows.Close()
}

// NextFence implements [sql.Dialect]. The row is gone at once, and the counter stays.
func (d *driver) NextFence(ctx context.Context, conn sql.Conn) (uint64, error) {
	result, err := conn.(connection).run(ctx, nextFence)
	if err != nil {
		return 0, err
	}
	return uint64(result.AllLastInsertIds()[0]), nil
}

// Commit implements [sql.Dialect], in one round trip. A statement that fails keeps those behind it from being run, the
// commit among them.
func (d *driver) Commit(ctx context.Context, conn sql.Conn, now time.Time, changes []sql.Change, lines []sql.Line) error {
	var (
		statements []string
		args       []any
	)
	for _, c := range changes {
		q, a := d.store(c)
		statements, args = append(statements, q), append(args, a...)
	}
	if q, a := d.writeLines(now, lines); q != "" {
		statements, args = append(statements, q), append(args, a...)
	}
	result, err := conn.(connection).run(ctx, strings.Join(statements, "; ")+commit, args...)
	switch {
	case isError(err, errDuplicate):
		return sql.ErrQuicker
	case err != nil && !refused(err):
		return fmt.Errorf("%w: %w", err, cell.ErrOutcomeUnknown)
	case err != nil:
		return err
	}
	for _, n := range result.AllRowsAffected()[:len(changes)] {
		if n != 1 {
			return fmt.Errorf("%w: %w: a change of one row changed %d", storage.ErrCorrupt, cell.ErrOutcomeUnknown, n)
		}
	}
	return nil
}

// store is the statement that stores a row.
func (d *driver) store(c sql.Change) (q string, args []any) {
	if c.Record.State.Empty() {
		return deleteRow, d.Name(c.Key)
	}
	row := sql.RowOf(c.Record)
	values := row.Values()
	if !c.Found {
		items, conditions := cmp.Or(string(row.Items), "{}"), cmp.Or(string(row.Conditions), "{}")
		return insertRow, slices.Concat(values, []any{items, conditions}, d.Name(c.Key))
	}
	q = updateRow
	if row.Items != nil {
		q, values = q+", items = ?", append(values, string(row.Items))
	}
	if row.Conditions != nil {
		q, values = q+", conditions = ?", append(values, string(row.Conditions))
	}
	return q + " WHERE" + isRow, append(values, d.Name(c.Key)...)
}

// isError reports whether err is an error of the server with one of these numbers.
func isError(err error, numbers ...uint16) bool {
	server, ok := errors.AsType[*driverlib.MySQLError](err)
	return ok && slices.Contains(numbers, server.Number)
}
