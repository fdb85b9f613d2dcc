package sqlite

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
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

var (
	_ cell.Driver       = (*driver)(nil)
	_ cell.Pairer       = (*driver)(nil)
	_ cell.Lister       = (*driver)(nil)
	_ cell.Counter      = (*driver)(nil)
	_ cell.Walker       = (*driver)(nil)
	_ cell.FenceCounter = (*driver)(nil)
	_ cell.Flusher      = (*driver)(nil)
	_ cell.Prober       = (*driver)(nil)
	_ cell.OutsideHeap  = (*driver)(nil)
	_ storage.Beater    = (*driver)(nil)
	_ storage.Advisor   = (*driver)(nil)
)

// driver is a [cell.Driver] over one file. One connection writes for all goroutines of the process, and a few read.
type driver struct {
	prefix      string
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

// Open opens the file and brings its schema up to date. A schema that is newer than this program is refused.
func Open(ctx context.Context, c Config) (*cell.Store, error) {
	d, err := openDriver(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return cell.New(d), nil
}

// Load implements [cell.Driver].
func (d *driver) Load(ctx context.Context, key cart.Key, documents bool) (r cell.Record, now time.Time, err error) {
	err = d.reader(ctx, func(c *connection) error {
		r, err = c.load(key, documents)
		return err
	})
	return r, time.Now(), err
}

// Update implements [cell.Driver].
func (d *driver) Update(ctx context.Context, keys []cart.Key, change cell.Change) error {
	return d.writer(ctx, func(w *writer) error {
		records := make([]*cell.Record, len(keys))
		for i, key := range keys {
			r, err := w.load(key, false)
			if err != nil {
				return err
			}
			r.Documents = func(into *cart.Cart) error { return w.documents(key, into) }
			r.NextFence = w.nextFence
			records[i] = &r
		}
		if err := change(time.Now(), records); err != nil {
			return err
		}
		for i, key := range keys {
			if records[i].Save {
				if err := w.store(key, records[i]); err != nil {
					return err
				}
				w.bytes += len(records[i].Items) + len(records[i].Conditions)
			}
		}
		return nil
	})
}

// Pairs implements [cell.Pairer]: a transaction takes any rows.
func (d *driver) Pairs(_, _ cart.Key) bool { return true }

// Instances implements [cell.Lister].
func (d *driver) Instances(ctx context.Context, identifier string) (instances []string, err error) {
	err = d.reader(ctx, func(c *connection) error {
		return c.query(queryInstances, func(stmt *sqlite3.Stmt) error {
			instances = append(instances, stmt.ColumnText(0))
			return nil
		}, c.prefix, identifier, time.Now())
	})
	return instances, err
}

// Count implements [cell.Counter].
func (d *driver) Count(ctx context.Context, most int) (n int, err error) {
	err = d.reader(ctx, func(c *connection) error {
		return c.query(queryCount, func(stmt *sqlite3.Stmt) error {
			n = stmt.ColumnInt(0)
			return nil
		}, c.prefix, time.Now(), uint64(most))
	})
	return n, err
}

// Flush implements [cell.Flusher]. It deletes in steps, so that others get their turn, and takes as long as ctx allows.
func (d *driver) Flush(ctx context.Context) error {
	for {
		var deleted int64
		err := d.writer(ctx, func(w *writer) error {
			err := w.exec(flush, w.prefix)
			deleted = w.Changes()
			return err
		})
		if err != nil || deleted == 0 {
			return err
		}
	}
}

// Beat implements [storage.Beater]. It begins a transaction, which takes the write lock.
func (d *driver) Beat(ctx context.Context) error {
	return d.writer(ctx, func(*writer) error { return nil })
}

// Advice implements [storage.Advisor].
func (d *driver) Advice(context.Context) ([]storage.Advice, error) {
	return []storage.Advice{{
		Code: storage.AdviceOneMachine,
		Message: "A SQLite file is shared by the processes of one machine only: a pod elsewhere has carts of its own. " +
			"Run one pod, or use a backend that pods share.",
	}}, nil
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

// Capabilities implements [cell.Driver]. Shared is among the processes of one machine.
func (d *driver) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "Database", Shared: true, Durable: true}
}

// Close implements [cell.Driver].
func (d *driver) Close() error {
	close(d.closing)
	<-d.written
	return d.told(d.closeReaders(cap(d.readers)))
}
