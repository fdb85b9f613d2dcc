package sql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// sqlite is the engine over one file: one connection writes, for all
// goroutines of the process, and a few read.
type sqlite struct {
	prefix  string
	path    string
	name    string      // of the file in errors
	file    os.FileInfo // as it was opened
	closing chan struct{}

	readers  chan *connection // those that are free
	requests chan *request
	written  chan struct{} // closed when the writer has ended
}

// openSQLite opens the file at path. Where name is not "", errors show it in place of the path,
// which is a secret then; see [pathless] for those of the operating system.
func openSQLite(ctx context.Context, path, name, prefix string) (_ engine, err error) {
	if path, err = databasePath(path, name); err != nil {
		return nil, err
	}
	name = cmp.Or(name, path)
	if err := createFile(path); err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	e := &sqlite{
		prefix: prefix, path: path, name: name, closing: make(chan struct{}),
		readers:  make(chan *connection, min(8, max(2, runtime.GOMAXPROCS(0)))),
		requests: make(chan *request),
		written:  make(chan struct{}),
	}
	if e.file, err = os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	main, err := e.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, translate(ctx, err))
	}
	defer func() {
		if err != nil {
			_ = main.close()
			_ = e.closeReaders(len(e.readers))
		}
	}()
	if err := main.migrate(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", name, translate(ctx, err))
	}
	if err := main.prepare(writing); err != nil {
		return nil, fmt.Errorf("%s: %w", name, translate(ctx, err))
	}
	for range cap(e.readers) {
		c, err := e.connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, translate(ctx, err))
		}
		e.readers <- c
		if err := c.prepare(reading); err != nil {
			return nil, fmt.Errorf("%s: %w", name, translate(ctx, err))
		}
	}
	e.protect()
	go (&writer{connection: main, engine: e}).run()
	return e, nil
}

// databasePath checks what stands behind "sqlite:" in the URL. Where name is not "", it
// stands for the URL in errors.
func databasePath(path, name string) (string, error) {
	const problem = "%w: database URL %q: %s: write sqlite:PATH, such as sqlite:/var/lib/sidecart/carts.db"
	switch {
	case path == "":
		return "", fmt.Errorf(problem, storage.ErrUnsupported, cmp.Or(name, "sqlite:"), "the path is missing")
	case strings.HasPrefix(path, ":"):
		return "", fmt.Errorf(problem, storage.ErrUnsupported, cmp.Or(name, "sqlite:"+path), "a database in memory keeps no carts (the Memory backend does that)")
	case strings.HasPrefix(path, "file:"):
		return "", fmt.Errorf(problem, storage.ErrUnsupported, cmp.Or(name, "sqlite:"+path), "a URI is no path")
	case strings.Contains(path, "?"):
		return "", fmt.Errorf(problem, storage.ErrUnsupported, cmp.Or(name, "sqlite:"+path), "it contains ?: options are not taken, and the name of the file cannot have one")
	}
	// The process may change its folder later.
	return filepath.Abs(path)
}

// createFile makes the file where it is not there, readable by its owner
// only, and makes sure that its name survives a crash.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil && runtime.GOOS != "windows" {
		return err
	}
	return nil
}

// protect gives the files beside the database its own mode, since SQLite here
// makes them by the umask alone. Where they belong to somebody else it is their business.
func (e *sqlite) protect() {
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Chmod(e.path+suffix, e.file.Mode().Perm())
	}
}

// unmoved fails if the path does not lead to the open file any more: what is
// written to a deleted file is lost.
func (e *sqlite) unmoved() error {
	now, err := os.Stat(e.path)
	if err == nil && !os.SameFile(now, e.file) {
		err = errors.New("the file is not the one that was opened")
	}
	if err != nil {
		refusal := &storage.Refusal{Words: "the file of the database was moved, replaced or deleted"}
		return fmt.Errorf("%w: %w: %s: %w", storage.ErrUnavailable, refusal, e.name, err)
	}
	return nil
}

// connect opens one connection.
func (e *sqlite) connect(ctx context.Context) (_ *connection, err error) {
	conn, err := sqlite3.OpenFlags(e.path, sqlite3.OPEN_READWRITE)
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
	if err := conn.BusyHandler(e.busy); err != nil {
		return nil, err
	}
	// Turning WAL on fails at once, whatever the busy handler says, while another process does the same.
	for n := 0; ; n++ {
		if err = conn.Exec(`PRAGMA journal_mode = WAL`); !errors.Is(err, sqlite3.BUSY) || !e.busy(ctx, n) {
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
	return &connection{Conn: conn, prefix: e.prefix}, nil
}

// busy waits for other processes, as long as ctx allows. SQLite's own handler
// sleeps up to 100 ms at a time, which is many commits.
func (e *sqlite) busy(ctx context.Context, _ int) bool {
	timer := time.NewTimer(time.Millisecond/2 + rand.N(time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-e.closing:
	}
	return false
}

// reader lends a connection to f.
func (e *sqlite) reader(ctx context.Context, f func(c *connection) error) error {
	if err := e.open(ctx); err != nil {
		return err
	}
	var c *connection
	select {
	case c = <-e.readers:
	case <-ctx.Done():
		return ended(ctx, nil)
	case <-e.closing:
		return storage.ErrClosed
	}
	defer func() { e.readers <- c }()
	c.SetInterrupt(ctx)
	err := f(c)
	if err != nil && e.open(context.Background()) != nil {
		return storage.ErrClosed
	}
	return translate(ctx, err)
}

// open fails where the engine is closed or ctx has ended.
func (e *sqlite) open(ctx context.Context) error {
	select {
	case <-e.closing:
		return storage.ErrClosed
	default:
	}
	if ctx.Err() != nil {
		return ended(ctx, nil)
	}
	return nil
}

func (e *sqlite) read(ctx context.Context, key cart.Key, documents bool) (r *record, err error) {
	err = e.reader(ctx, func(c *connection) error {
		r, err = c.row(key, documents)
		return err
	})
	return r, err
}

func (e *sqlite) instances(ctx context.Context, identifier string, now time.Time) (instances []string, err error) {
	err = e.reader(ctx, func(c *connection) error {
		instances, err = c.instances(identifier, now)
		return err
	})
	return instances, err
}

func (e *sqlite) close() error {
	close(e.closing)
	<-e.written
	return e.closeReaders(cap(e.readers))
}

// closeReaders waits for n readers to come back and closes them.
func (e *sqlite) closeReaders(n int) (err error) {
	for range n {
		err = errors.Join(err, (<-e.readers).close())
	}
	return err
}

// words are SQLite's own. It knows a full disk by what the driver tells of a failed write, and the driver tells nothing.
func words(code sqlite3.ErrorCode, err error) string {
	var extended sqlite3.ExtendedErrorCode
	if errors.As(err, &extended) {
		switch extended {
		case sqlite3.IOERR_WRITE, sqlite3.IOERR_FSYNC, sqlite3.IOERR_TRUNCATE, sqlite3.IOERR_SHMSIZE:
			return code.Error() + ": a write failed, as it does on a full disk"
		}
	}
	return code.Error()
}

// translate turns SQLite's errors into those of package storage.
func translate(ctx context.Context, err error) error {
	var code sqlite3.ErrorCode
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &code):
		return err
	case ctx.Err() != nil:
		return ended(ctx, err)
	case code == sqlite3.TOOBIG:
		return fmt.Errorf("%w: %w", storage.ErrTooLarge, err)
	case code == sqlite3.CORRUPT || code == sqlite3.NOTADB:
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	case code == sqlite3.BUSY || code == sqlite3.LOCKED || code == sqlite3.INTERRUPT: // no answer in time
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	default: // full, read-only, gone, or broken otherwise
		return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, &storage.Refusal{Words: words(code, err)}, err)
	}
}
