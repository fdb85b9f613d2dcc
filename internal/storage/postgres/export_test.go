package postgres

import (
	"context"

	"github.com/sidecart/sidecart/internal/storage/sql"
)

// Sweep opens a store and lets it sweep once.
func Sweep(ctx context.Context, c sql.Config) error {
	d, err := openDriver(c)
	if err != nil {
		return err
	}
	d.Sweep(ctx)
	return d.Close()
}
