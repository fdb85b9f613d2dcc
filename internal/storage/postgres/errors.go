package postgres

import (
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sidecart/sidecart/internal/storage/sql"
)

// Classify implements [sql.Dialect].
func (d *driver) Classify(err error) (class sql.Class, words string) {
	server, isServer := errors.AsType[*pgconn.PgError](err)
	switch {
	case isServer:
		return classOf(server.Code), server.Message
	case !pgconn.Timeout(err) && !isConnect(err) && isLost(err):
		return sql.Lost, ""
	}
	return sql.Unreached, ""
}

// classOf is the class of an error code of the server.
func classOf(code string) sql.Class {
	switch code {
	case "57014", "55P03": // no answer in time
		return sql.Late
	case "57P01", "57P02", "57P05", "25P03", "25P04": // the end of the connection or the server
		return sql.Again
	case "54000": // a limit of the program
		return sql.TooLarge
	case "XX001", "XX002": // damaged data, damaged index
		return sql.Corrupt
	case "42P01":
		return sql.NoTable
	case "42501":
		return sql.Denied
	}
	if strings.HasPrefix(code, "40") { // serialization failures and deadlocks
		return sql.Again
	}
	return sql.Refused
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
