package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

const (
	queryPage = `
		SELECT identifier, instance FROM sidecart_carts
		WHERE prefix = $1 AND (identifier, instance) > ($2, $3)
		ORDER BY identifier, instance LIMIT $4`
	// To set the sequence is no step of a transaction, so two that raise it take turns, or the one could set back what
	// the other has set. The margin is more than leases can take meanwhile, which take no turns.
	raiseFence = `
		WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended('sidecart_fences', 0)))
		SELECT setval('sidecart_fences', $1::bigint + 1000000) FROM turn WHERE coalesce(pg_sequence_last_value('sidecart_fences'), 0) < $1::bigint`
)

// Page implements [cell.Walker], in the order of the names, by the primary key.
func (d *driver) Page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error) {
	from := cell.KeyAt(after)
	err = d.read(ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, queryPage, d.Prefix, from.Identifier, from.Instance, int64(limit))
		if err != nil {
			return err
		}
		keys, err = pgx.CollectRows(rows, pgx.RowToStructByPos[cart.Key])
		return err
	})
	if err == nil && len(keys) == limit {
		next = cell.Place(keys[limit-1])
	}
	return keys, next, err
}

// LastFence implements [cell.FenceCounter]. It draws a fence, which no lease gets: to read the sequence takes a right
// more.
func (d *driver) LastFence(ctx context.Context) (uint64, error) {
	var fence int64
	err := d.read(ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, nextFence).Scan(&fence)
	})
	return uint64(fence), err
}

// RaiseFence implements [cell.FenceCounter]. It needs the right UPDATE on the sequence.
func (d *driver) RaiseFence(ctx context.Context, fence uint64) error {
	return d.call(ctx, d.Write, func(ctx context.Context, conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, raiseFence, int64(fence))
		return err
	})
}
