package postgres

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

var (
	_ cell.Driver       = (*driver)(nil)
	_ cell.Pairer       = (*driver)(nil)
	_ cell.Lister       = (*driver)(nil)
	_ cell.Counter      = (*driver)(nil)
	_ cell.Flusher      = (*driver)(nil)
	_ cell.Walker       = (*driver)(nil)
	_ cell.FenceCounter = (*driver)(nil)
	_ cell.Notifier     = (*driver)(nil)
	_ cell.Hearer       = (*driver)(nil)
	_ storage.Beater    = (*driver)(nil)
	_ storage.Advisor   = (*driver)(nil)
)

// driver is a [cell.Driver] over the connections of one pool.
type driver struct {
	sql.Config
	secrets []storage.Secret
	life    *sql.Life
	pool    *pgxpool.Pool
	schema  *sql.Once // brings it up to date

	channel string      // of notifications
	hears   atomic.Bool // they arrive
	deaf    atomic.Bool // they were seen not to arrive
	pooled  atomic.Bool // connections are a pooler's, which lends another one for each transaction
}

// Open makes a store of the database that c names. It connects when it is first used.
func Open(_ context.Context, c sql.Config) (*cell.Store, error) {
	d, err := openDriver(c)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return cell.New(d), nil
}

func openDriver(c sql.Config) (*driver, error) {
	d := &driver{Config: c, life: sql.NewLife(), schema: sql.NewOnce(), channel: channelOf(c.Prefix)}
	pool, err := d.configure()
	if err != nil {
		return nil, err
	}
	if d.pool, err = pgxpool.NewWithConfig(context.Background(), pool); err != nil {
		return nil, storage.Hide(fmt.Errorf("%w: %w", storage.ErrUnsupported, err), d.secrets...)
	}
	go d.life.Every(sql.SweepInterval, d.sweep)
	return d, nil
}

// Load implements [cell.Driver].
func (d *driver) Load(ctx context.Context, key cart.Key, documents bool) (r cell.Record, now time.Time, err error) {
	q := queryRow
	if documents {
		q = queryWhole
	}
	err = d.read(ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		var (
			row sql.Scan
			us  int64
		)
		into := append([]any{&us}, row.Into(documents)...)
		if err := conn.QueryRow(ctx, q, d.Prefix, key.Identifier, key.Instance).Scan(into...); err != nil {
			return err
		}
		now = time.UnixMicro(us).UTC()
		r, err = row.Record(documents)
		return err
	})
	return r, now, err
}

// Update implements [cell.Driver].
func (d *driver) Update(ctx context.Context, keys []cart.Key, change cell.Change) error {
	if err := d.life.Usable(ctx); err != nil {
		return err
	}
	ctx, cancel := d.life.Context(ctx)
	defer cancel()
	return sql.Update(ctx, keys, change, d.begin)
}

// Pairs implements [cell.Pairer]: a transaction takes any rows.
func (d *driver) Pairs(_, _ cart.Key) bool { return true }

// Instances implements [cell.Lister].
func (d *driver) Instances(ctx context.Context, identifier string) (instances []string, err error) {
	err = d.read(ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, queryInstances, d.Prefix, identifier)
		if err != nil {
			return err
		}
		instances, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return instances, err
}

// Count implements [cell.Counter]. It takes as long as ctx allows.
func (d *driver) Count(ctx context.Context, most int) (n int, err error) {
	err = d.call(ctx, 0, func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, queryCount, d.Prefix, most).Scan(&n)
	})
	return n, err
}

// Flush implements [cell.Flusher]. It deletes in steps, so that others get their turn, and takes as long as ctx allows.
func (d *driver) Flush(ctx context.Context) error {
	for {
		var deleted int64
		err := d.call(ctx, 0, func(ctx context.Context, conn *pgxpool.Conn) error {
			tag, err := conn.Exec(ctx, flush, d.Prefix)
			deleted = tag.RowsAffected()
			return err
		})
		if err != nil || deleted == 0 {
			return err
		}
	}
}

// sweep deletes rows that have ended, of all prefixes, since one that is used no more has nobody else to do it.
func (d *driver) sweep(ctx context.Context) {
	sql.Sweep(ctx, sql.SweepBatch, func(ctx context.Context) (removed int64, err error) {
		err = d.call(ctx, d.Write, func(ctx context.Context, conn *pgxpool.Conn) error {
			tag, err := conn.Exec(ctx, sweep, int64(sql.SweepBatch))
			removed = tag.RowsAffected()
			return err
		})
		return removed, err
	})
}

// Beat implements [storage.Beater]: the server answers, and takes writes.
func (d *driver) Beat(ctx context.Context) error {
	return d.read(ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		var readOnly bool
		err := conn.QueryRow(ctx, `SELECT current_setting('transaction_read_only')::boolean`).Scan(&readOnly)
		if err == nil && readOnly {
			err = fmt.Errorf("%w: %w", storage.ErrUnavailable, &storage.Refusal{Words: "the server is read-only"})
		}
		return err
	})
}

// Advice implements [storage.Advisor].
func (d *driver) Advice(ctx context.Context) (advice []storage.Advice, err error) {
	var fsync, synchronous string
	err = d.read(ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, `SELECT current_setting('fsync'), current_setting('synchronous_commit')`).Scan(&fsync, &synchronous)
	})
	if err != nil {
		return nil, err
	}
	for setting, value := range map[string]string{"fsync": fsync, "synchronous_commit": synchronous} {
		if value == "off" {
			advice = append(advice, storage.Advice{Code: storage.AdviceNotPersistent, Message: "PostgreSQL runs with " + setting +
				" = off: a crash of the server or its machine forgets changes that were acknowledged. Turn it on."})
		}
	}
	if d.deaf.Load() {
		advice = append(advice, storage.Advice{Code: storage.AdviceNoWakeUps, Message: "PostgreSQL's notifications do not arrive, as through " +
			"a pooler that lends connections for one transaction: a sidecar that waits for a lock is not woken, and asks every few " +
			"milliseconds instead. Connect to the server itself, or to a pool in session mode."})
	}
	return advice, nil
}

// Capabilities implements [cell.Driver].
func (d *driver) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "Database", Shared: true, Durable: true}
}

// Close implements [cell.Driver].
func (d *driver) Close() error {
	d.life.End(d.pool.Close)
	return nil
}
