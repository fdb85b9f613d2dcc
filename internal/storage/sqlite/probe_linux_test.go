package sqlite_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sqlite"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

func TestFullDisk(t *testing.T) { local.FullDisk(t) }

// TestReadOnlyDisk: a file that cannot be written to is not opened, and the error says just that.
func TestReadOnlyDisk(t *testing.T) {
	disk := storagetest.SmallDisk(t)
	path := filepath.Join(disk.Folder, "carts.db")
	s := open(t, path, "cart")
	mustPut(t, s, `{"a":1}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	disk.ReadOnly()
	s, err := sqlite.Open(t.Context(), sqlite.Config{URL: "sqlite:" + path, Prefix: "cart"})
	if err == nil {
		defer s.Close()
		err = s.Ping(t.Context())
	}
	if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("on a read-only disk: %v, want ErrUnavailable", err)
	}
}
