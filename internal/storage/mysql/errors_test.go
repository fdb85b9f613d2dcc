package mysql

import (
	"errors"
	"fmt"
	"testing"

	driverlib "github.com/go-sql-driver/mysql"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// Whatever ended a commit that may have been made, it is not made again, and the error says that nobody knows. Before
// the commit was sent, the same ends a try that may be repeated.
func TestUnknownOutcomesAreNotTriedAgain(t *testing.T) {
	d, err := openDriver(sql.Config{URL: "mysql://127.0.0.1:1/shop", Prefix: "cart"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	for name, cause := range map[string]error{
		"connection lost":   driverlib.ErrInvalidConn,
		"server shuts down": &driverlib.MySQLError{Number: 1053},
		"connection killed": &driverlib.MySQLError{Number: 1927},
	} {
		if err := d.Translate(t.Context(), t.Context(), cause); !errors.Is(err, sql.ErrAgain) || !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s, before the commit: %v", name, err)
		}
		unknown := d.Translate(t.Context(), t.Context(), fmt.Errorf("%w: %w", cause, cell.ErrOutcomeUnknown))
		if errors.Is(unknown, sql.ErrAgain) || !errors.Is(unknown, cell.ErrOutcomeUnknown) || !errors.Is(unknown, storage.ErrUnavailable) {
			t.Errorf("%s, in the commit: %v", name, unknown)
		}
	}
}
