package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

var key = cart.Key{Identifier: "u1", Instance: "default"}

// put changes the cart of key, whatever it is, by one step.
func put(ctx context.Context, s storage.Store, key cart.Key, items string) error {
	return putFor(ctx, s, key, items, time.Hour)
}

func putFor(ctx context.Context, s storage.Store, key cart.Key, items string, ttl time.Duration) error {
	at, err := s.Load(ctx, key)
	if err != nil {
		return err
	}
	outs, err := s.Commit(ctx, storage.Commit{
		Key: key, Expect: storage.Expect{ID: at.ID, Version: at.Version},
		Change: storage.Change{
			NewID: "id of " + key.String(), Steps: 1, TTL: ttl, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(items), Step: 1}},
		},
		Locks: storage.Locks{Parts: []cart.Part{cart.PartItems}},
	})
	if err == nil && outs[0].Status != storage.Committed {
		err = fmt.Errorf("not committed: %+v", outs[0])
	}
	return err
}

func mustPut(t *testing.T, s storage.Store, key cart.Key, items string) *cart.Cart {
	t.Helper()
	if err := put(t.Context(), s, key, items); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return load(t, s, key)
}

func load(t *testing.T, s storage.Store, key cart.Key) *cart.Cart {
	t.Helper()
	c, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

// filesIn are all files below a folder.
func filesIn(t *testing.T, folder string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// fileOf is the path of a cart's file.
func fileOf(t *testing.T, folder string, key cart.Key) string {
	t.Helper()
	return (&driver{root: filepath.Join(folder, "carts.cart")}).place(key).path
}

// refused fails unless every call is unavailable, for that reason.
func refused(t *testing.T, s *cell.Store, reason string) {
	t.Helper()
	_, loaded := s.Load(t.Context(), key)
	_, listed := s.Instances(t.Context(), key.Identifier)
	_, _, counted := s.Count(t.Context(), 1)
	for call, err := range map[string]error{
		"Load": loaded, "Instances": listed, "Count": counted, "Commit": put(t.Context(), s, key, `{}`), "Abandon": s.Abandon(t.Context(), key, "token"),
		"Flush": s.Flush(t.Context()), "Ping": s.Ping(t.Context()), "Beat": s.Beat(t.Context()),
	} {
		if words, ok := storage.RefusalOf(err); !errors.Is(err, storage.ErrUnavailable) || !ok || !strings.Contains(words, reason) {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// TestDamagedFile: a file that is no cart of its name is refused by its path and left as it is; all others go on; a
// flush removes it.
func TestDamagedFile(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder, "cart")
	other := cart.Key{Identifier: "u2", Instance: "default"}
	mustPut(t, s, other, `{"a":1}`)
	mustPut(t, s, key, `{"a":1}`)
	path := fileOf(t, folder, key)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(good)
	flipped[len(good)/2] ^= 1
	newer := slices.Clone(good)
	newer[5] = 2
	value, err := cell.DecodeNamed(key, good)
	if err != nil {
		t.Fatal(err)
	}
	newerState := cell.EncodeNamed(key, append([]byte{2}, value[1:]...))
	for name, tc := range map[string]struct {
		content []byte
		want    error
		words   string
	}{
		"empty":              {nil, storage.ErrCorrupt, ""},
		"torn":               {good[:len(good)-1], storage.ErrCorrupt, "checksum"},
		"a flipped bit":      {flipped, storage.ErrCorrupt, "checksum"},
		"zeros":              {make([]byte, len(good)), storage.ErrCorrupt, ""},
		"of another cart":    {cell.EncodeNamed(other, value), storage.ErrCorrupt, "another name"},
		"no state":           {cell.EncodeNamed(key, []byte{1, 200}), storage.ErrCorrupt, ""},
		"a newer envelope":   {newer, storage.ErrUnsupported, "format 2"},
		"a newer state":      {newerState, storage.ErrUnsupported, "format 2"},
		"of another program": {[]byte("hello"), storage.ErrCorrupt, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, tc.content, 0o600); err != nil {
				t.Fatal(err)
			}
			long := time.Now().Add(-time.Hour)
			if err := os.Chtimes(path, long, long); err != nil { // the sweep looks at it too
				t.Fatal(err)
			}
			_, loaded := s.Load(t.Context(), key)
			for call, err := range map[string]error{"Load": loaded, "Abandon": s.Abandon(t.Context(), key, "token")} {
				if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tc.words) {
					t.Errorf("%s: %v", call, err)
				}
			}
			for range 600 / sweepFolders { // all folders, twice
				if err := s.Abandon(t.Context(), other, "token"); err != nil {
					t.Fatal(err)
				}
			}
			if now, err := os.ReadFile(path); err != nil || string(now) != string(tc.content) {
				t.Errorf("it was changed to %q, %v", now, err)
			}
			mustPut(t, s, other, `{"a":1}`)
			if n, more, err := s.Count(t.Context(), 10); more || err != nil || n > 2 {
				t.Errorf("Count = %d, %v, %v", n, more, err)
			}
			if got, err := s.Instances(t.Context(), other.Identifier); err != nil || !slices.Equal(got, []string{"default"}) {
				t.Errorf("Instances of another: %q, %v", got, err)
			}
		})
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, key, `{"a":1}`)
}

// TestMoved: a folder that is not where it was is unavailable, and not one without carts; nor is one whose lock file is
// another, which others may hold.
func TestMoved(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, folder string){
		"moved": func(t *testing.T, folder string) {
			if err := os.Rename(folder, folder+".away"); err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, folder string) {
			if err := os.Rename(folder, folder+".away"); err != nil {
				t.Fatal(err)
			}
			open(t, filepath.Dir(folder), "cart")
		},
		"deleted": func(t *testing.T, folder string) {
			if err := os.RemoveAll(folder); err != nil {
				t.Fatal(err)
			}
		},
		"lock file replaced": func(t *testing.T, folder string) {
			lock := filepath.Join(folder, "lock")
			if err := os.Rename(lock, lock+".away"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(lock, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			s := open(t, folder, "cart")
			mustPut(t, s, key, `{"a":1}`)
			lose(t, filepath.Join(folder, "carts.cart"))
			refused(t, s, "moved, replaced or deleted")
		})
	}
}

// TestSweep: what has expired does not stay on the disk, nor what a killed process was writing; what a copy has given
// another time stays.
func TestSweep(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder, "cart")
	const dead = 300
	for i := range dead {
		if err := putFor(t.Context(), s, cart.Key{Identifier: fmt.Sprint("dead", i), Instance: "default"}, `{"a":1}`, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	draftOf := fileOf(t, folder, cart.Key{Identifier: "dead1", Instance: "default"}) + draft
	if err := os.WriteFile(draftOf, []byte("half a ca"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(filepath.Dir(draftOf), "README")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, key, `{"a":1}`)
	endless := cart.Key{Identifier: "endless", Instance: "default"}
	if err := putFor(t.Context(), s, endless, `{"a":1}`, 0); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	for _, key := range []cart.Key{key, endless} {
		if err := os.Chtimes(fileOf(t, folder, key), old, old); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); len(filesIn(t, folder)) > 4; { // the lock, two carts and the foreign one
		if time.Now().After(deadline) {
			t.Fatalf("%d files are left", len(filesIn(t, folder)))
		}
		mustPut(t, s, cart.Key{Identifier: "u1", Instance: "default"}, `{"a":1}`)
	}
	for _, key := range []cart.Key{key, endless} {
		if !load(t, s, key).Exists() {
			t.Errorf("%q is gone", key)
		}
	}
	if info, err := os.Stat(fileOf(t, folder, endless)); err != nil || !info.ModTime().Equal(never) {
		t.Errorf("the time of what does not end is %v, %v", info, err)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("a foreign file: %v", err)
	}
}

// TestRights: nobody else can read carts.
func TestRights(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "not", "there")
	s := open(t, folder, "cart")
	mustPut(t, s, key, `{"a":1}`)
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOpenRefuses: what is no folder is not opened, and the error says what it is.
func TestOpenRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for directory, want := range map[string]string{"": "the folder is missing", path: path, filepath.Join(path, "below"): path} {
		if s, err := Open(Config{Directory: directory, Prefix: "cart"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, %v", directory, s, err)
		}
	}
}
