package sqlite

import (
	"context"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

const (
	queryPage = `
		SELECT identifier, instance FROM sidecart_carts
		WHERE prefix = ?1 AND (identifier, instance) > (?2, ?3)
		ORDER BY identifier, instance LIMIT ?4`
	queryFence = `SELECT last FROM sidecart_fences WHERE id = 1`
)

// Page implements [cell.Walker], in the order of the names, by the primary key.
func (d *driver) Page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error) {
	from := cell.KeyAt(after)
	err = d.reader(ctx, func(c *connection) error {
		return c.query(queryPage, func(stmt *sqlite3.Stmt) error {
			keys = append(keys, cart.Key{Identifier: stmt.ColumnText(0), Instance: stmt.ColumnText(1)})
			return nil
		}, c.prefix, from.Identifier, from.Instance, uint64(limit))
	})
	if err == nil && len(keys) == limit {
		next = cell.Place(keys[limit-1])
	}
	return keys, next, err
}

// LastFence implements [cell.FenceCounter].
func (d *driver) LastFence(ctx context.Context) (fence uint64, err error) {
	err = d.reader(ctx, func(c *connection) error {
		return c.query(queryFence, func(stmt *sqlite3.Stmt) error {
			fence = uint64(stmt.ColumnInt64(0))
			return nil
		})
	})
	return fence, err
}

// RaiseFence implements [cell.FenceCounter]. It raises the counter to the time at least, so that it seldom has to be
// raised again.
func (d *driver) RaiseFence(ctx context.Context, fence uint64) error {
	return d.writer(ctx, func(w *writer) error {
		return w.exec(raiseFences, max(fence, uint64(time.Now().UnixMicro())))
	})
}
