package sql

import (
	"context"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

var (
	_ cell.Pairer  = (*Finder)(nil)
	_ cell.Lister  = (*Finder)(nil)
	_ cell.Counter = (*Finder)(nil)
	_ cell.Flusher = (*Finder)(nil)
	_ cell.Walker  = (*Finder)(nil)
)

// Querier runs statements on one connection.
type Querier interface {
	// Query calls each for each row of a statement's result, with a function that reads the row.
	Query(ctx context.Context, each func(scan func(into ...any) error) error, statement string, args ...any) error
	// Exec returns how many rows a statement changed; of several statements, the first.
	Exec(ctx context.Context, statement string, args ...any) (int64, error)
}

// Lend lends a connection to f, perhaps more than once. If bounded is false, f may take as long as ctx allows.
type Lend func(ctx context.Context, bounded bool, f func(ctx context.Context, q Querier) error) error

// Finder finds, counts and removes carts using only [Statements]. Every driver of a relational database embeds it.
type Finder struct {
	prefix      any
	statements  *Statements
	bind        func(text string) any
	read, write Lend
}

// NewFinder makes a Finder for the carts of a prefix. bind turns a text into an argument of a statement. read lends
// connections that only read, and write those that change rows.
func NewFinder(prefix string, s *Statements, bind func(text string) any, read, write Lend) Finder {
	return Finder{bind(prefix), s, bind, read, write}
}

// Get reads the one row of a statement's result, within the bound of a read.
func (f *Finder) Get(ctx context.Context, statement string, into ...any) error {
	return f.read(ctx, true, func(ctx context.Context, q Querier) error { return get(ctx, q, into, statement) })
}

func get(ctx context.Context, q Querier, into []any, statement string, args ...any) error {
	return q.Query(ctx, func(scan func(into ...any) error) error { return scan(into...) }, statement, args...)
}

// change runs one statement that changes rows, and returns how many it changed.
func (f *Finder) change(ctx context.Context, bounded bool, statement string, args ...any) (changed int64, err error) {
	err = f.write(ctx, bounded, func(ctx context.Context, q Querier) error {
		changed, err = q.Exec(ctx, statement, args...)
		return err
	})
	return changed, err
}

// Pairs implements [cell.Pairer]: a transaction takes any rows.
func (f *Finder) Pairs(_, _ cart.Key) bool { return true }

// Instances implements [cell.Lister].
func (f *Finder) Instances(ctx context.Context, identifier string) (instances []string, err error) {
	err = f.read(ctx, true, func(ctx context.Context, q Querier) error {
		instances = nil
		return q.Query(ctx, func(scan func(into ...any) error) error {
			var instance string
			err := scan(&instance)
			instances = append(instances, instance)
			return err
		}, f.statements.Instances, f.prefix, f.bind(identifier))
	})
	return instances, err
}

// Count implements [cell.Counter]. It takes as long as ctx allows.
func (f *Finder) Count(ctx context.Context, most int) (n int, err error) {
	err = f.read(ctx, false, func(ctx context.Context, q Querier) error {
		return get(ctx, q, []any{&n}, f.statements.Count, f.prefix, int64(most))
	})
	return n, err
}

// Page implements [cell.Walker], in the order of the names, by the primary key.
func (f *Finder) Page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error) {
	from := cell.KeyAt(after)
	err = f.read(ctx, true, func(ctx context.Context, q Querier) error {
		keys = nil
		behind := f.bind(from.Identifier)
		return q.Query(ctx, func(scan func(into ...any) error) error {
			var key cart.Key
			err := scan(&key.Identifier, &key.Instance)
			keys = append(keys, key)
			return err
		}, f.statements.Page, f.prefix, behind, behind, f.bind(from.Instance), int64(limit))
	})
	if err == nil && len(keys) == limit {
		next = cell.Place(keys[limit-1])
	}
	return keys, next, err
}

// RaiseFence implements [cell.FenceCounter].
func (f *Finder) RaiseFence(ctx context.Context, fence uint64) error {
	_, err := f.change(ctx, true, f.statements.RaiseFence, int64(fence))
	return err
}

// Flush implements [cell.Flusher]. It deletes in steps, so that others get their turn, and takes as long as ctx allows.
func (f *Finder) Flush(ctx context.Context) error {
	for {
		deleted, err := f.change(ctx, false, f.statements.Flush, f.prefix)
		if err != nil || deleted == 0 {
			return err
		}
	}
}

// Capabilities implements [cell.Driver].
func (f *Finder) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "Database", Shared: true, Durable: true}
}
