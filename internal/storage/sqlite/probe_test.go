package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/sidecart/sidecart/internal/storage"
)

// TestProbeLeavesNothing: a probe is not a cart, and leaves none; one that broke off is purged.
func TestProbeLeavesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	s := open(t, path, "cart")
	watcher := raw(t, path)
	version := func() int64 {
		stmt, _, err := watcher.Prepare(`PRAGMA data_version`)
		if err != nil || !stmt.Step() {
			t.Fatalf("%v, %v", err, stmt.Err())
		}
		defer stmt.Close()
		return stmt.ColumnInt64(0)
	}
	before := version()
	if err := s.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := version(); now != before {
		t.Error("a sign of life writes")
	}
	for range 3 {
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if now := version(); now == before {
		t.Error("a probe writes nothing")
	}
	if n := number(t, path, `SELECT count(*) FROM sidecart_carts`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if err := watcher.Exec(`INSERT INTO sidecart_carts (prefix, identifier, instance, version, items_version, conditions_version, removable_at, items, conditions)
		VALUES ('%probe', 'x', '', 0, 0, 0, 1, 'x', '{}')`); err != nil {
		t.Fatal(err)
	}
	mustPut(t, open(t, path, "cart"), `{"a":1}`) // its first commit purges
	if n := number(t, path, `SELECT count(*) FROM sidecart_carts WHERE prefix = '%probe'`); n != 0 {
		t.Error("a probe that broke off is left")
	}
}

// TestOneMachine: SQLite says that it is shared by one machine only.
func TestOneMachine(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "carts.db"), "cart")
	advice, err := s.Advice(t.Context())
	if err != nil || len(advice) != 1 || advice[0].Code != storage.AdviceOneMachine {
		t.Errorf("advice is %v, %v", advice, err)
	}
}
