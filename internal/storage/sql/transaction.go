package sql

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

// Change is one row to store. It is inserted if it was not Found, and deleted if the Record's State is empty.
type Change struct {
	Key    cart.Key
	Record *cell.Record
	Found  bool
}

// ErrQuicker is the error of a commit whose row another transaction had inserted. Nothing was stored.
var ErrQuicker = fmt.Errorf("%w: %w: another transaction made the cart", storage.ErrUnavailable, ErrAgain)

// rollbackLimit bounds the wait for a rollback if nothing else bounds a write.
const rollbackLimit = time.Second

// Update implements [cell.Driver]. Keys are locked in their order, so that no two updates wait for each other.
func (s *Server) Update(ctx context.Context, keys []cart.Key, change cell.Change) error {
	if err := s.Life.Usable(ctx); err != nil {
		return err
	}
	ctx, cancel := s.Life.Context(ctx)
	defer cancel()
	ordered, swapped := keys, false
	if len(keys) == 2 && less(keys[1], keys[0]) {
		ordered, swapped = []cart.Key{keys[1], keys[0]}, true
	}
	return Retry(ctx, func() error {
		return s.transact(ctx, ordered, func(now time.Time, records []*cell.Record) error {
			if swapped {
				records = []*cell.Record{records[1], records[0]}
			}
			return change(now, records)
		})
	})
}

func less(a, b cart.Key) bool {
	return a.Identifier < b.Identifier || a.Identifier == b.Identifier && a.Instance < b.Instance
}

// transact makes one try.
func (s *Server) transact(ctx context.Context, keys []cart.Key, change cell.Change) (err error) {
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	committed := false
	defer func() {
		if !committed {
			s.rollback(conn)
		}
		conn.Release()
	}()

	var now time.Time
	rows := make([]Scan, len(keys))
	if err := s.bounded(ctx, s.Write, func(ctx context.Context) error {
		us, err := s.dialect.Lock(ctx, conn, keys, rows)
		now = time.UnixMicro(us).UTC()
		return err
	}); err != nil {
		return err
	}
	records := make([]*cell.Record, len(rows))
	for i := range rows {
		if records[i], err = s.record(ctx, conn, keys[i], &rows[i]); err != nil {
			return err
		}
	}
	if err := change(now, records); err != nil {
		return err
	}
	changes := make([]Change, 0, len(records))
	for i, r := range records {
		if r.Save && (rows[i].Found() || !r.State.Empty()) {
			changes = append(changes, Change{keys[i], r, rows[i].Found()})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	err = s.bounded(ctx, s.Write, func(ctx context.Context) error {
		return s.dialect.Commit(ctx, conn, now, changes, s.lines(changes))
	})
	committed = err == nil
	return err
}

// rollback undoes a transaction, even if the caller's context has ended.
func (s *Server) rollback(conn Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(max(s.Write, 0), rollbackLimit))
	defer cancel()
	conn.Rollback(ctx)
}

// record returns the record of a locked row.
func (s *Server) record(ctx context.Context, conn Conn, key cart.Key, row *Scan) (*cell.Record, error) {
	r, err := row.Record(false)
	if err != nil {
		return nil, err
	}
	r.Documents = func(into *cart.Cart) error {
		var items, conditions []byte
		if err := s.bounded(ctx, s.Write, func(ctx context.Context) error {
			return get(ctx, conn, []any{&items, &conditions}, s.statements.Documents, s.Name(key)...)
		}); err != nil {
			return err
		}
		return Documents(items, conditions, into)
	}
	r.NextFence = func() (fence uint64, err error) {
		err = s.bounded(ctx, s.Write, func(ctx context.Context) error {
			fence, err = s.dialect.NextFence(ctx, conn)
			return err
		})
		return fence, err
	}
	return &r, nil
}
