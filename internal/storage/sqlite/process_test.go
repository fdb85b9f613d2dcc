package sqlite_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sqlite"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

var local = storagetest.Local{
	Open: func(path string, wait time.Duration) (storage.Store, error) {
		const patience = 20 * time.Second // many processes, few processors
		return sqlite.Open(context.Background(), sqlite.Config{URL: "sqlite:" + path, Prefix: "cart", Dial: patience, Read: patience, Write: wait})
	},
	Hold: func(path string, _ cart.Key) error {
		conn, err := sqlite3.OpenFlags(path, sqlite3.OPEN_READWRITE)
		if err == nil {
			err = conn.Exec(`BEGIN IMMEDIATE`)
		}
		return err
	},
	HoldsAll: "SQLite has one writer at a time",
	Whole: func(t *testing.T, path string) {
		stmt, _, err := raw(t, path).Prepare(`PRAGMA integrity_check`)
		if err != nil {
			t.Fatal(err)
		}
		defer stmt.Close()
		if !stmt.Step() || stmt.ColumnText(0) != "ok" {
			t.Errorf("integrity check: %s", stmt.ColumnText(0))
		}
	},
	Full:       "sqlite3: disk I/O error: a write failed, as it does on a full disk",
	Fits:       10_000,
	ReadsBeats: "it takes the write lock and writes nothing",
	Unknown:    cell.ErrOutcomeUnknown,
}

func TestMain(m *testing.M) { os.Exit(local.Main(m)) }

func TestProcesses(t *testing.T) { local.Processes(t) }

// raw opens the file like any other program.
func raw(t *testing.T, path string) *sqlite3.Conn {
	t.Helper()
	conn, err := sqlite3.OpenFlags(path, sqlite3.OPEN_READWRITE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
