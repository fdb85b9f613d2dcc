package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// request is a piece of work for the writer.
type request struct {
	ctx   context.Context
	since time.Time // when it came
	work  func(w *writer) error
	// done is closed when err is set.
	done chan struct{}
	err  error
	// state decides which comes first: the writer starts on the work, or the caller gives up. So a caller that gave up
	// knows that nothing was done.
	state atomic.Int32
}

const (
	waiting int32 = iota
	started
	abandoned
)

func (r *request) answer(err error) {
	r.err = err
	close(r.done)
}

// writer hands work to the writer and waits for it to be durable.
func (d *driver) writer(ctx context.Context, work func(w *writer) error) error {
	return d.told(d.enqueue(ctx, &request{ctx: ctx, work: work, done: make(chan struct{})}))
}

func (d *driver) enqueue(ctx context.Context, r *request) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	r.since = time.Now()
	select {
	case d.requests <- r:
		return d.await(ctx, r)
	case <-ctx.Done():
		return sql.Ended(ctx, nil)
	case <-d.closing:
		return storage.ErrClosed
	}
}

// await waits for the answer to a request that the writer has taken. The earlier wait behind other requests does not
// count against the bound of one write.
func (d *driver) await(ctx context.Context, r *request) error {
	var late <-chan time.Time
	taken := time.Now()
	timer := time.NewTimer(d.write)
	defer timer.Stop()
	if d.write > 0 {
		late = timer.C
	}
	for {
		var err error
		select {
		case <-r.done:
			return r.err
		case <-ctx.Done():
			err = sql.Ended(ctx, nil)
		case <-late:
			if left := d.write - min(time.Since(taken), d.sinceBegun()); left > 0 {
				timer.Reset(left)
				continue
			}
			if err = fmt.Errorf("%w: no answer within %v", storage.ErrUnavailable, d.write); ctx.Err() != nil {
				err = sql.Ended(ctx, nil)
			}
		}
		if r.state.CompareAndSwap(waiting, abandoned) {
			return err
		}
		return fmt.Errorf("%w: %w", err, cell.ErrOutcomeUnknown)
	}
}

// sinceBegun is how long ago the writer was last given the write lock.
func (d *driver) sinceBegun() time.Duration {
	return time.Since(d.born) - time.Duration(d.begun.Load())
}

// writer makes the transactions. It is for one goroutine. All requests that wait when it gets the write lock go into
// one transaction. So they share one sync of the disk, which is nearly all that a commit costs.
type writer struct {
	*connection
	driver *driver

	purged  time.Time // when expired rows were last deleted
	rested  time.Time // when other processes last had a chance
	foreign time.Time // when another process was last seen to write
	version int64     // SQLite's data_version: others' commits raise it
	bytes   int       // text that was stored in this transaction
	pages   int       // how long the log was after the last transaction

	// standing is since when the writer has waited for the write lock without getting it, for any request. It is zero
	// if it does not wait.
	standing time.Time
}

// A transaction takes at most so many requests, and no more after so much time or text, since other processes wait for
// the write lock meanwhile. On a slow disk the text takes the time, when it is synced.
const (
	maxBatch      = 128
	maxBatchTime  = 20 * time.Millisecond
	maxBatchBytes = 2 << 20
)

func (w *writer) run() {
	defer close(w.driver.written)
	defer func() { _ = w.close() }()
	w.WALHook(func(_ *sqlite3.Conn, _ string, pages int) error { // replaces SQLite's own hook, which checkpoints within the commit
		w.pages = pages
		return nil
	})
	for {
		idle := time.Now()
		select {
		case <-w.driver.closing:
			return
		case r := <-w.driver.requests:
			if now := time.Now(); now.Sub(idle) > rest {
				w.rested = now
			}
			w.batch(r)
		}
	}
}

// batch makes one transaction of first and of the other requests that wait.
func (w *writer) batch(first *request) {
	if err := w.begin(first); err != nil {
		first.answer(err)
		return
	}
	var (
		taken []*request
		fatal error
		begun = time.Now()
	)
	w.bytes = 0
	for r := first; r != nil; {
		if r.state.CompareAndSwap(waiting, started) {
			taken = append(taken, r)
			if r.err = r.work(w); isSQLite(r.err) {
				fatal = r.err
			}
		}
		r = nil
		if fatal == nil && len(taken) < maxBatch && w.bytes < maxBatchBytes && time.Since(begun) < maxBatchTime {
			select {
			case r = <-w.driver.requests:
			default:
			}
		}
	}
	if fatal == nil && begun.Sub(w.purged) > time.Second {
		w.purged = begun
		fatal = w.exec(purge, begun)
	}
	if fatal == nil {
		fatal = w.exec(commit)
	}
	if fatal != nil {
		fatal = errors.Join(translate(context.Background(), fatal), w.rollback())
	}
	for _, r := range taken {
		if fatal != nil {
			r.err = fatal
		}
		r.answer(r.err)
	}
	w.checkpoint()
	w.yield()
}

// checkpoint moves the log into the database when it has grown long. It runs after the changes were answered: on a slow
// disk it takes longer than a change, and a change is safe without it.
func (w *writer) checkpoint() {
	const long = 1000 // pages, as SQLite has it by default
	if w.pages < long {
		return
	}
	w.pages = 0
	_, _, _ = w.WALCheckpoint("main", sqlite3.CHECKPOINT_PASSIVE) // the next one does what this one cannot
}

// begin takes the write lock of the file. It waits for other processes as long as first's context and the bound of one
// write allow. That bound counts from when the writer began to wait, so a request that has waited that long does not
// wait again.
func (w *writer) begin(first *request) error {
	if w.standing.IsZero() {
		w.standing = time.Now()
	}
	ctx, cancel := first.ctx, context.CancelFunc(func() {})
	if limit := w.driver.write; limit > 0 {
		since := w.standing
		if first.since.After(since) {
			since = first.since
		}
		ctx, cancel = context.WithDeadline(ctx, since.Add(limit))
	}
	defer cancel()
	w.SetInterrupt(ctx)
	err := w.exec(begin)
	w.SetInterrupt(context.Background())
	if err != nil {
		if w.driver.isClosed() {
			return storage.ErrClosed
		}
		return translate(ctx, err)
	}
	w.standing = time.Time{}
	w.driver.begun.Store(int64(time.Since(w.driver.born)))
	if err := w.driver.unmoved(); err != nil {
		return errors.Join(err, w.rollback())
	}
	return w.watch()
}

// watch notes whether another process wrote to the file since the last transaction.
func (w *writer) watch() error {
	var version int64
	err := w.query(dataVersion, func(stmt *sqlite3.Stmt) error {
		version = stmt.ColumnInt64(0)
		return nil
	})
	if err != nil {
		return errors.Join(translate(context.Background(), err), w.rollback())
	}
	if w.version != 0 && version != w.version {
		w.foreign = time.Now()
	}
	w.version = version
	return nil
}

// rollback ends a transaction that SQLite did not end by itself.
func (w *writer) rollback() error {
	if w.GetAutocommit() {
		return nil
	}
	if err := w.Exec(`ROLLBACK`); err != nil {
		return fmt.Errorf("rollback: %w", err)
	}
	return nil
}

// rest is the shortest time for which the write lock is left to others.
const rest = time.Millisecond

// yield leaves the write lock to other processes. They poll for it about every millisecond, and would hardly ever hit
// the gap between two transactions of a busy writer. If no other process has written lately, a short rest now and then
// is enough to find out whether one wants to.
func (w *writer) yield() {
	const (
		interval = 40 * time.Millisecond
		memory   = time.Second
	)
	now := time.Now()
	if now.Sub(w.foreign) > memory && now.Sub(w.rested) < interval {
		return
	}
	timer := time.NewTimer(rest + rand.N(rest))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.driver.closing:
	}
	w.rested = time.Now()
}
