package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sqlite"
)

var key = cart.Key{Identifier: "u1", Instance: "default"}

// put changes the cart by one step.
func put(ctx context.Context, s storage.Store, text string) error {
	at, err := s.Load(context.Background(), key)
	if err != nil {
		return err
	}
	outs, err := s.Commit(ctx, storage.Commit{
		Key: key, Expect: storage.Expect{ID: at.ID, Version: at.Version},
		Change: storage.Change{NewID: "id", Steps: 1, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(text), Step: 1}, {Part: cart.PartMetadata("notes"), Value: []byte(`"<x>"`), Step: 1}}},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartItems}},
	})
	if err == nil && outs[0].Status != storage.Committed {
		return errors.New("not committed")
	}
	return err
}

func mustPut(t *testing.T, s storage.Store, text string) {
	t.Helper()
	if err := put(t.Context(), s, text); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func wantItems(t *testing.T, s storage.Store, text string) {
	t.Helper()
	c, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if got := string(c.Items.Object.Bytes()); got != text {
		t.Errorf("items are %s, want %s", got, text)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]struct {
		sentinel error
		text     string
	}{
		"":                                    {storage.ErrUnsupported, "write sqlite:PATH"},
		"carts.db":                            {storage.ErrUnsupported, "write sqlite:PATH"},
		"sqlite:":                             {storage.ErrUnsupported, "the path is missing"},
		"sqlite::memory:":                     {storage.ErrUnsupported, "in memory keeps no carts"},
		"sqlite:file:x?mode=memory":           {storage.ErrUnsupported, "a URI is no path"},
		"sqlite:" + dir + "/carts.db?mode=ro": {storage.ErrUnsupported, "contains ?: options are not taken"},
		"oracle://user:secret@host/x":         {storage.ErrUnsupported, `scheme "oracle"`},
		"sqlite:" + dir:                       {storage.ErrUnavailable, "directory"},
		"sqlite:" + dir + "/no/carts.db":      {storage.ErrUnavailable, "no such file or directory"},
		"sqlite:" + garbage:                   {storage.ErrCorrupt, "not a database"},
	} {
		s, err := sqlite.Open(t.Context(), sqlite.Config{URL: url})
		if err == nil {
			_ = s.Close()
		}
		if !errors.Is(err, want.sentinel) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("Open(%q): %v, want %q with %q", url, err, want.sentinel, want.text)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	mustPut(t, open(t, path, "cart"), `{"a":1}`)
	if err := raw(t, path).Exec(`INSERT INTO sidecart_schema VALUES (1000, 0)`); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), sqlite.Config{URL: "sqlite:" + path})
	if err == nil {
		_ = s.Close()
	}
	if !errors.Is(err, storage.ErrUnsupported) || !strings.Contains(err.Error(), "version 1000") {
		t.Errorf("Open: %v", err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	mustPut(t, open(t, path, "cart"), `{"a":1}`)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o", info.Name(), mode)
		}
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	s := open(t, path, "cart")
	mustPut(t, s, `{"price":19.90}`)
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	wantItems(t, open(t, path, "cart"), `{"price":19.90}`)
	// Another program can read the row.
	stmt, _, err := raw(t, path).Prepare(`SELECT items ->> '$.price', metadata -> '$.entries[0].value', typeof(items) FROM sidecart_carts WHERE identifier = 'u1'`)
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	if !stmt.Step() || stmt.ColumnText(0) != "19.9" || stmt.ColumnText(1) != `"<x>"` || stmt.ColumnText(2) != "text" {
		t.Errorf("the row reads %q, %q, %q: %v", stmt.ColumnText(0), stmt.ColumnText(1), stmt.ColumnText(2), stmt.Err())
	}
}

// TestLockedDatabase: somebody else has the write lock and does not give it back.
func TestLockedDatabase(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	s, err := sqlite.Open(t.Context(), sqlite.Config{URL: "sqlite:" + path, Write: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustPut(t, s, `{"a":1}`)
	other := raw(t, path)
	if err := other.Exec(`BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	claim := storage.Claim{Token: "t", Parts: []cart.Part{cart.PartAll}, Duration: time.Minute}
	for method, call := range map[string]func(ctx context.Context) error{
		"Commit":  func(ctx context.Context) error { return put(ctx, s, `{"b":1}`) },
		"Ping":    s.Ping,
		"Abandon": func(ctx context.Context) error { return s.Abandon(ctx, key, "t") },
		"Acquire": func(ctx context.Context) error {
			_, err := s.Acquire(ctx, key, claim, false)
			return err
		},
	} {
		if err := call(t.Context()); !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrLockTimeout) {
			t.Errorf("%s: %v, want ErrUnavailable", method, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := put(ctx, s, `{"b":1}`); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Commit: %v", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the calls took %v", took)
	}
	wantItems(t, s, `{"a":1}`) // reads do not wait for it

	if err := other.Exec(`ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	// No request that was given up is done late.
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	wantItems(t, s, `{"a":1}`)
	mustPut(t, s, `{"c":1}`)
	wantItems(t, s, `{"c":1}`)
}

// TestMovedFile: a write to a deleted file would be acknowledged and lost, so it is refused.
func TestMovedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	s := open(t, path, "cart")
	mustPut(t, s, `{"a":1}`)
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), s, `{"b":1}`); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Commit to a file that is gone: %v", err)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Ping of a file that is gone: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), s, `{"b":1}`); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Commit to a file that was replaced: %v", err)
	}
	if err := os.Rename(path+".moved", path); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, `{"c":1}`)
	wantItems(t, s, `{"c":1}`)
}

// TestDamagedRow: a row that is not a cart is reported as such, and does not hold up others.
func TestDamagedRow(t *testing.T) {
	t.Parallel()
	for _, column := range []string{"items", "metadata", "locks"} {
		path := filepath.Join(t.TempDir(), "carts.db")
		s := open(t, path, "cart")
		mustPut(t, s, `{"a":1}`)
		if err := raw(t, path).Exec(`UPDATE sidecart_carts SET ` + column + ` = '{"held": [}'`); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context(), key); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("Load with damaged %s: %v", column, err)
		}
		_, err := s.Commit(t.Context(), storage.Commit{Key: key, Locks: storage.Locks{Parts: []cart.Part{cart.PartAll}}})
		if !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("Commit with damaged %s: %v", column, err)
		}
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("Ping with damaged %s: %v", column, err)
		}
	}
}

// TestEndedRowsAreDeleted: commits delete rows whose cart and locks have ended, and leave alone those that still have a
// lock.
func TestEndedRowsAreDeleted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "carts.db")
	s := open(t, path, "cart")
	brief := func(instance string) storage.Commit {
		return storage.Commit{Key: cart.Key{Identifier: "brief", Instance: instance}, Change: storage.Change{NewID: "id", Steps: 1, TTL: time.Millisecond}}
	}
	for _, instance := range []string{"a", "b", "locked"} {
		if _, err := s.Commit(t.Context(), brief(instance)); err != nil {
			t.Fatal(err)
		}
	}
	lock := func(instance string, lease time.Duration) {
		t.Helper()
		key := cart.Key{Identifier: "brief", Instance: instance}
		if _, err := s.Acquire(t.Context(), key, storage.Claim{Token: "t", Parts: []cart.Part{cart.PartAll}, Duration: lease}, false); err != nil {
			t.Fatal(err)
		}
	}
	lock("locked", time.Hour)
	lock("never was a cart", time.Millisecond)

	stmt, _, err := raw(t, path).Prepare(`SELECT group_concat(instance) FROM sidecart_carts WHERE identifier = 'brief'`)
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	left := ""
	for deadline := time.Now().Add(30 * time.Second); left != "locked"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left in the database: %s", left)
		}
		mustPut(t, s, `{"a":1}`)
		if !stmt.Step() {
			t.Fatal(stmt.Reset())
		}
		left = stmt.ColumnText(0)
		if err := stmt.Reset(); err != nil {
			t.Fatal(err)
		}
	}
}
