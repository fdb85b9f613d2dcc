package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// TestRowsOfEarlierRelease: the cart, lease, queue and remembered leases that an earlier release wrote are understood.
func TestRowsOfEarlierRelease(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	statements := `
		CREATE TABLE sidecart_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT;
		INSERT INTO sidecart_schema VALUES (1, 0), (2, 0);`
	for _, name := range []string{"migrations/0001_carts.sql", "migrations/0002_fences.sql", "testdata/schema2_cart.sql"} {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		statements += string(file) + ";"
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := raw(t, path).Exec(statements); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, "cart")
	wantItems(t, s, `{"sku-1":{"id":"sku-1","price":19.90}}`)
	c, err := s.Load(t.Context(), leased)
	if err != nil || c.ID != "4f0c6a52-0000-4000-8000-000000000001" || c.Version != 2 || c.UpdatedAt.UnixMilli() != 1795785574262 || string(c.Received) != "opaque" {
		t.Errorf("Load: %+v, %v", c, err)
	}
	if value, version := c.MetadataValue("notes"); string(value) != `"<at> the door"` || version != 1 || c.PartVersion(cart.PartMetadata("gone")) != 2 {
		t.Errorf("notes are %s of version %d", value, version)
	}
	lease, err := s.Lease(t.Context(), leased, "held0000000000000000aa")
	if err != nil || lease.Fence != 1795785574240284 || lease.Holder != "web-0" || lease.Duration != 900*time.Hour*1000 {
		t.Errorf("Lease: %+v, %v", lease, err)
	}
	if _, err := s.Lease(t.Context(), leased, "lost0000000000000000aa"); !errors.Is(err, storage.ErrLockLost) {
		t.Errorf("Lease of what is lost: %v", err)
	}
	if err := s.Release(t.Context(), leased, "held0000000000000000aa"); err != nil {
		t.Fatal(err)
	}
	// The waiter of the earlier release was let in, and holds off a change.
	outs, err := s.Commit(t.Context(), storage.Commit{Key: leased, Expect: storage.Expect{ID: c.ID}, Locks: storage.Locks{Parts: []cart.Part{cart.PartItems}}})
	if err != nil || outs[0].Status != storage.Locked {
		t.Errorf("Commit: %+v, %v", outs, err)
	}
	if n := number(t, path, `SELECT locks ->> '$.held[0].token' = 'turn0000000000000000aa' FROM sidecart_carts`); n != 1 {
		t.Error("somebody else holds the lock")
	}
}
