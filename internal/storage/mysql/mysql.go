package mysql

import (
	"context"
	stdsql "database/sql"
	"fmt"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

var (
	_ cell.Driver     = (*driver)(nil)
	_ sql.Dialect     = (*driver)(nil)
	_ storage.Advisor = (*driver)(nil)
)

// driver is a [cell.Driver] over the connections of one pool.
type driver struct {
	*sql.Server
	pool *stdsql.DB
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
	d := &driver{}
	d.Server = sql.NewServer(c, d, &statements, rights)
	if err := d.configure(); err != nil {
		return nil, err
	}
	d.Start()
	return d, nil
}

// Bind implements [sql.Dialect], as bytes, which no character set of a connection converts.
func (d *driver) Bind(text string) any { return []byte(text) }

// Advice implements [storage.Advisor].
func (d *driver) Advice(ctx context.Context) ([]storage.Advice, error) {
	var flushed int
	err := d.Get(ctx, `SELECT @@innodb_flush_log_at_trx_commit`, &flushed)
	if err != nil || flushed == 1 {
		return nil, err
	}
	return []storage.Advice{{Code: storage.AdviceNotPersistent, Message: fmt.Sprintf("The database server runs with "+
		"innodb_flush_log_at_trx_commit = %d: a crash of its machine forgets changes that were acknowledged. Set it to 1.", flushed)}}, nil
}

// Close implements [cell.Driver].
func (d *driver) Close() (err error) {
	d.Life.End(d.drain)
	return d.pool.Close()
}
