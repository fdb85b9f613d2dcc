package mysql

import (
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"slices"

	driverlib "github.com/go-sql-driver/mysql"

	"github.com/sidecart/sidecart/internal/storage/sql"
)

// Errors of the server by number.
const (
	errDuplicate = 1062
	errNoTable   = 1146
)

var (
	// again: the transaction has changed nothing, and may be repeated: a deadlock, the end of the connection or the
	// server.
	again = []uint16{1213, 1053, 1927, 4031}
	// late: no answer in time: a lock was waited for too long, a statement took too long.
	late = []uint16{1205, 1317, 1969, 3024}
	// large: what does not fit.
	large = []uint16{1118, 1153, 1301, 1406}
	// unsure: after such an answer the commit may have been made.
	unsure = []uint16{1053, 1105, 1180, 1196, 1317, 1927, 1969, 3024, 4031}
	// quotable are errors whose text quotes nothing of a statement but the names of tables, users and databases.
	quotable = []uint16{
		1021, 1040, 1041, 1044, 1045, 1047, 1049, 1114, 1129, 1130, 1142, 1143, 1146, 1203, 1206, 1226, 1227, 1290, 1665, 1698, 1792, 1836, 1932, 3098, 3100, 4151,
	}
)

// Classify implements [sql.Dialect].
func (d *driver) Classify(err error) (class sql.Class, words string) {
	server, isServer := errors.AsType[*driverlib.MySQLError](err)
	connect, isConnect := errors.AsType[*connectError](err)
	switch {
	case errors.Is(err, driverlib.ErrPktTooLarge):
		return sql.TooLarge, ""
	case isServer && slices.Contains(quotable, server.Number):
		return classOf(server.Number), server.Message
	case isServer:
		return classOf(server.Number), fmt.Sprintf("error %d", server.Number)
	case isConnect && isRefusal(connect):
		return sql.Unreached, err.Error()
	case !isConnect && isLost(err):
		return sql.Lost, ""
	}
	return sql.Unreached, ""
}

// classOf is the class of an error number of the server.
func classOf(number uint16) sql.Class {
	switch {
	case slices.Contains(late, number):
		return sql.Late
	case slices.Contains(again, number):
		return sql.Again
	case slices.Contains(large, number):
		return sql.TooLarge
	case number == errNoTable:
		return sql.NoTable
	case slices.Contains(denied, number):
		return sql.Denied
	}
	return sql.Refused
}

// refused reports whether err proves that a transaction was not committed although its commit was sent.
func refused(err error) bool {
	server, ok := errors.AsType[*driverlib.MySQLError](err)
	if ok {
		return !slices.Contains(unsure, server.Number)
	}
	return errors.Is(err, sqldriver.ErrBadConn) || errors.Is(err, driverlib.ErrPktTooLarge) // nothing was sent
}

// isLost reports whether the connection ended.
func isLost(err error) bool {
	return errors.Is(err, sqldriver.ErrBadConn) || errors.Is(err, driverlib.ErrInvalidConn)
}

// isRefusal reports whether the server answered an attempt to connect, and the driver rejected the answer.
func isRefusal(err error) bool {
	for _, refusal := range []error{
		driverlib.ErrNoTLS, driverlib.ErrCleartextPassword, driverlib.ErrNativePassword, driverlib.ErrOldPassword, driverlib.ErrUnknownPlugin,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}
