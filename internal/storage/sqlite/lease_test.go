package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

var leased = cart.Key{Identifier: "u1", Instance: "default"}

func leaseClaim(token string, life time.Duration) storage.Claim {
	return storage.Claim{Token: token, Holder: "client", Parts: []cart.Part{cart.PartItems}, Duration: life, Leased: true}
}

func mustLease(t *testing.T, s *cell.Store, token string, life time.Duration) storage.Grant {
	t.Helper()
	g, err := s.Acquire(t.Context(), leased, leaseClaim(token, life), false)
	if err != nil || g.Fence == 0 {
		t.Fatalf("Acquire: %+v, %v", g, err)
	}
	return g
}

// number is the one number that a query of the file gives.
func number(t *testing.T, path, query string) int64 {
	t.Helper()
	stmt, _, err := raw(t, path).Prepare(query)
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	if !stmt.Step() {
		t.Fatalf("%s: no row, %v", query, stmt.Err())
	}
	return stmt.ColumnInt64(0)
}

// TestLeaseSurvivesReopen: lease, fence and memory are in the file.
func TestLeaseSurvivesReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	s := open(t, path, "cart")
	expired := mustLease(t, s, "expired", time.Millisecond)
	held := mustLease(t, s, "held", time.Hour) // waits for the end of the other
	if held.Fence <= expired.Fence {
		t.Errorf("fence %d after %d", held.Fence, expired.Fence)
	}
	last := held.Fence
	for range 3 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, path, "cart")
		if got, err := s.Lease(t.Context(), leased, "held"); err != nil || got.Fence != held.Fence || !got.Expires.Equal(held.Expires) {
			t.Errorf("reopened: %+v, %v, want %+v", got, err, held)
		}
		if _, err := s.Lease(t.Context(), leased, "expired"); !errors.Is(err, storage.ErrLockLost) {
			t.Errorf("reopened: %v, want ErrLockLost", err)
		}
		other := open(t, path, "other") // draws from the same counter
		g := mustLease(t, other, "other", time.Hour)
		if g.Fence <= last {
			t.Errorf("reopened: fence %d after %d", g.Fence, last)
		}
		last = g.Fence
		if err := other.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFenceIsNoClock: fences are counted, since the clocks of the writers may differ by hours.
func TestFenceIsNoClock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	s := open(t, path, "cart")
	if first, now := mustLease(t, s, "first", time.Hour).Fence, time.Now().UnixMicro(); int64(first) > now || int64(first) < now-time.Minute.Microseconds() {
		t.Errorf("the counter begins at %d, want the time of the schema", first)
	}
	if err := s.Release(t.Context(), leased, "first"); err != nil {
		t.Fatal(err)
	}
	for _, last := range []string{"17", "9007199254740000"} { // of long ago, and of the future
		if err := raw(t, path).Exec(`UPDATE sidecart_fences SET last = ` + last); err != nil {
			t.Fatal(err)
		}
		before := number(t, path, `SELECT last FROM sidecart_fences`)
		for i := range 3 {
			if got := mustLease(t, s, "token", time.Hour).Fence; int64(got) != before+int64(i)+1 {
				t.Errorf("fence %d, want %d", got, before+int64(i)+1)
			}
			if err := s.Release(t.Context(), leased, "token"); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Turns draw no fences.
	before := number(t, path, `SELECT last FROM sidecart_fences`)
	if _, err := s.Acquire(t.Context(), leased, storage.Claim{Token: "turn", Parts: []cart.Part{cart.PartAll}, Duration: time.Hour}, false); err != nil {
		t.Fatal(err)
	}
	if after := number(t, path, `SELECT last FROM sidecart_fences`); after != before {
		t.Errorf("a turn raised the counter from %d to %d", before, after)
	}
	if err := s.Abandon(t.Context(), leased, "turn"); err != nil {
		t.Fatal(err)
	}
	// Without its counter the file gives no lease, rather than one without a fence.
	if err := raw(t, path).Exec(`DELETE FROM sidecart_fences`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(t.Context(), leased, leaseClaim("none", time.Hour), false); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("without a counter: %v, want ErrCorrupt", err)
	}
	if _, err := s.Lease(t.Context(), leased, "none"); !errors.Is(err, storage.ErrLockUnknown) {
		t.Errorf("without a counter: %v, want ErrLockUnknown", err)
	}
}

// TestMemoryOfLeasesEnds: a row without a cart stays as long as a lease of it is remembered.
func TestMemoryOfLeasesEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	s := open(t, path, "cart")
	wantEnd := func(what string, end time.Time) {
		t.Helper()
		if got := time.UnixMilli(number(t, path, `SELECT removable_at FROM sidecart_carts`)); got.Sub(end).Abs() > time.Millisecond {
			t.Errorf("%s: the row may go at %v, want %v", what, got, end)
		}
	}
	g := mustLease(t, s, "expired", time.Minute)
	wantEnd("granted", g.Expires.Add(storage.LeaseMemory))
	short, err := s.Renew(t.Context(), leased, "expired", time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	wantEnd("renewed", short.Expires.Add(storage.LeaseMemory))
	next := mustLease(t, s, "released", 10*time.Minute)
	wantEnd("granted to the next", next.Expires.Add(storage.LeaseMemory))
	if err := s.Release(t.Context(), leased, "released"); err != nil {
		t.Fatal(err)
	}
	wantEnd("released", short.Expires.Add(storage.LeaseMemory))
}

// TestOlderSchemaIsMigrated: carts and locks of the first schema are there in the second.
func TestOlderSchemaIsMigrated(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile("migrations/0001_carts.sql")
	if err != nil {
		t.Fatal(err)
	}
	err = raw(t, path).Exec(`
		CREATE TABLE sidecart_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT;
		INSERT INTO sidecart_schema VALUES (1, 0);` + string(first) + `;
		INSERT INTO sidecart_carts (prefix, identifier, instance, id, version, items_version, conditions_version, created_at, updated_at, locks, items, conditions)
		VALUES ('cart', 'u1', 'default', 'id', 7, 7, 0, 1, 1,
			'{"held":[{"token":"old","parts":["items"],"expires":"2999-01-01T00:00:00Z"}]}', '{"a":1}', '{}')`)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // migrated, and opened again
		s := open(t, path, "cart")
		wantItems(t, s, `{"a":1}`)
		c, err := s.Load(t.Context(), leased)
		if err != nil || c.Version != 7 {
			t.Fatalf("Load: %+v, %v", c, err)
		}
		outs, err := s.Commit(t.Context(), storage.Commit{Key: leased, Expect: storage.Expect{ID: "id"}, Locks: storage.Locks{Parts: []cart.Part{cart.PartItems}}})
		if err != nil || outs[0].Status != storage.Locked {
			t.Errorf("a lock of the first schema: %+v, %v", outs, err)
		}
		g, err := s.Acquire(t.Context(), leased, storage.Claim{Token: "new", Parts: []cart.Part{cart.PartConditions}, Duration: time.Hour, Leased: true}, false)
		if err != nil || g.Fence == 0 {
			t.Errorf("a lease beside it: %+v, %v", g, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// An earlier release that knows version 2 opens the file too: later versions only add something.
	if v := number(t, path, `SELECT max(version) FROM sidecart_schema`); v != 2 {
		t.Errorf("schema %d, want 2", v)
	}
	if v := number(t, path, `SELECT max(version) FROM sidecart_schema_added`); v != 3 {
		t.Errorf("added schema %d, want 3", v)
	}
	if !strings.Contains(string(first), "CREATE TABLE sidecart_carts") {
		t.Error("the first schema is not what it was")
	}
}
