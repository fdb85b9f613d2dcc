package mysql

import (
	"context"
	stdsql "database/sql"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

const (
	queryPage = `
		SELECT identifier, instance FROM sidecart_carts
		WHERE prefix = ? AND (identifier > ? OR identifier = ? AND instance > ?)
		ORDER BY identifier, instance LIMIT ?`
	// A row with a number sets the counter to the next one where that is greater, and never back.
	raiseFence = `INSERT IGNORE INTO sidecart_fences (id) VALUES (?); DELETE FROM sidecart_fences WHERE id = ?`
)

// Page implements [cell.Walker], in the order of the names, by the primary key.
func (d *driver) Page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error) {
	from := cell.KeyAt(after)
	err = d.read(ctx, func(ctx context.Context, conn *stdsql.Conn) error {
		keys = nil
		rows, err := conn.QueryContext(ctx, queryPage, []byte(d.Prefix), []byte(from.Identifier), []byte(from.Identifier), []byte(from.Instance), int64(limit))
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var key cart.Key
			if err := rows.Scan(&key.Identifier, &key.Instance); err != nil {
				return err
			}
			keys = append(keys, key)
		}
		return rows.Err()
	})
	if err == nil && len(keys) == limit {
		next = cell.Place(keys[limit-1])
	}
	return keys, next, err
}

// LastFence implements [cell.FenceCounter]. It draws a fence, which no lease gets: the counter cannot be read otherwise
// on every server.
func (d *driver) LastFence(ctx context.Context) (fence uint64, err error) {
	err = d.call(ctx, d.Write, func(ctx context.Context, conn *stdsql.Conn) error {
		result, err := exec(ctx, conn, nextFence)
		if err == nil {
			fence = uint64(result.AllLastInsertIds()[0])
		}
		return err
	})
	return fence, err
}

// RaiseFence implements [cell.FenceCounter].
func (d *driver) RaiseFence(ctx context.Context, fence uint64) error {
	return d.call(ctx, d.Write, func(ctx context.Context, conn *stdsql.Conn) error {
		_, err := exec(ctx, conn, raiseFence, int64(fence), int64(fence))
		return err
	})
}
