package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// transaction is a [sql.Transaction].
type transaction struct {
	*driver
	conn *pgxpool.Conn
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
	b := &pgx.Batch{}
	b.Queue(begin)
	if t.pooled.Load() {
		b.Queue(`SET LOCAL ` + idleLimit)
	}
	rows, us := make([]sql.Scan, len(keys)), int64(0)
	for i, key := range keys {
		b.Queue(lockRow, t.Prefix, key.Identifier, key.Instance).QueryRow(func(row pgx.Row) error {
			return row.Scan(append([]any{&us}, rows[i].Into(false)...)...)
		})
	}
	t.open = true
	err := t.conn.SendBatch(bounded, b).Close()
	return rows, time.UnixMicro(us).UTC(), t.translate(ctx, bounded, err)
}

// Documents implements [sql.Transaction].
func (t *transaction) Documents(ctx context.Context, key cart.Key) (items, conditions []byte, err error) {
	err = t.query(ctx, queryDocuments, []any{t.Prefix, key.Identifier, key.Instance}, &items, &conditions)
	return items, conditions, err
}

// NextFence implements [sql.Transaction].
func (t *transaction) NextFence(ctx context.Context) (uint64, error) {
	var fence int64
	err := t.query(ctx, nextFence, nil, &fence)
	return uint64(fence), err
}

func (t *transaction) query(ctx context.Context, q string, args []any, into ...any) error {
	bounded, cancel := sql.Bounded(ctx, t.Write)
	defer cancel()
	return t.translate(ctx, bounded, t.conn.QueryRow(bounded, q, args...).Scan(into...))
}

// Commit implements [sql.Transaction], in one round trip, but for two carts of which one is new: whether somebody else
// has made that one must be known before the other is stored.
func (t *transaction) Commit(ctx context.Context, changes []sql.Change) error {
	bounded, cancel := sql.Bounded(ctx, t.Write)
	defer cancel()
	quicker := false
	b := &pgx.Batch{}
	for _, c := range changes {
		t.store(b, c, &quicker)
	}
	if len(changes) > 1 && slices.ContainsFunc(changes, func(c sql.Change) bool { return !c.Found }) {
		err := t.translate(ctx, bounded, t.conn.SendBatch(bounded, b).Close())
		if err != nil {
			return err
		}
		if quicker {
			return errQuicker
		}
		b = &pgx.Batch{}
	}
	for _, c := range changes {
		t.notify(b, c.Record.Granted)
	}
	err := t.finish(bounded, b)
	if err == nil && quicker {
		return errQuicker
	}
	return t.translate(ctx, bounded, err)
}

// errQuicker: nothing was stored, since another transaction had inserted the row.
var errQuicker = fmt.Errorf("%w: %w: another transaction made the cart", storage.ErrUnavailable, sql.ErrAgain)

// store queues what stores a row.
func (t *transaction) store(b *pgx.Batch, c sql.Change, quicker *bool) {
	name := []any{t.Prefix, c.Key.Identifier, c.Key.Instance}
	if c.Record.State.Empty() {
		b.Queue(deleteRow, name...)
		return
	}
	row := sql.RowOf(c.Record)
	values := append(append(name, row.Values()...), sql.Text(row.Items), sql.Text(row.Conditions))
	if !c.Found {
		b.Queue(insertRow, values...).Exec(func(tag pgconn.CommandTag) error {
			*quicker = *quicker || tag.RowsAffected() == 0
			return nil
		})
		return
	}
	b.Queue(updateRow, values...).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != 1 {
			return fmt.Errorf("%w: an update of a row that is locked changed %d rows", storage.ErrCorrupt, tag.RowsAffected())
		}
		return nil
	})
}

// A notification carries at most so many tokens: its text must be shorter than 8,000 bytes.
const notifiedAtOnce = 100

func (t *transaction) notify(b *pgx.Batch, granted []string) {
	for tokens := range slices.Chunk(granted, notifiedAtOnce) {
		b.Queue(notify, t.channel, strings.Join(tokens, " "))
	}
}

// finish sends what is left to do and the commit. An error after which it may have been made says so.
func (t *transaction) finish(ctx context.Context, b *pgx.Batch) error {
	b.Queue(commit).Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != commit {
			return fmt.Errorf("the commit was answered with %q", tag)
		}
		t.open = false
		return nil
	})
	err := t.conn.SendBatch(ctx, b).Close()
	if err != nil && !refused(err) {
		err = fmt.Errorf("%w: %w", err, cell.ErrOutcomeUnknown)
	}
	return err
}

// Rollback implements [sql.Transaction]. It gives the connection back; the pool closes one that is in a transaction
// still.
func (t *transaction) Rollback() {
	if t.open && !t.conn.Conn().IsClosed() {
		limit := t.Write
		if limit <= 0 {
			limit = rollbackLimit
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		_, _ = t.conn.Exec(ctx, `ROLLBACK`, pgx.QueryExecModeExec)
		cancel()
	}
	t.conn.Release()
}

// rollbackLimit is for how long a rollback is waited for where nothing else bounds a write.
const rollbackLimit = time.Second
