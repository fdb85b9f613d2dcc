package middleware

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var (
	_ storage.Store     = (*measured)(nil)
	_ storage.Decorator = (*measured)(nil)
	_ storage.Meter     = (*measured)(nil)
	_ storage.Locker    = (*measuredLocker)(nil)
)

// Measure returns s with a count of its commits, which makes it a [storage.Meter].
func Measure(s storage.Store) storage.Store {
	m := measured{store: s, counts: new(counts)}
	if l, ok := s.(storage.Locker); ok {
		return &measuredLocker{m, l}
	}
	return &m
}

type counts struct{ commits, conflicts, locked atomic.Uint64 }

type measured struct {
	store  storage.Store
	counts *counts
}

// CommitCounts implements [storage.Meter].
func (m *measured) CommitCounts() storage.CommitCounts {
	c := m.counts
	return storage.CommitCounts{Commits: c.commits.Load(), Conflicts: c.conflicts.Load(), Locked: c.locked.Load()}
}

func (m *measured) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	outs, err := m.store.Commit(ctx, commits...)
	m.counts.commits.Add(1)
	ended := func(status storage.Status) bool {
		return slices.ContainsFunc(outs, func(o storage.Outcome) bool { return o.Status == status })
	}
	anew := slices.ContainsFunc(outs, func(o storage.Outcome) bool { return o.Anew }) // it met another state all the same
	if anew || ended(storage.Conflict) {
		m.counts.conflicts.Add(1)
	}
	if ended(storage.Locked) {
		m.counts.locked.Add(1)
	}
	return outs, err
}

func (m *measured) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	return m.store.Load(ctx, key)
}

func (m *measured) Atomic(a, b cart.Key) bool { return m.store.Atomic(a, b) }

func (m *measured) Instances(ctx context.Context, identifier string) ([]string, error) {
	return m.store.Instances(ctx, identifier)
}

func (m *measured) Flush(ctx context.Context) error { return m.store.Flush(ctx) }

func (m *measured) Ping(ctx context.Context) error { return m.store.Ping(ctx) }

func (m *measured) Capabilities() storage.Capabilities { return m.store.Capabilities() }

func (m *measured) Close() error { return m.store.Close() }

// Unwrap implements [storage.Decorator].
func (m *measured) Unwrap() storage.Store { return m.store }

// measuredLocker is measured over a Locker. Only commits are counted, no other calls about locks.
type measuredLocker struct {
	measured
	locker storage.Locker
}

func (m *measuredLocker) Acquire(ctx context.Context, key cart.Key, claim storage.Claim, queued bool) (storage.Grant, error) {
	return m.locker.Acquire(ctx, key, claim, queued)
}

func (m *measuredLocker) Abandon(ctx context.Context, key cart.Key, token string) error {
	return m.locker.Abandon(ctx, key, token)
}

func (m *measuredLocker) Lease(ctx context.Context, key cart.Key, token string) (storage.Lease, error) {
	return m.locker.Lease(ctx, key, token)
}

func (m *measuredLocker) Renew(ctx context.Context, key cart.Key, token string, duration time.Duration) (storage.Lease, error) {
	return m.locker.Renew(ctx, key, token, duration)
}

func (m *measuredLocker) Release(ctx context.Context, key cart.Key, token string) error {
	return m.locker.Release(ctx, key, token)
}
