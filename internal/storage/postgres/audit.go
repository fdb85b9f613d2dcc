package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

const (
	// The statement is the same for any number of lines, so it is prepared once. Lines of a new cart are not written if
	// another transaction made the cart first, with another id.
	insertLines = `
		INSERT INTO sidecart_audit (at, prefix, who, ` + sql.AuditColumns + `)
		SELECT $1, $2, $3, line.* FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[]) AS line
		WHERE $14 = '' OR EXISTS (SELECT FROM sidecart_carts WHERE prefix = $2 AND identifier = $15 AND instance = $16 AND id = $14)`
	// The time is that of the statement: the index can be used only if the time stays the same throughout. The lock is
	// held until the statement ends.
	deleteLines = `
		WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(hashtextextended('sidecart_audit', 0)) AS mine)
		DELETE FROM sidecart_audit WHERE id = ANY (ARRAY (
			SELECT id FROM sidecart_audit
			WHERE (SELECT mine FROM turn) AND prefix = $1 AND at < statement_timestamp() - $2::bigint * interval '1 microsecond'
			ORDER BY at LIMIT $3))`
)

// queueLines queues the statement that writes lines of the audit trail. If the only changed cart is new, made is its id
// and key its name; otherwise made is "".
func (d *driver) queueLines(b *pgx.Batch, now time.Time, lines []sql.Line, made string, key cart.Key) {
	if len(lines) == 0 {
		return
	}
	var (
		texts      [7][]string
		from, to   []int64
		attributes []*string
	)
	for i := range lines {
		l := &lines[i]
		checkout, own := l.OfCheckout()
		for column, text := range []string{l.Key.Identifier, l.Key.Instance, l.CartID, string(l.Part), string(l.Kind), l.Call, checkout} {
			texts[column] = append(texts[column], text)
		}
		from, to, attributes = append(from, int64(l.From)), append(to, int64(l.To)), append(attributes, own)
	}
	b.Queue(insertLines, now, d.Prefix, d.Audit.Who, texts[0], texts[1], texts[2], texts[3], from, to, texts[4], texts[5], texts[6], attributes,
		made, key.Identifier, key.Instance)
}

// WriteLines implements [sql.Dialect].
func (d *driver) WriteLines(ctx context.Context, conn sql.Conn, now time.Time, lines []sql.Line) error {
	b := &pgx.Batch{}
	d.queueLines(b, now, lines, "", cart.Key{})
	return send(ctx, conn, b)
}

// RemoveLines implements [sql.Dialect].
func (d *driver) RemoveLines(ctx context.Context, conn sql.Conn, retention time.Duration, most int64) (int64, error) {
	return conn.Exec(ctx, deleteLines, d.Prefix, retention.Microseconds(), most)
}
