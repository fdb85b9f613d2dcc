package postgres

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/storage/sql/sqltest"
	"github.com/sidecart/sidecart/internal/testserver"
)

func TestQuickerMaker(t *testing.T) {
	t.Parallel()
	server := testserver.SharedPostgres(t)
	url := server.NewDatabase(t)
	d := newDriver(t, url)
	d.Audit = sql.Audit{Retention: time.Hour, Who: "pod"}
	sqltest.QuickerMaker(t, d, server, testserver.DatabaseOf(url))
}

func TestAuditBatches(t *testing.T) {
	t.Parallel()
	server := testserver.SharedPostgres(t)
	url := server.NewDatabase(t)
	d := newDriver(t, url)
	d.Audit = sql.Audit{Retention: time.Hour, Who: "pod"}
	sqltest.AuditBatches(t, d, server, testserver.DatabaseOf(url),
		"SELECT pg_advisory_lock(hashtextextended('sidecart_audit', 0))", "SELECT pg_advisory_unlock(hashtextextended('sidecart_audit', 0))")
}

// What is removed by its age is found by an index: neither looks at all rows, every minute.
func TestRemovalsUseAnIndex(t *testing.T) {
	t.Parallel()
	d := newDriver(t, testserver.SharedPostgres(t).NewDatabase(t))
	for name, tc := range map[string]struct {
		statement, condition string
		args                 []any
	}{
		"carts":       {statements.Sweep, "Index Cond: (removable_at <=", []any{int64(10)}},
		"audit trail": {deleteLines, "Index Cond: ((prefix = 'cart'::text) AND (at <", []any{"cart", int64(10), int64(10)}},
	} {
		var plan []string
		err := d.Call(t.Context(), 0, func(ctx context.Context, conn sql.Conn) error {
			plan = nil
			if _, err := conn.Exec(ctx, "SET enable_seqscan = off"); err != nil {
				return err
			}
			return conn.Query(ctx, func(scan func(into ...any) error) error {
				var line string
				err := scan(&line)
				plan = append(plan, line)
				return err
			}, "EXPLAIN "+tc.statement, append([]any{pgx.QueryExecModeExec}, tc.args...)...)
		})
		if err != nil || !strings.Contains(strings.Join(plan, "\n"), tc.condition) {
			t.Errorf("%s: %v\n%s", name, err, strings.Join(plan, "\n"))
		}
	}
}
