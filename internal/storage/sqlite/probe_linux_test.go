package sqlite_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sqlite"
)

// smallDisk is a file system of a megabyte, which fill fills up and the function that it returns empties again.
func smallDisk(t *testing.T) (folder string, fill func() (empty func())) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system")
	}
	folder = t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return folder, func() func() {
		t.Helper()
		filler := filepath.Join(folder, "filler")
		err := os.WriteFile(filler, bytes.Repeat([]byte("x"), 2<<20), 0o600)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v", err)
		}
		return func() {
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestFullDisk: a probe fails as a change does, in SQLite's words, and both work again when there is room.
func TestFullDisk(t *testing.T) {
	folder, fill := smallDisk(t)
	s := open(t, filepath.Join(folder, "carts.db"), "cart")
	mustPut(t, s, `{"a":1}`)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		empty := fill()
		if err := put(t.Context(), s, `{"b":"`+strings.Repeat("x", 10_000)+`"}`); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("Commit: %v, want ErrUnavailable", err)
		}
		err := s.Ping(t.Context())
		if words, ok := storage.RefusalOf(err); !errors.Is(err, storage.ErrUnavailable) || !ok || !strings.Contains(words, "full") {
			t.Errorf("Ping: %v, with the words %q", err, words)
		}
		wantItems(t, s, `{"a":1}`)
		empty()
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("Ping when there is room again: %v", err)
		}
		mustPut(t, s, `{"a":1}`)
	}
}

// TestReadOnlyDisk: what cannot be written to is not opened, and nothing else is said of it.
func TestReadOnlyDisk(t *testing.T) {
	folder, _ := smallDisk(t)
	path := filepath.Join(folder, "carts.db")
	s := open(t, path, "cart")
	mustPut(t, s, `{"a":1}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatalf("remount: %v", err)
	}
	s, err := sqlite.Open(t.Context(), sqlite.Config{URL: "sqlite:" + path, Prefix: "cart"})
	if err == nil {
		defer s.Close()
		err = s.Ping(t.Context())
	}
	if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("on a read-only disk: %v, want ErrUnavailable", err)
	}
}
