package mysql

import (
	"context"
	sqldriver "database/sql/driver"
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

func TestClassify(t *testing.T) {
	of := func(number uint16) error {
		return fmt.Errorf("query: %w", &driverlib.MySQLError{Number: number, Message: "words"})
	}
	connecting := func(err error) error { return &connectError{err} }
	for _, tc := range []struct {
		class  sql.Class
		words  string
		causes []error
	}{
		{sql.Unreached, "", []error{errors.New("other"), context.DeadlineExceeded, connecting(driverlib.ErrInvalidConn)}},
		{sql.Unreached, connecting(driverlib.ErrNoTLS).Error(), []error{connecting(driverlib.ErrNoTLS)}},
		{sql.Lost, "", []error{driverlib.ErrInvalidConn, sqldriver.ErrBadConn}},
		{sql.Late, "error 1205", []error{of(1205)}},
		{sql.Late, "error 3024", []error{of(3024)}},
		{sql.Again, "error 1213", []error{of(1213)}},
		{sql.Again, "error 1927", []error{of(1927)}},
		{sql.TooLarge, "", []error{driverlib.ErrPktTooLarge}},
		{sql.TooLarge, "error 1406", []error{of(1406)}},
		{sql.NoTable, "words", []error{of(1146)}},
		{sql.Denied, "words", []error{of(1044), of(1142)}},
		{sql.Refused, "words", []error{of(1045), of(1290), connecting(of(1040))}},
		{sql.Refused, "error 1064", []error{of(1064)}}, // it would quote the statement
	} {
		for _, cause := range tc.causes {
			if class, words := (&driver{}).Classify(cause); class != tc.class || words != tc.words {
				t.Errorf("%v: class %d, want %d; words %q, want %q", cause, class, tc.class, words, tc.words)
			}
		}
	}
}
