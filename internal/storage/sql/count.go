package sql

import (
	"context"
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Counter = (*Store)(nil)

// Count implements [storage.Counter].
func (s *Store) Count(ctx context.Context, most int) (int, bool, error) {
	c, ok := s.engine.(counter)
	if !ok {
		return 0, false, fmt.Errorf("count carts: %w", storage.ErrUnsupported)
	}
	n, err := c.count(ctx, time.Now(), most+1)
	if err != nil {
		return 0, false, fmt.Errorf("count carts: %w", err)
	}
	return min(n, most), n > most, nil
}

// counter is an engine that counts the carts that exist at now, up to most.
type counter interface {
	count(ctx context.Context, now time.Time, most int) (int, error)
}

func (e pathless) count(ctx context.Context, now time.Time, most int) (int, error) {
	c, ok := e.inner.(counter)
	if !ok {
		return 0, storage.ErrUnsupported
	}
	n, err := c.count(ctx, now, most)
	return n, withoutPath(err)
}

func (e *sqlite) count(ctx context.Context, now time.Time, most int) (n int, err error) {
	err = e.reader(ctx, func(c *connection) error {
		n, err = c.count(now, most)
		return err
	})
	return n, err
}

const queryCount = `
	SELECT count(*) FROM (
		SELECT 1 FROM sidecart_carts WHERE prefix = ?1 AND id IS NOT NULL AND (expires_at IS NULL OR expires_at > ?2) LIMIT ?3)`

func (c *connection) count(now time.Time, most int) (n int, err error) {
	err = c.query(queryCount, func(stmt *sqlite3.Stmt) error {
		n = int(stmt.ColumnInt64(0))
		return nil
	}, c.prefix, now, uint64(most))
	return n, err
}
