package moving_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/moving"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

func movingStore(t testing.TB, from, to storage.Store) *moving.Store {
	t.Helper()
	s, err := moving.New(from, to, "mover")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// late is a moving store beside a sidecar that does not know of the move and creates carts: each cart that has no
// marker yet begins in the old store.
type late struct {
	*moving.Store
	old storage.Store
	// flushed says that the markers are gone, so that no sidecar may be late any more.
	flushed *atomic.Bool
}

func (s *late) Flush(ctx context.Context) error {
	s.flushed.Store(true)
	return s.Store.Flush(ctx)
}

func (s *late) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	c := &commits[0]
	if !s.flushed.Load() && len(commits) == 1 && c.Expect.ID == "" && c.Change.Steps > 0 && c.Locks.Claim == nil && c.Locks.Token == "" {
		outs, err := s.old.Commit(ctx, *c)
		if err != nil || outs[0].Status == storage.Committed {
			return outs, err
		}
	}
	return s.Store.Commit(ctx, commits...)
}

// prefixes numbers those that keep subtests apart.
var prefixes atomic.Int64

func TestConformance(t *testing.T) {
	caps := storagetest.Caps{
		NoPairs: "the two may be in two stores", NoFences: "no cart moves twice at once",
	}
	t.Run("memory to memory", func(t *testing.T) {
		caps := caps
		caps.NoSecond, caps.NoPrefix = "the carts are in the memory of one store", "a store has all of its map to itself"
		storagetest.Run(t, func(t *testing.T) storagetest.Harness {
			from := memory.New()
			return storagetest.Harness{Store: &late{movingStore(t, from, memory.New()), from, new(atomic.Bool)}}
		}, caps)
	})
	for _, name := range []string{"redis to sqlite", "sqlite to redis"} {
		t.Run(name, func(t *testing.T) {
			from, to, _ := strings.Cut(name, " to ")
			open, openNew := backend(t, from), backend(t, to)
			storagetest.Run(t, func(t *testing.T) storagetest.Harness {
				prefix, flushed := fmt.Sprint("p", prefixes.Add(1)), new(atomic.Bool)
				store := func(t testing.TB, prefix string) storage.Store {
					old := open(t, prefix)
					return &late{movingStore(t, old, openNew(t, prefix)), old, flushed}
				}
				return storagetest.Harness{
					Store:  store(t, prefix),
					Second: func(t *testing.T) storage.Store { return store(t, prefix) },
					Other:  func(t *testing.T) storage.Store { return store(t, prefix+".b") },
				}
			}, caps)
		})
	}
}

var u1 = cart.Key{Identifier: "u1", Instance: "default"}
