package sql

import (
	"context"
	"errors"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

var (
	_ cell.FenceCounter = (*Server)(nil)
	_ cell.Prover       = (*Server)(nil)
	_ storage.Auditor   = (*Server)(nil)
)

// Server is a [cell.Driver] over a database server, but for Close, which belongs to the pool of connections that the
// dialect has. A driver embeds it, and is its [Dialect].
type Server struct {
	Config
	Finder
	// Life is how long the store is open.
	Life *Life
	// Schema brings the schema up to date.
	Schema storage.Once

	dialect Dialect
}

// NewServer makes a server that has no life of its own yet: see [Server.Start].
func NewServer(c Config, d Dialect, s *Statements) *Server {
	server := &Server{Config: c, Life: NewLife(), dialect: d}
	server.Finder = NewFinder(c.Prefix, s, d.Bind, server.lend(c.Read), server.lend(c.Write))
	return server
}

// Start begins what a store does by itself.
func (s *Server) Start() {
	go s.Life.Every(SweepInterval, s.Sweep)
	if s.Audits() {
		go s.Life.Every(SweepInterval, s.SweepAudit)
	}
}

// Statements are those that dialects spell differently and give the same arguments. A cart's name is three arguments:
// the prefix, the identifier and the instance. Those with [Columns] give a row of NULLs where there is none, and the
// server's time in microseconds in front of it.
type Statements struct {
	// Row has Columns and Whole the documents behind them; Documents has only these. All are of one name.
	Row, Whole, Documents string
	// Instances are those of a prefix and an identifier.
	Instances string
	// Count counts the carts of a prefix up to a number.
	Count string
	// Page lists names of a prefix behind another name: its identifier, the same again, and its instance; up to a
	// number.
	Page string
	// Flush deletes some rows of a prefix, and Sweep rows that have ended, up to a number.
	Flush, Sweep string
	// RaiseFence lets the counter go on behind a fence.
	RaiseFence string
	// Time is the server's, in microseconds.
	Time string
	// Prove changes nothing, and fails where a right is missing that a change needs and a turn does not; "" for none.
	Prove string
}

// Conn is a connection that one caller has for itself.
type Conn interface {
	Querier
	// Rollback ends the transaction that the connection is in. Where that fails, the connection is used no more.
	Rollback(ctx context.Context)
	// Release gives it back to the pool.
	Release()
}

// Dialect is what a driver adds to a [Server]. The contexts have the bound of the call in them, and the errors are
// those of the library that talks to the server, unless it says otherwise.
type Dialect interface {
	// Connect takes a connection from the pool.
	Connect(ctx context.Context) (Conn, error)
	// Migrate brings the schema up to date by [Migrate]. Of several that start at once, one does it and the others
	// wait. An error of it matches those of package storage already.
	Migrate(ctx context.Context, conn Conn) error
	// Bind is a text as an argument of a statement.
	Bind(text string) any
	// Lock begins a transaction, locks the rows of keys one after the other, and reads them without their documents, in
	// one round trip. The time, in microseconds, is that of the server when it has the locks. A row that is not there
	// cannot be locked: Commit finds out whether somebody else was quicker to insert it.
	Lock(ctx context.Context, conn Conn, keys []cart.Key, rows []Scan) (us int64, err error)
	// NextFence draws a fence from the counter of the database.
	NextFence(ctx context.Context, conn Conn) (uint64, error)
	// Commit makes the changes, in the order of the keys, writes the lines of the audit trail, and ends the
	// transaction. now is the time that Lock told. It is ErrQuicker where another transaction has inserted one of the
	// rows, and matches cell.ErrOutcomeUnknown where the commit may have been made.
	Commit(ctx context.Context, conn Conn, now time.Time, changes []Change, lines []Line) error
	// WriteLines adds lines to the audit trail.
	WriteLines(ctx context.Context, conn Conn, now time.Time, lines []Line) error
	// RemoveLines removes lines of the prefix that are older than retention, the oldest first and most at once, unless
	// somebody else does it just now. It is no transaction's part.
	RemoveLines(ctx context.Context, conn Conn, retention time.Duration, most int64) (int64, error)
	// Translate turns an error into one that matches those of package storage, and ErrAgain where nothing was changed
	// and a second try may well succeed. bounded is ctx with the bound of the call.
	Translate(ctx, bounded context.Context, err error) error
}

// acquire takes a connection to a database whose schema is up to date.
func (s *Server) acquire(ctx context.Context) (Conn, error) {
	if err := s.Schema.Do(ctx, s.migrate); err != nil {
		if errors.Is(err, ctx.Err()) && !errors.Is(err, storage.ErrUnavailable) { // while it waited for the check of another
			err = Ended(ctx, nil)
		}
		return nil, err
	}
	return s.connect(ctx)
}

func (s *Server) migrate(ctx context.Context) error {
	return Retry(ctx, func() error {
		conn, err := s.connect(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		return s.dialect.Migrate(ctx, conn)
	})
}

// connect takes a connection from the pool.
func (s *Server) connect(ctx context.Context) (conn Conn, err error) {
	if err := s.Life.Usable(ctx); err != nil {
		return nil, err
	}
	limit := time.Duration(0)
	if s.Dial > 0 && s.Write > 0 {
		limit = s.Dial + s.Write // of which the second is for those before it
	}
	err = s.bounded(ctx, limit, func(ctx context.Context) error {
		conn, err = s.dialect.Connect(ctx)
		return err
	})
	return conn, err
}

// bounded calls f within a limit, and translates its error.
func (s *Server) bounded(ctx context.Context, limit time.Duration, f func(ctx context.Context) error) error {
	bounded, cancel := Bounded(ctx, limit)
	defer cancel()
	return s.dialect.Translate(ctx, bounded, f(bounded))
}

// Call lends a connection to f, again where it is lost: f may be done twice. A limit of 0 leaves it to ctx how long f
// may take.
func (s *Server) Call(ctx context.Context, limit time.Duration, f func(ctx context.Context, conn Conn) error) error {
	if err := s.Life.Usable(ctx); err != nil {
		return err
	}
	ctx, cancel := s.Life.Context(ctx)
	defer cancel()
	return Retry(ctx, func() error {
		conn, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		return s.bounded(ctx, limit, func(ctx context.Context) error { return f(ctx, conn) })
	})
}

// lend is [Server.Call] with the bound limit.
func (s *Server) lend(limit time.Duration) Lend {
	return func(ctx context.Context, bounded bool, f func(ctx context.Context, q Querier) error) error {
		most := time.Duration(0)
		if bounded {
			most = limit
		}
		return s.Call(ctx, most, func(ctx context.Context, conn Conn) error { return f(ctx, conn) })
	}
}

// Name are the arguments that name a row.
func (s *Server) Name(key cart.Key) []any {
	return []any{s.dialect.Bind(s.Prefix), s.dialect.Bind(key.Identifier), s.dialect.Bind(key.Instance)}
}

// Load implements [cell.Driver].
func (s *Server) Load(ctx context.Context, key cart.Key, documents bool) (r cell.Record, now time.Time, err error) {
	statement := s.statements.Row
	if documents {
		statement = s.statements.Whole
	}
	err = s.Call(ctx, s.Read, func(ctx context.Context, conn Conn) error {
		var (
			row Scan
			us  int64
		)
		if err := get(ctx, conn, append([]any{&us}, row.Into(documents)...), statement, s.Name(key)...); err != nil {
			return err
		}
		now = time.UnixMicro(us).UTC()
		r, err = row.Record(documents)
		return err
	})
	return r, now, err
}

// LastFence implements [cell.FenceCounter]. It draws a fence, which no lease gets: to read the counter takes a right
// more, or cannot be done on every server.
func (s *Server) LastFence(ctx context.Context) (fence uint64, err error) {
	err = s.Call(ctx, s.Write, func(ctx context.Context, conn Conn) error {
		fence, err = s.dialect.NextFence(ctx, conn)
		return err
	})
	return fence, err
}

// Flush implements [cell.Flusher], and notes it in the audit trail.
func (s *Server) Flush(ctx context.Context) error {
	if err := s.auditFlush(ctx); err != nil {
		return err
	}
	return s.Finder.Flush(ctx)
}

// Sweep deletes rows that have ended, of all prefixes, since one that is used no more has nobody else to do it.
func (s *Server) Sweep(ctx context.Context) {
	Sweep(ctx, SweepBatch, func(ctx context.Context) (int64, error) {
		return s.change(ctx, true, s.statements.Sweep, int64(SweepBatch))
	})
}
