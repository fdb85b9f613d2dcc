package mysql

import (
	"context"

	"github.com/sidecart/sidecart/internal/storage/sql"
)

// Sweep opens a store and lets it sweep once.
func Sweep(ctx context.Context, c sql.Config) error { return once(ctx, c, (*sql.Server).Sweep) }

// SweepAudit opens a store and lets it remove lines of the audit trail once.
func SweepAudit(ctx context.Context, c sql.Config) error {
	return once(ctx, c, (*sql.Server).SweepAudit)
}

func once(ctx context.Context, c sql.Config, do func(*sql.Server, context.Context)) error {
	d, err := openDriver(c)
	if err != nil {
		return err
	}
	do(d.Server, ctx)
	return d.Close()
}
