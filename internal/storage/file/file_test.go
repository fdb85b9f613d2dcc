package file

import (
	"testing"

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
