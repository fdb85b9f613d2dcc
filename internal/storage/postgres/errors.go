package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// Translate implements [sql.Dialect].
func (d *driver) Translate(ctx, bounded context.Context, err error) error {
	var (
		server *pgconn.PgError
		hidden = storage.Hide(err, d.secrets...)
	)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, storage.ErrUnavailable), errors.Is(err, storage.ErrCorrupt), errors.Is(err, storage.ErrClosed):
		return err
	case ctx.Err() != nil && !d.Life.Over():
		return sql.Ended(ctx, hidden)
	case errors.As(err, &server):
		return d.refusal(server, err)
	case d.Life.Over():
		return fmt.Errorf("%w: %w", storage.ErrClosed, hidden)
	case bounded.Err() != nil, pgconn.Timeout(err), isConnect(err), errors.Is(err, cell.ErrOutcomeUnknown), !isLost(err):
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, hidden)
	default: // the connection was lost, and with it everything uncommitted
		return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, sql.ErrAgain, hidden)
	}
}

// refusal translates what the server says.
func (d *driver) refusal(server *pgconn.PgError, err error) error {
	unknown, hidden := errors.Is(err, cell.ErrOutcomeUnknown), storage.Hide(err, d.secrets...)
	switch code := server.Code; {
	case code == "57014", code == "55P03", unknown: // no answer in time
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, hidden)
	case again(code):
		return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, sql.ErrAgain, hidden)
	case code == "54000": // a limit of the program
		return fmt.Errorf("%w: %w", storage.ErrTooLarge, hidden)
	case code == "XX001", code == "XX002": // damaged data, damaged index
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, hidden)
	case code == "42P01": // somebody removed the table
		d.Schema.Again()
	}
	words := storage.HideIn(server.Message, d.secrets...)
	return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, &storage.Refusal{Words: words}, hidden)
}

// again reports whether a transaction that met this error has changed nothing, and may be repeated: serialization
// failures and deadlocks, and the end of the connection or the server.
func again(code string) bool {
	switch code {
	case "57P01", "57P02", "57P05", "25P03", "25P04":
		return true
	}
	return strings.HasPrefix(code, "40")
}

// refused reports whether err proves that a transaction was not committed although its commit was sent. An error that
// ends the connection proves nothing: it may have come after the commit.
func refused(err error) bool {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return server.SeverityUnlocalized == "ERROR" || server.Severity == "ERROR" || server.Code == "25P03"
	}
	return pgconn.SafeToRetry(err)
}

// isLost reports whether the connection ended.
func isLost(err error) bool {
	network, _ := errors.AsType[net.Error](err)
	return network != nil || pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// isConnect reports whether no connection could be made.
func isConnect(err error) bool {
	var connect *pgconn.ConnectError
	return errors.As(err, &connect)
}
