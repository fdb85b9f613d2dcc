package sql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

var (
	_ cell.FenceCounter = (*Server)(nil)
	_ cell.Prover       = (*Server)(nil)
	_ storage.Beater    = (*Server)(nil)
	_ storage.Auditor   = (*Server)(nil)
)

// Server is a [cell.Driver] over a database server, except for Close: that belongs to the dialect's pool of
// connections. A driver embeds it, and is its [Dialect].
type Server struct {
	Config
	Finder
	// Life is how long the store is open.
	Life *Life
	// Schema brings the schema up to date.
	Schema storage.Once
	// Hidden are the secrets that no error may show.
	Hidden []storage.Secret

	dialect Dialect
	rights  Rights
}

// NewServer makes a server whose background work has not begun: see [Server.Start].
func NewServer(c Config, d Dialect, s *Statements, r Rights) *Server {
	server := &Server{Config: c, Life: NewLife(), dialect: d, rights: r}
	server.Finder = NewFinder(c.Prefix, s, d.Bind, server.lend(c.Read), server.lend(c.Write))
	return server
}

// Start begins the store's background work.
func (s *Server) Start() {
	go s.Life.Every(SweepInterval, s.Sweep)
	if s.Audits() {
		go s.Life.Every(SweepInterval, s.SweepAudit)
	}
}

// Statements are the statements that dialects spell differently but give the same arguments. A cart's name is three
// arguments: the prefix, the identifier and the instance. Statements with [Columns] return a row of NULLs if there is
// none. The server's time in microseconds precedes the columns.
type Statements struct {
	// Row has Columns, Whole also has the documents after them, and Documents has only these. Each reads the row of one
	// name.
	Row, Whole, Documents string
	// Instances are those of a prefix and an identifier.
	Instances string
	// Count counts the carts of a prefix up to a number.
	Count string
	// Page lists names of a prefix that come after another name, up to a number. Its arguments for that name are the
	// identifier, the identifier again, and the instance.
	Page string
	// Flush deletes some rows of a prefix, and Sweep rows that have ended, up to a number.
	Flush, Sweep string
	// RaiseFence makes the counter continue after a fence.
	RaiseFence string
	// Time is the server's, in microseconds.
	Time string
	// ReadOnly reports whether the server takes no writes.
	ReadOnly string
	// Prove changes nothing. It fails if a right is missing that a change needs and a turn does not; "" for none.
	Prove string
}

// Conn is a connection that one caller has for itself.
type Conn interface {
	Querier
	// Rollback ends the transaction that the connection is in. If that fails, the connection is not used again.
	Rollback(ctx context.Context)
	// Release gives it back to the pool.
	Release()
}

// Dialect is what a driver adds to a [Server]. Contexts include the bound of the call. Errors are those of the library
// that talks to the server, unless a method says otherwise.
type Dialect interface {
	// Connect takes a connection from the pool.
	Connect(ctx context.Context) (Conn, error)
	// Migrate brings the schema up to date by [Migrate]. If several start at once, one does it and the others wait.
	Migrate(ctx context.Context, conn Conn) error
	// Bind turns a text into an argument of a statement.
	Bind(text string) any
	// Lock begins a transaction, locks the rows of keys one after the other, and reads them without their documents, in
	// one round trip. The time, in microseconds, is that of the server when it has the locks. A missing row cannot be
	// locked: Commit finds out whether somebody else inserted it first.
	Lock(ctx context.Context, conn Conn, keys []cart.Key, rows []Scan) (us int64, err error)
	// NextFence draws a fence from the counter of the database.
	NextFence(ctx context.Context, conn Conn) (uint64, error)
	// Commit makes the changes, in the order of the keys, writes the lines of the audit trail, and ends the
	// transaction. now is the time that Lock returned. The error is ErrQuicker if another transaction has inserted one
	// of the rows. It matches cell.ErrOutcomeUnknown if the commit may have been made.
	Commit(ctx context.Context, conn Conn, now time.Time, changes []Change, lines []Line) error
	// WriteLines adds lines to the audit trail.
	WriteLines(ctx context.Context, conn Conn, now time.Time, lines []Line) error
	// RemoveLines removes lines of the prefix that are older than retention: the oldest first, and at most most. It
	// does nothing while somebody else does this. It must not run within a transaction.
	RemoveLines(ctx context.Context, conn Conn, retention time.Duration, most int64) (int64, error)
	// Classify says what an error means. words are the server's reason for a refusal; "" for an error that is none. err
	// is not nil.
	Classify(err error) (class Class, words string)
}

// acquire takes a connection to a database whose schema is up to date.
func (s *Server) acquire(ctx context.Context) (Conn, error) {
	if err := s.Schema.Do(ctx, s.migrate); err != nil {
		if errors.Is(err, ctx.Err()) && !errors.Is(err, storage.ErrUnavailable) { // ctx ended while another call's check was under way
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
		return s.ofMigration(ctx, s.dialect.Migrate(ctx, conn))
	})
}

// connect takes a connection from the pool.
func (s *Server) connect(ctx context.Context) (conn Conn, err error) {
	if err := s.Life.Usable(ctx); err != nil {
		return nil, err
	}
	limit := time.Duration(0)
	if s.Dial > 0 && s.Write > 0 {
		limit = s.Dial + s.Write // Write allows for the calls before this one
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
	return s.Translate(ctx, bounded, f(bounded))
}

// Call lends a connection to f. If the connection is lost, it calls f again with another. A limit of 0 leaves the time
// to ctx.
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

// Name returns the arguments that name a row.
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

// Beat implements [storage.Beater]: the server answers, and takes writes.
func (s *Server) Beat(ctx context.Context) error {
	var readOnly bool
	err := s.Get(ctx, s.statements.ReadOnly, &readOnly)
	if err == nil && readOnly {
		err = fmt.Errorf("%w: %w", storage.ErrUnavailable, &storage.Refusal{Words: "the server is read-only"})
	}
	return err
}

// Flush implements [cell.Flusher], and notes it in the audit trail.
func (s *Server) Flush(ctx context.Context) error {
	if err := s.auditFlush(ctx); err != nil {
		return err
	}
	return s.Finder.Flush(ctx)
}

// Sweep deletes rows that have ended, of all prefixes: nobody else would delete those of a prefix that is no longer
// used.
func (s *Server) Sweep(ctx context.Context) {
	Sweep(ctx, SweepBatch, func(ctx context.Context) (int64, error) {
		return s.change(ctx, true, s.statements.Sweep, int64(SweepBatch))
	})
}
