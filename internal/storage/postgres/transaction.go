package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// Lock implements [sql.Dialect].
func (d *driver) Lock(ctx context.Context, conn sql.Conn, keys []cart.Key, rows []sql.Scan) (us int64, err error) {
	b := &pgx.Batch{}
	b.Queue(begin)
	if d.pooled.Load() {
		b.Queue(`SET LOCAL ` + idleLimit)
	}
	for i, key := range keys {
		b.Queue(lockRow, d.Name(key)...).QueryRow(func(row pgx.Row) error {
			return row.Scan(append([]any{&us}, rows[i].Into(false)...)...)
		})
	}
	err = send(ctx, conn, b)
	return us, err
}

func send(ctx context.Context, conn sql.Conn, b *pgx.Batch) error {
	return conn.(connection).SendBatch(ctx, b).Close()
}

// NextFence implements [sql.Dialect].
func (d *driver) NextFence(ctx context.Context, conn sql.Conn) (uint64, error) {
	var fence int64
	err := conn.(connection).QueryRow(ctx, nextFence).Scan(&fence)
	return uint64(fence), err
}

// Commit implements [sql.Dialect], in one round trip, but for two carts of which one is new: whether somebody else has
// made that one must be known before the other is stored.
func (d *driver) Commit(ctx context.Context, conn sql.Conn, now time.Time, changes []sql.Change, lines []sql.Line) error {
	quicker := false
	b := &pgx.Batch{}
	for _, c := range changes {
		d.store(b, c, &quicker)
	}
	if len(changes) > 1 && slices.ContainsFunc(changes, func(c sql.Change) bool { return !c.Found }) {
		if err := send(ctx, conn, b); err != nil {
			return err
		}
		if quicker {
			return sql.ErrQuicker
		}
		b = &pgx.Batch{}
	}
	made := ""
	if len(changes) == 1 && !changes[0].Found {
		made = changes[0].Record.State.Cart.ID
	}
	d.queueLines(b, now, lines, made, changes[0].Key)
	for _, c := range changes {
		d.notify(b, c.Record.Granted)
		if c.Record.Changed {
			d.announce(b, c.Key)
		}
	}
	err := finish(ctx, conn, b)
	if err == nil && quicker {
		return sql.ErrQuicker
	}
	return err
}

// store queues the statement that stores a row.
func (d *driver) store(b *pgx.Batch, c sql.Change, quicker *bool) {
	name := d.Name(c.Key)
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

func (d *driver) notify(b *pgx.Batch, granted []string) {
	for tokens := range slices.Chunk(granted, notifiedAtOnce) {
		b.Queue(notify, d.channel, strings.Join(tokens, " "))
	}
}

// finish sends the queued statements and the commit. If the commit may have been made, the error says so.
func finish(ctx context.Context, conn sql.Conn, b *pgx.Batch) error {
	b.Queue(commit).Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != commit {
			return fmt.Errorf("the commit was answered with %q", tag)
		}
		return nil
	})
	err := send(ctx, conn, b)
	if err != nil && !refused(err) {
		err = fmt.Errorf("%w: %w", err, cell.ErrOutcomeUnknown)
	}
	return err
}
