package file

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
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

// TestFullDisk: a change is refused in the system's words, what stands there stays, nothing is left behind, and all
// works again when there is room. Probes fail as changes do.
func TestFullDisk(t *testing.T) {
	folder, fill := smallDisk(t)
	s := open(t, folder, "cart")
	was := mustPut(t, s, key, `{"a":1}`)
	files := filesIn(t, folder)
	for range 3 {
		empty := fill()
		files := append([]string{filepath.Join(folder, "filler")}, files...)
		for call, err := range map[string]error{
			"Commit": put(t.Context(), s, key, `{"b":"`+strings.Repeat("x", 10_000)+`"}`),
			"Forget": forget(t, s, cart.Key{Identifier: "u3", Instance: "default"}),
			"create": put(t.Context(), s, cart.Key{Identifier: "u2", Instance: "default"}, `{"b":1}`),
			"Ping":   s.Ping(t.Context()), "Beat": s.Beat(t.Context()),
		} {
			if call == "Forget" { // of what is not there
				if err != nil {
					t.Errorf("Forget: %v", err)
				}
				continue
			}
			words, ok := storage.RefusalOf(err)
			if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, cell.ErrOutcomeUnknown) || !ok || words != "no space left on device" {
				t.Errorf("%s: %v, with the words %q", call, err, words)
			}
		}
		if c := load(t, s, key); c.ID != was.ID || c.Version != was.Version || string(c.Items.Object.Bytes()) != `{"a":1}` {
			t.Errorf("the cart became %+v", c)
		}
		if now := filesIn(t, folder); len(now) != len(files) {
			t.Errorf("there are files %q, were %q", now, files)
		}
		empty()
		if err := errors.Join(s.Ping(t.Context()), s.Beat(t.Context())); err != nil {
			t.Errorf("when there is room again: %v", err)
		}
		was = mustPut(t, s, key, `{"a":1}`)
	}
}

// TestReadOnlyDisk: changes and probes are refused, and reads go on.
func TestReadOnlyDisk(t *testing.T) {
	folder, _ := smallDisk(t)
	s := open(t, folder, "cart")
	was := mustPut(t, s, key, `{"a":1}`)
	if err := syscall.Mount("tmpfs", folder, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatalf("remount: %v", err)
	}
	for call, err := range map[string]error{"Commit": put(t.Context(), s, key, `{"a":2}`), "Ping": s.Ping(t.Context()), "Beat": s.Beat(t.Context())} {
		if words, ok := storage.RefusalOf(err); !errors.Is(err, storage.ErrUnavailable) || !ok || words != "read-only file system" {
			t.Errorf("%s: %v", call, err)
		}
	}
	if c := load(t, s, key); c.Version != was.Version {
		t.Errorf("version %d", c.Version)
	}
	if _, err := Open(Config{Directory: folder, Prefix: "other"}); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Open: %v", err)
	}
}

// TestUnmounted: a folder whose disk has gone is unavailable, and not one without carts.
func TestUnmounted(t *testing.T) {
	folder, _ := smallDisk(t)
	s := open(t, folder, "cart")
	mustPut(t, s, key, `{"a":1}`)
	if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // for the cleanup of smallDisk
		if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=1m"); err != nil {
			t.Error(err)
		}
	})
	refused(t, s, "moved, replaced or deleted")
}
