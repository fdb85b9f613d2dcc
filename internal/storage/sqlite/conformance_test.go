package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sqlite"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		path := filepath.Join(t.TempDir(), "carts.db")
		return storagetest.Harness{
			Store:  open(t, path, "cart"),
			Second: func(t *testing.T) storage.Store { return open(t, path, "cart") },
			Other:  func(t *testing.T) storage.Store { return open(t, path, "cart2") },
		}
	}, storagetest.Caps{})
}

func open(t *testing.T, path, prefix string) *cell.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{URL: "sqlite:" + path, Prefix: prefix})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
