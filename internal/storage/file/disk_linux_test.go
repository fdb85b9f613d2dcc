package file

import (
	"errors"
	"testing"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

func TestFullDisk(t *testing.T) { local.FullDisk(t) }

// TestReadOnlyDisk: changes and probes are refused, and reads go on.
func TestReadOnlyDisk(t *testing.T) {
	disk := storagetest.SmallDisk(t)
	s := open(t, disk.Folder, "cart")
	was := mustPut(t, s, key, `{"a":1}`)
	disk.ReadOnly()
	for call, err := range map[string]error{"Commit": put(t.Context(), s, key, `{"a":2}`), "Ping": s.Ping(t.Context()), "Beat": s.Beat(t.Context())} {
		if words, ok := storage.RefusalOf(err); !errors.Is(err, storage.ErrUnavailable) || !ok || words != "read-only file system" {
			t.Errorf("%s: %v", call, err)
		}
	}
	if c := load(t, s, key); c.Version != was.Version {
		t.Errorf("version %d", c.Version)
	}
	if _, err := Open(Config{Directory: disk.Folder, Prefix: "other"}); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Open: %v", err)
	}
}

// TestUnmounted: a folder whose disk has gone is unavailable, and not one without carts.
func TestUnmounted(t *testing.T) {
	disk := storagetest.SmallDisk(t)
	s := open(t, disk.Folder, "cart")
	mustPut(t, s, key, `{"a":1}`)
	disk.Unmount()
	refused(t, s, "moved, replaced or deleted")
}
