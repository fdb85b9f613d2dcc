package file

import (
	"fmt"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		folder := t.TempDir()
		return storagetest.Harness{
			Store:  open(t, folder, "cart"),
			Second: func(t *testing.T) storage.Store { return open(t, folder, "cart") },
			Other:  func(t *testing.T) storage.Store { return open(t, folder, "cart2") },
		}
	}, storagetest.Caps{
		NoPairs: "two files cannot take their places at once",
	})
}

func open(t *testing.T, folder, prefix string) *cell.Store {
	t.Helper()
	s, err := Open(Config{Directory: folder, Prefix: prefix})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestPagesOfAFolder: a walk that stops in the middle of a folder goes on behind the last file that it had, and meets
// each cart once.
func TestPagesOfAFolder(t *testing.T) {
	s := open(t, t.TempDir(), "cart")
	const carts = 12 // of one identifier, so that all are in one folder
	for i := range carts {
		outs, err := s.Commit(t.Context(), storage.Commit{
			Key:    cart.Key{Identifier: "u1", Instance: fmt.Sprint("of-", i)},
			Change: storage.Change{NewID: fmt.Sprint("id-", i), Steps: 1, TTL: time.Hour},
		})
		if err != nil || outs[0].Status != storage.Committed {
			t.Fatalf("%+v, %v", outs, err)
		}
	}
	met := map[cart.Key]int{}
	for after, pages := "", 0; ; pages++ {
		keys, next, err := s.Page(t.Context(), after, 5)
		if err != nil || len(keys) > 5 || pages > folders+carts {
			t.Fatalf("page %d has %d carts, %v", pages, len(keys), err)
		}
		for _, key := range keys {
			met[key]++
		}
		if after = next; next == "" {
			break
		}
	}
	for key, times := range met {
		if times != 1 {
			t.Errorf("%s was met %d times", key, times)
		}
	}
	if len(met) != carts {
		t.Errorf("%d of %d carts were met", len(met), carts)
	}
}
