package sqlite

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// Config says which file to open.
type Config struct {
	// URL names the file: "sqlite:" and its path. The file is made if it is not there.
	URL string
	// SecretURL, if set, is the URL from a secret file, and URL is ignored. Errors then show that file's name in place
	// of the database's.
	SecretURL storage.Secret
	// Prefix keeps the carts of several stores in one file apart.
	Prefix string
	// Dial bounds Open. Read and Write bound how long SQLite may take for one read or write, including the wait for
	// other processes. The wait behind other calls of this process does not count. 0 means no bound but the context.
	Dial, Read, Write time.Duration
}

// Open opens the file and brings its schema up to date. A schema that is newer than this program is refused.
func Open(ctx context.Context, c Config) (*cell.Store, error) {
	d, err := openDriver(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return cell.New(d), nil
}

func openDriver(ctx context.Context, c Config) (*driver, error) {
	d := &driver{prefix: c.Prefix, connections: connections{
		secret: c.SecretURL != (storage.Secret{}), closing: make(chan struct{}),
		read: c.Read, write: c.Write, born: time.Now(),
		readers:  make(chan *connection, min(8, max(2, runtime.GOMAXPROCS(0)))),
		requests: make(chan *request),
		written:  make(chan struct{}),
	}}
	d.Finder = sql.NewFinder(c.Prefix, &statements, func(text string) any { return text }, d.lendReader, d.lendWriter)
	ctx, cancel := sql.Bounded(ctx, c.Dial)
	defer cancel()
	url := cmp.Or(c.SecretURL.Reveal(), c.URL)
	scheme, path, found := strings.Cut(url, ":")
	var err error
	if found && strings.EqualFold(scheme, "sqlite") {
		err = d.open(ctx, path, c.SecretURL.String())
	} else { // the URL may hold a password: say no more of it than the scheme
		switch {
		case d.secret:
			scheme = c.SecretURL.String()
		case !found:
			scheme = ""
		}
		err = fmt.Errorf("%w: database URL of scheme %q: write sqlite:PATH", storage.ErrUnsupported, scheme)
	}
	if err != nil && d.secret {
		err = fmt.Errorf("%s: %w", c.SecretURL, storage.WithoutPath(err))
	}
	return d, err
}

// open opens the file at path. If name is not "", the path is a secret, and errors show name instead.
func (d *driver) open(ctx context.Context, path, name string) (err error) {
	if d.path, err = databasePath(path, name); err != nil {
		return err
	}
	d.name = cmp.Or(name, d.path)
	if err := createFile(d.path); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	if d.file, err = os.Stat(d.path); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	main, err := d.connectAll(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", d.name, translate(ctx, err))
	}
	d.protect()
	go (&writer{connection: main, driver: d}).run()
	return nil
}

// connectAll makes the connections, that of the writer and those of the readers, and migrates in between.
func (d *driver) connectAll(ctx context.Context) (_ *connection, err error) {
	main, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = main.close()
			_ = d.closeReaders(len(d.readers))
		}
	}()
	if err := main.migrate(ctx); err != nil {
		return nil, err
	}
	if err := main.prepare(writing); err != nil {
		return nil, err
	}
	for range cap(d.readers) {
		c, err := d.connect(ctx)
		if err != nil {
			return nil, err
		}
		d.readers <- c
		if err := c.prepare(reading); err != nil {
			return nil, err
		}
	}
	return main, nil
}

// Close implements [cell.Driver].
func (d *driver) Close() error {
	close(d.closing)
	<-d.written
	return d.told(d.closeReaders(cap(d.readers)))
}
