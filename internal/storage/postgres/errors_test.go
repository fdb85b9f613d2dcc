package postgres

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// Whatever ended a commit that may have been made, it is not made again, and the error says that nobody knows. Before
// the commit was sent, the same ends a try that may be repeated.
func TestUnknownOutcomesAreNotTriedAgain(t *testing.T) {
	d, err := openDriver(sql.Config{URL: "postgres://127.0.0.1:1/shop", Prefix: "cart"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	for name, cause := range map[string]error{
		"connection lost":       io.ErrUnexpectedEOF,
		"server shuts down":     &pgconn.PgError{Severity: "FATAL", Code: "57P01"},
		"serialization failure": &pgconn.PgError{Severity: "FATAL", Code: "40001"},
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
	of := func(code string) error { return fmt.Errorf("query: %w", &pgconn.PgError{Code: code, Message: "words"}) }
	for class, causes := range map[sql.Class][]error{
		sql.Unreached: {errors.New("other"), fmt.Errorf("%w: %w", &pgconn.ConnectError{}, io.EOF)},
		sql.Lost:      {io.EOF, io.ErrUnexpectedEOF, &net.OpError{Op: "read", Err: syscall.ECONNRESET}},
		sql.Late:      {of("57014"), of("55P03")},
		sql.Again:     {of("40001"), of("40P01"), of("57P01"), of("57P02"), of("57P05"), of("25P03"), of("25P04")},
		sql.TooLarge:  {of("54000")},
		sql.Corrupt:   {of("XX001"), of("XX002")},
		sql.NoTable:   {of("42P01")},
		sql.Denied:    {of("42501")},
		sql.Refused:   {of("53100"), of("25006")},
	} {
		for _, cause := range causes {
			want := ""
			if class > sql.Lost {
				want = "words"
			}
			if got, words := (&driver{}).Classify(cause); got != class || words != want {
				t.Errorf("%v: class %d, want %d; words %q, want %q", cause, got, class, words, want)
			}
		}
	}
}
