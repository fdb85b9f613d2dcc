package postgres

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

var (
	_ cell.Driver     = (*driver)(nil)
	_ cell.Notifier   = (*driver)(nil)
	_ cell.Hearer     = (*driver)(nil)
	_ cell.Announcer  = (*driver)(nil)
	_ sql.Dialect     = (*driver)(nil)
	_ storage.Advisor = (*driver)(nil)
)

// driver is a [cell.Driver] over the connections of one pool.
type driver struct {
	*sql.Server
	pool *pgxpool.Pool

	channel string      // of notifications
	hears   atomic.Bool // they arrive
	deaf    atomic.Bool // a test showed that they do not arrive
	pooled  atomic.Bool // connections lead to a pooler, which lends another one for each transaction
	watches watches
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
	d := &driver{channel: channelOf(c.Prefix)}
	d.Server = sql.NewServer(c, d, &statements, rights)
	pool, err := d.configure()
	if err != nil {
		return nil, err
	}
	if d.pool, err = pgxpool.NewWithConfig(context.Background(), pool); err != nil {
		return nil, storage.Hide(fmt.Errorf("%w: %w", storage.ErrUnsupported, err), d.Hidden...)
	}
	d.watches.init()
	d.Start()
	return d, nil
}

// Bind implements [sql.Dialect].
func (d *driver) Bind(text string) any { return text }

// Advice implements [storage.Advisor].
func (d *driver) Advice(ctx context.Context) (advice []storage.Advice, err error) {
	var fsync, synchronous string
	if err := d.Get(ctx, `SELECT current_setting('fsync'), current_setting('synchronous_commit')`, &fsync, &synchronous); err != nil {
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

// Close implements [cell.Driver].
func (d *driver) Close() error {
	d.Life.End(d.pool.Close)
	return nil
}
