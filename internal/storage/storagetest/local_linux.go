package storagetest

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Disk is a file system of a megabyte that is mounted on Folder until the test ends.
type Disk struct {
	Folder string

	t    *testing.T
	gone bool
}

// SmallDisk mounts a disk. The test is skipped if this process may not.
func SmallDisk(t *testing.T) *Disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system")
	}
	d := &Disk{Folder: t.TempDir(), t: t}
	if err := syscall.Mount("tmpfs", d.Folder, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if !d.gone {
			d.Unmount()
		}
	})
	return d
}

// Unmount takes the disk away, and all that is on it.
func (d *Disk) Unmount() {
	d.t.Helper()
	d.gone = true
	if err := syscall.Unmount(d.Folder, syscall.MNT_DETACH); err != nil {
		d.t.Errorf("unmount: %v", err)
	}
}

// ReadOnly makes the disk read-only. No file of it may be open for writing.
func (d *Disk) ReadOnly() {
	d.t.Helper()
	if err := syscall.Mount("tmpfs", d.Folder, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		d.t.Fatalf("remount: %v", err)
	}
}

// Fill leaves no room on the disk.
func (d *Disk) Fill() {
	d.t.Helper()
	if err := os.WriteFile(d.filler(), bytes.Repeat([]byte("x"), 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatalf("the disk is not full: %v", err)
	}
}

// Empty ends Fill.
func (d *Disk) Empty() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Disk) filler() string { return filepath.Join(d.Folder, "filler") }

// files are all files on the disk but the one that fills it.
func (d *Disk) files() (files []string) {
	d.t.Helper()
	err := filepath.WalkDir(d.Folder, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && path != d.filler() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// FullDisk tests that on a full disk changes are refused in the system's words, that what is there stays, and that
// nothing more is left behind. Probes fail as changes do, and all works again when there is room.
func (l Local) FullDisk(t *testing.T) {
	disk := SmallDisk(t)
	s := l.open(t, filepath.Join(disk.Folder, "carts"), patience)
	beater, ok := storage.As[storage.Beater](s.store)
	if !ok {
		t.Fatalf("%T is no Beater", s.store)
	}
	was := s.put(key, items(`{"a":1}`))
	if err := errors.Join(s.store.Ping(s.ctx), beater.Beat(s.ctx)); err != nil {
		t.Fatalf("while there is room: %v", err)
	}
	files := disk.files()
	put := func(key cart.Key, bytes int) error {
		_, err := commit(s.ctx, s.store, change(key, s.load(key), items(`{"b":"`+strings.Repeat("x", bytes)+`"}`)))
		return err
	}
	for range 3 {
		disk.Fill()
		missing, created := cart.Key{Identifier: "u3", Instance: "default"}, cart.Key{Identifier: "u2", Instance: "default"}
		forget := check(missing, s.load(missing))
		forget.Change.Forget = true
		if _, err := commit(s.ctx, s.store, forget); err != nil {
			t.Errorf("Forget of what is not there: %v", err)
		}
		refused := map[string]error{"Commit": put(key, 10_000), "create": put(created, l.Fits+1), "Ping": s.store.Ping(s.ctx)}
		if err := beater.Beat(s.ctx); l.ReadsBeats == "" {
			refused["Beat"] = err
		} else if err != nil {
			t.Errorf("Beat: %v, although %s", err, l.ReadsBeats)
		}
		for call, err := range refused {
			words, ok := storage.RefusalOf(err)
			if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, l.Unknown) || !ok || words != l.Full {
				t.Errorf("%s: %v, with the words %q", call, err, words)
			}
		}
		s.same("the cart of before", s.load(key), was)
		s.missing("what could not be made", s.load(created))
		if d := cmp.Diff(files, disk.files()); d != "" {
			t.Errorf("the files (-were +are):\n%s", d)
		}
		disk.Empty()
		if err := errors.Join(s.store.Ping(s.ctx), beater.Beat(s.ctx)); err != nil {
			t.Errorf("when there is room again: %v", err)
		}
		was = s.put(key, items(`{"a":1}`))
	}
}
