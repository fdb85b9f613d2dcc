package mysql

import (
	"context"
	stdsql "database/sql"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/storage/sql"
)

const (
	insertLines = `INSERT INTO sidecart_audit (at, prefix, who, ` + sql.AuditColumns + `) VALUES `
	lineValues  = `(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	deleteLines = `
		DELETE FROM sidecart_audit WHERE prefix = ? AND at < UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND ORDER BY at LIMIT ?`
	// A named lock belongs to the whole server, which may have several databases.
	lockAudit   = `SELECT GET_LOCK(CONCAT('sidecart audit ', MD5(DATABASE())), 0)`
	unlockAudit = `; DO RELEASE_LOCK(CONCAT('sidecart audit ', MD5(DATABASE())))`
)

// writeLines is the statement that writes lines of the audit trail; "" for none.
func (d *driver) writeLines(now time.Time, lines []sql.Line) (q string, args []any) {
	if len(lines) == 0 {
		return "", nil
	}
	for i := range lines {
		l := &lines[i]
		checkout, attributes := l.OfCheckout()
		var own any // the driver accepts no pointers
		if attributes != nil {
			own = *attributes
		}
		args = append(args, now, d.Bind(d.Prefix), d.Audit.Who, d.Bind(l.Key.Identifier), d.Bind(l.Key.Instance),
			l.CartID, d.Bind(string(l.Part)), int64(l.From), int64(l.To), string(l.Kind), l.Call, d.Bind(checkout), own)
	}
	return insertLines + lineValues + strings.Repeat(", "+lineValues, len(lines)-1), args
}

// WriteLines implements [sql.Dialect].
func (d *driver) WriteLines(ctx context.Context, conn sql.Conn, now time.Time, lines []sql.Line) error {
	q, args := d.writeLines(now, lines)
	_, err := conn.Exec(ctx, q, args...)
	return err
}

// RemoveLines implements [sql.Dialect].
func (d *driver) RemoveLines(ctx context.Context, conn sql.Conn, retention time.Duration, most int64) (int64, error) {
	c := conn.(connection)
	var locked stdsql.NullInt64
	if err := c.QueryRowContext(ctx, lockAudit).Scan(&locked); err != nil || locked.Int64 != 1 {
		return 0, err
	}
	removed, err := c.Exec(ctx, deleteLines+unlockAudit, d.Bind(d.Prefix), retention.Microseconds(), most)
	if err != nil {
		c.discard() // this ends the lock
	}
	return removed, err
}
