package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// connections are those of one file. One writes for all goroutines of the process, and a few read.
type connections struct {
	path        string
	name        string // of the file in errors
	secret      bool   // errors show no path
	file        os.FileInfo
	read, write time.Duration
	closing     chan struct{}

	readers  chan *connection // those that are free
	requests chan *request
	written  chan struct{} // closed when the writer has ended
	begun    atomic.Int64  // after how long since born the writer was last given the write lock
	born     time.Time
}

// The memory that a connection takes at most with carts of the default limits, measured. It is outside of Go's heap and
// is not given back. The writer binds whole documents and keeps the pages of a transaction. A reader has little more
// than its page cache of 2 MiB.
const (
	writerMemory = 12 << 20
	readerMemory = 5 << 20
)

// OutsideHeap implements [cell.OutsideHeap].
func (d *driver) OutsideHeap() int64 { return writerMemory + int64(cap(d.readers))*readerMemory }

// connection is one connection with its statements. It is for one goroutine at a time.
type connection struct {
	*sqlite3.Conn
	prefix     string
	statements map[string]*sqlite3.Stmt
}

// reader lends a connection to f.
func (d *driver) reader(ctx context.Context, f func(c *connection) error) error {
	return d.told(d.borrow(ctx, f))
}

func (d *driver) borrow(ctx context.Context, f func(c *connection) error) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	var c *connection
	select { // the wait for a free connection does not count against the bound of one read
	case c = <-d.readers:
	case <-ctx.Done():
		return sql.Ended(ctx, nil)
	case <-d.closing:
		return storage.ErrClosed
	}
	defer func() { d.readers <- c }()
	ctx, cancel := sql.Bounded(ctx, d.read)
	defer cancel()
	c.SetInterrupt(ctx)
	err := f(c)
	if err != nil && d.isClosed() {
		return storage.ErrClosed
	}
	return translate(ctx, err)
}

// lendReader is a [sql.Lend]. Each read is bounded, also one that need not be.
func (d *driver) lendReader(ctx context.Context, _ bool, f func(ctx context.Context, q sql.Querier) error) error {
	return d.reader(ctx, func(c *connection) error { return f(ctx, querier{c}) })
}

// lendWriter is a [sql.Lend]. Each transaction is bounded, also one that need not be.
func (d *driver) lendWriter(ctx context.Context, _ bool, f func(ctx context.Context, q sql.Querier) error) error {
	return d.writer(ctx, func(w *writer) error { return f(ctx, querier{w.connection}) })
}

// closeReaders waits for n readers to come back and closes them.
func (d *driver) closeReaders(n int) (err error) {
	for range n {
		err = errors.Join(err, (<-d.readers).close())
	}
	return err
}

// usable fails if the driver is closed or ctx has ended.
func (d *driver) usable(ctx context.Context) error {
	if d.isClosed() {
		return storage.ErrClosed
	}
	if ctx.Err() != nil {
		return sql.Ended(ctx, nil)
	}
	return nil
}

func (d *driver) isClosed() bool {
	select {
	case <-d.closing:
		return true
	default:
		return false
	}
}

// connect opens one connection.
func (d *driver) connect(ctx context.Context) (_ *connection, err error) {
	conn, err := sqlite3.OpenFlags(d.path, sqlite3.OPEN_READWRITE)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	conn.SetInterrupt(ctx)
	defer conn.SetInterrupt(context.Background())
	if err := conn.BusyHandler(d.busy); err != nil {
		return nil, err
	}
	// Turning WAL on fails at once, whatever the busy handler says, while another process does the same.
	for n := 0; ; n++ {
		if err = conn.Exec(`PRAGMA journal_mode = WAL`); !errors.Is(err, sqlite3.BUSY) || !d.busy(ctx, n) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	err = conn.Exec(`
		PRAGMA synchronous = FULL;
		PRAGMA journal_size_limit = 67108864;
		PRAGMA trusted_schema = OFF`)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, prefix: d.prefix}, nil
}

// busy waits for other processes, as long as ctx allows. SQLite's own handler sleeps up to 100 ms at a time, which is
// many commits.
func (d *driver) busy(ctx context.Context, _ int) bool {
	timer := time.NewTimer(time.Millisecond/2 + rand.N(time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-d.closing:
	}
	return false
}

func (c *connection) prepare(queries []string) error {
	c.statements = make(map[string]*sqlite3.Stmt, len(queries))
	for _, q := range queries {
		stmt, _, err := c.PrepareFlags(q, sqlite3.PREPARE_PERSISTENT)
		if err != nil {
			return err
		}
		c.statements[q] = stmt
	}
	return nil
}

func (c *connection) close() error {
	for _, stmt := range c.statements {
		_ = stmt.Close() // repeats the statement's last error
	}
	return c.Conn.Close()
}

// query binds args, calls row for each row, and ends the statement.
func (c *connection) query(q string, row func(stmt *sqlite3.Stmt) error, args ...any) (err error) {
	stmt := c.statements[q]
	for i, arg := range args {
		if err := bind(stmt, i+1, arg); err != nil {
			return err
		}
	}
	defer func() {
		if end := stmt.Reset(); err == nil {
			err = end
		}
	}()
	for stmt.Step() {
		if err := row(stmt); err != nil {
			return err
		}
	}
	return stmt.Err()
}

// exec is a query without rows.
func (c *connection) exec(q string, args ...any) error {
	return c.query(q, func(*sqlite3.Stmt) error { return nil }, args...)
}

// querier is a [sql.Querier] of statements that its connection has prepared.
type querier struct{ c *connection }

// Query implements [sql.Querier].
func (q querier) Query(_ context.Context, each func(scan func(into ...any) error) error, statement string, args ...any) error {
	return q.c.query(statement, func(stmt *sqlite3.Stmt) error {
		return each(func(into ...any) error {
			for i, v := range into {
				switch v := v.(type) {
				case *string:
					*v = stmt.ColumnText(i)
				case *int:
					*v = stmt.ColumnInt(i)
				case *uint64:
					*v = uint64(stmt.ColumnInt64(i))
				default:
					panic(fmt.Sprintf("scan into %T", v))
				}
			}
			return nil
		})
	}, args...)
}

// Exec implements [sql.Querier].
func (q querier) Exec(_ context.Context, statement string, args ...any) (int64, error) {
	err := q.c.exec(statement, args...)
	return q.c.Changes(), err
}

// bind knows the types that the queries use: nil is NULL, as is the zero time.
func bind(stmt *sqlite3.Stmt, param int, arg any) error {
	switch arg := arg.(type) {
	case nil:
		return stmt.BindNull(param)
	case string:
		return stmt.BindText(param, arg)
	case text:
		return stmt.BindRawText(param, arg)
	case []byte:
		return stmt.BindBlob(param, arg)
	case int64:
		return stmt.BindInt64(param, arg)
	case uint64:
		return stmt.BindInt64(param, int64(arg))
	case time.Time:
		if arg.IsZero() {
			return stmt.BindNull(param)
		}
		return stmt.BindInt64(param, arg.UnixMilli())
	}
	panic(fmt.Sprintf("bind %T", arg))
}

// text is JSON to be stored as text; nil is NULL.
type text []byte

func columnTime(stmt *sqlite3.Stmt, col int) time.Time {
	if stmt.ColumnType(col) == sqlite3.NULL {
		return time.Time{}
	}
	return time.UnixMilli(stmt.ColumnInt64(col)).UTC()
}

// columnBlob returns the bytes of a column; nil stands for NULL, and an empty blob is not nil.
func columnBlob(stmt *sqlite3.Stmt, col int) []byte {
	if stmt.ColumnType(col) == sqlite3.NULL {
		return nil
	}
	return append([]byte{}, stmt.ColumnRawBlob(col)...)
}

// largeRow is the size from which a row counts as large.
const largeRow = 256 << 10

// tidy drops the page cache after a large row of size bytes was read. Cached pages would lie between the buffers of
// large rows and leave no hole that is large enough for the next: a connection that has read a few dozen carts of 2 MiB
// would have 45 MiB.
func (c *connection) tidy(size int) {
	if size > largeRow {
		_ = c.Exec(`PRAGMA shrink_memory`) // an error is ignored, since this only saves memory
	}
}
