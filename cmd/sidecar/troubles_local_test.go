package main

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver" // driver "sqlite3"
)

var sqliteTroubles = []failure{
	{"the disk is full", func(t *testing.T) scene {
		folder := smallDisk(t)
		return scene{args: onSQLiteIn(folder), strike: func() { fill(t, folder) }, mend: func() { empty(t, folder) }, large: 300 << 10}
	}, 2 * time.Second},
	{"the disk is read-only from the start", func(t *testing.T) scene {
		folder := smallDisk(t)
		readOnly(t, folder, true)
		return scene{args: onSQLiteIn(folder), ends: true, hide: somewhere(folder)}
	}, 2 * time.Second},
	{"the file was deleted", func(t *testing.T) scene {
		folder := t.TempDir()
		file := filepath.Join(folder, "carts.db")
		return scene{
			args:   onSQLiteIn(folder),
			strike: func() { rename(t, file, file+".gone") },
			mend:   func() { rename(t, file+".gone", file) },
		}
	}, 2 * time.Second},
	{"the file is no database", func(t *testing.T) scene {
		folder := t.TempDir()
		writeFile(t, filepath.Join(folder, "carts.db"), "these are no carts, and more than the header of a database is long: it has a hundred bytes and some more")
		return scene{args: onSQLiteIn(folder), ends: true, hide: somewhere(folder)}
	}, 2 * time.Second},
	{"another program holds the write lock", func(t *testing.T) scene {
		folder := t.TempDir()
		var tx *sql.Conn
		return scene{
			args: onSQLiteIn(folder),
			strike: func() {
				db, err := sql.Open("sqlite3", "file:"+filepath.Join(folder, "carts.db"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = db.Close() })
				if tx, err = db.Conn(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := tx.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
					t.Fatal(err)
				}
			},
			mend: func() {
				if _, err := tx.ExecContext(t.Context(), "ROLLBACK"); err != nil {
					t.Error(err)
				}
			},
		}
	}, 3 * time.Second},
}

var fileTroubles = []failure{
	{"the disk is full", func(t *testing.T) scene {
		folder := smallDisk(t)
		return scene{args: onFilesIn(folder), strike: func() { fill(t, folder) }, mend: func() { empty(t, folder) }, large: 300 << 10}
	}, 2 * time.Second},
	{"the disk was mounted read-only", func(t *testing.T) scene {
		folder := smallDisk(t)
		return scene{args: onFilesIn(folder), strike: func() { readOnly(t, folder, true) }, mend: func() { readOnly(t, folder, false) }}
	}, 2 * time.Second},
	{"the folder was moved, deleted or unmounted", func(t *testing.T) scene {
		folder := filepath.Join(t.TempDir(), "carts")
		return scene{
			args:   onFilesIn(folder),
			strike: func() { rename(t, folder, folder+".gone") },
			mend:   func() { rename(t, folder+".gone", folder) },
		}
	}, 2 * time.Second},
	{"the folder's name is that of a file", func(t *testing.T) scene {
		folder := writeFile(t, filepath.Join(t.TempDir(), "carts"), "")
		return scene{args: onFilesIn(folder), ends: true, hide: somewhere(folder)}
	}, 2 * time.Second},
}

func onSQLiteIn(folder string) []string {
	return []string{"--backend=database", "--database-url=sqlite:" + filepath.Join(folder, "carts.db")}
}

func onFilesIn(folder string) []string {
	return []string{"--backend=file", "--file-directory=" + folder}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// somewhere shows a folder of a test as one that a shop may have.
func somewhere(folder string) []string { return []string{folder, "/var/lib/sidecart"} }
