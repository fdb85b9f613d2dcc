package sql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// errUnknown is below the error of a call that went away while its transaction
// was being made: it happened or not.
var errUnknown = errors.New("outcome unknown")

// request is a piece of work for the writer.
type request struct {
	ctx  context.Context
	work func(w *writer) error
	// done is closed when err is set.
	done chan struct{}
	err  error
	// state decides who is first: the writer that starts on the work, or the caller that
	// goes away. So a caller that gave up knows that nothing was done.
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

// write hands work to the writer and waits for it to be durable.
func (e *sqlite) write(ctx context.Context, work func(w *writer) error) error {
	if err := e.open(ctx); err != nil {
		return err
	}
	r := &request{ctx: ctx, work: work, done: make(chan struct{})}
	select {
	case e.requests <- r:
	case <-ctx.Done():
		return ended(ctx, nil)
	case <-e.closing:
		return storage.ErrClosed
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		if r.state.CompareAndSwap(waiting, abandoned) {
			return ended(ctx, nil)
		}
		return ended(ctx, errUnknown)
	}
}

func (e *sqlite) update(ctx context.Context, keys []cart.Key, change func(rows []*record) error) error {
	return e.write(ctx, func(w *writer) error {
		rows := make([]*record, len(keys))
		for i, key := range keys {
			r, err := w.row(key, false)
			if err != nil {
				return err
			}
			rows[i] = r
		}
		if err := change(rows); err != nil {
			return err
		}
		for _, r := range rows {
			if r.save {
				if err := w.giveFences(&r.state); err != nil {
					return err
				}
				if err := w.store(r); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (e *sqlite) flush(ctx context.Context) error {
	for {
		var deleted int64
		err := e.write(ctx, func(w *writer) error {
			err := w.exec(flush, w.prefix)
			deleted = w.Changes()
			return err
		})
		if err != nil || deleted == 0 {
			return err
		}
	}
}

func (e *sqlite) beat(ctx context.Context) error {
	return e.write(ctx, func(*writer) error { return nil })
}

// writer makes the transactions, for one goroutine. What waits when it has the
// write lock goes into one transaction, and so shares one sync of the disk, which is nearly all that
// a commit costs.
type writer struct {
	*connection
	engine *sqlite

	purged  time.Time // when expired rows were last deleted
	rested  time.Time // when other processes last had a chance
	foreign time.Time // when another process was last seen to write
	version int64     // SQLite's data_version: others' commits raise it
}

// A transaction takes at most so many requests, and no more after so long: the write lock
// is held meanwhile, and others wait.
const (
	maxBatch     = 128
	maxBatchTime = 20 * time.Millisecond
)

func (w *writer) run() {
	defer close(w.engine.written)
	defer func() { _ = w.close() }()
	for {
		idle := time.Now()
		select {
		case <-w.engine.closing:
			return
		case r := <-w.engine.requests:
			if now := time.Now(); now.Sub(idle) > rest {
				w.rested = now
			}
			w.batch(r)
		}
	}
}

// batch makes one transaction of first and of what else is waiting.
func (w *writer) batch(first *request) {
	if err := w.begin(first.ctx); err != nil {
		first.answer(err)
		return
	}
	var (
		taken []*request
		fatal error
		begun = time.Now()
	)
	for r := first; r != nil && fatal == nil; {
		if r.state.CompareAndSwap(waiting, started) {
			taken = append(taken, r)
			if r.err = r.work(w); isSQLite(r.err) {
				fatal = r.err
			}
		}
		r = nil
		if len(taken) < maxBatch && time.Since(begun) < maxBatchTime {
			select {
			case r = <-w.engine.requests:
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
	w.yield()
}

// begin takes the write lock of the file. It waits for other processes as long as
// ctx allows.
func (w *writer) begin(ctx context.Context) error {
	w.SetInterrupt(ctx)
	err := w.exec(begin)
	w.SetInterrupt(context.Background())
	if err != nil {
		if w.engine.open(context.Background()) != nil {
			return storage.ErrClosed
		}
		return translate(ctx, err)
	}
	if err := w.engine.unmoved(); err != nil {
		return errors.Join(err, w.rollback())
	}
	return w.watch()
}

// watch notes whether somebody else wrote to the file since the last transaction.
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

// rest is how long the write lock is left to others at the shortest.
const rest = time.Millisecond

// yield leaves the write lock to other processes. They poll for it every
// millisecond or so, and would hardly ever meet the moment between two
// transactions of a busy writer. Where nobody was seen to write lately, a short rest now
// and then finds out whether somebody wants to.
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
	case <-w.engine.closing:
	}
	w.rested = time.Now()
}

func isSQLite(err error) bool {
	var code sqlite3.ErrorCode
	return errors.As(err, &code)
}
