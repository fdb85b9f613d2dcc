package mysql

import (
	"context"
	stdsql "database/sql"
	"fmt"
	"time"

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
	_ storage.Beater    = (*driver)(nil)
	_ storage.Advisor   = (*driver)(nil)
)

// driver is a [cell.Driver] over the connections of one pool.
type driver struct {
	sql.Config
	secrets []storage.Secret
	life    *sql.Life
	pool    *stdsql.DB
	schema  *sql.Once // brings it up to date
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
	d := &driver{Config: c, life: sql.NewLife(), schema: sql.NewOnce()}
	if err := d.configure(); err != nil {
		return nil, err
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
	err = d.read(ctx, func(ctx context.Context, conn *stdsql.Conn) error {
		var (
			row sql.Scan
			us  int64
		)
		into := append([]any{&us}, row.Into(documents)...)
		if err := conn.QueryRowContext(ctx, q, d.name(key)...).Scan(into...); err != nil {
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
	err = d.read(ctx, func(ctx context.Context, conn *stdsql.Conn) error {
		instances = nil
		rows, err := conn.QueryContext(ctx, queryInstances, []byte(d.Prefix), []byte(identifier))
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var instance string
			if err := rows.Scan(&instance); err != nil {
				return err
			}
			instances = append(instances, instance)
		}
		return rows.Err()
	})
	return instances, err
}

// Count implements [cell.Counter]. It takes as long as ctx allows.
func (d *driver) Count(ctx context.Context, most int) (n int, err error) {
	err = d.call(ctx, 0, func(ctx context.Context, conn *stdsql.Conn) error {
		return conn.QueryRowContext(ctx, queryCount, []byte(d.Prefix), int64(most)).Scan(&n)
	})
	return n, err
}

// Flush implements [cell.Flusher]. It deletes in steps, so that others get their turn, and takes as long as ctx allows.
func (d *driver) Flush(ctx context.Context) error {
	for {
		var deleted int64
		err := d.call(ctx, 0, func(ctx context.Context, conn *stdsql.Conn) error {
			result, err := exec(ctx, conn, flush, []byte(d.Prefix))
			if err == nil {
				deleted = result.AllRowsAffected()[0]
			}
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
		err = d.call(ctx, d.Write, func(ctx context.Context, conn *stdsql.Conn) error {
			result, err := exec(ctx, conn, sweep, int64(sql.SweepBatch))
			if err == nil {
				removed = result.AllRowsAffected()[0]
			}
			return err
		})
		return removed, err
	})
}

// Beat implements [storage.Beater]: the server answers, and takes writes.
func (d *driver) Beat(ctx context.Context) error {
	return d.read(ctx, func(ctx context.Context, conn *stdsql.Conn) error {
		var readOnly bool
		err := conn.QueryRowContext(ctx, `SELECT @@read_only`).Scan(&readOnly)
		if err == nil && readOnly {
			err = fmt.Errorf("%w: %w", storage.ErrUnavailable, &storage.Refusal{Words: "the server is read-only"})
		}
		return err
	})
}

// Advice implements [storage.Advisor].
func (d *driver) Advice(ctx context.Context) ([]storage.Advice, error) {
	var flushed int
	err := d.read(ctx, func(ctx context.Context, conn *stdsql.Conn) error {
		return conn.QueryRowContext(ctx, `SELECT @@innodb_flush_log_at_trx_commit`).Scan(&flushed)
	})
	if err != nil || flushed == 1 {
		return nil, err
	}
	return []storage.Advice{{Code: storage.AdviceNotPersistent, Message: fmt.Sprintf("The database server runs with "+
		"innodb_flush_log_at_trx_commit = %d: a crash of its machine forgets changes that were acknowledged. Set it to 1.", flushed)}}, nil
}

// Capabilities implements [cell.Driver].
func (d *driver) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "Database", Shared: true, Durable: true}
}

// Close implements [cell.Driver].
func (d *driver) Close() (err error) {
	d.life.End(d.drain)
	return d.pool.Close()
}
