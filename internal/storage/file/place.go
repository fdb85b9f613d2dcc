package file

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage/cell"
)

const (
	// folders is how many folders a prefix has. With a million carts, each has 4,000 files.
	folders = 256
	// hashBytes is how many bytes of a name's hash are in a file's name.
	hashBytes = 20
	// suffix ends the name of a cart's file, and draft that of a file which is being written.
	suffix = ".cart"
	draft  = ".new"
)

// place is where a cart's file is.
type place struct {
	key    cart.Key
	folder string
	path   string
}

func (d *driver) place(key cart.Key) place {
	identifier, instance := hash(key.Identifier), hash(key.Instance)
	folder := d.folder(int(identifier[0]))
	name := hex.EncodeToString(identifier[:]) + "-" + hex.EncodeToString(instance[:]) + suffix
	return place{key: key, folder: folder, path: filepath.Join(folder, name)}
}

// placeAt returns the place of a file of an unknown cart.
func placeAt(path string) place { return place{folder: filepath.Dir(path), path: path} }

func (d *driver) folder(i int) string { return filepath.Join(d.root, fmt.Sprintf("%02x", i)) }

func hash(name string) (h [hashBytes]byte) {
	sum := sha256.Sum256([]byte(name))
	copy(h[:], sum[:])
	return h
}

// sameIdentifier reports whether the file at path belongs to the place's identifier.
func (p place) sameIdentifier(path string) bool {
	const identifier = 2*hashBytes + 1
	return filepath.Base(path)[:identifier] == filepath.Base(p.path)[:identifier]
}

// number distinguishes the places of a prefix. Two places hardly ever share one.
func (p place) number() int64 {
	sum := sha256.Sum256([]byte(filepath.Base(p.path)))
	return int64(binary.BigEndian.Uint64(sum[:]) >> 1)
}

// isCart reports whether a file is one of ours.
func isCart(name string) bool {
	return strings.HasSuffix(name, suffix) && len(name) == 2*2*hashBytes+1+len(suffix)
}

// each calls f for each file of a cart in the folder, until f fails. A folder that does not exist has none.
func (d *driver) each(ctx context.Context, folder string, f func(path string) error) error {
	const page = 1000
	dir, err := os.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unavailable(err)
	}
	defer func() { _ = dir.Close() }()
	for {
		names, err := dir.Readdirnames(page)
		for _, name := range names {
			if !isCart(name) {
				continue
			}
			if err := d.enter(ctx); err != nil {
				return err
			}
			if err := f(filepath.Join(folder, name)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unavailable(err)
		}
	}
}

// replace stores content in one step that survives a crash. The caller must hold the place's lock, so that nobody else
// writes the draft. A draft that a killed process left is overwritten. ends becomes the time of the file, by which the
// sweep finds it.
func (p place) replace(content []byte, ends time.Time) error {
	next := p.path + draft
	err := p.write(next, content, ends)
	if err == nil {
		err = os.Rename(next, p.path)
	}
	if err != nil {
		_ = os.Remove(next) // the old file stays
		return unavailable(err)
	}
	return p.settle()
}

func (p place) write(path string, content []byte, ends time.Time) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeFolders(p.folder); err == nil {
			f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = os.Chtimes(path, time.Time{}, hint(ends))
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// never is the time of a file that does not end. Not every file system can store later times.
var never = time.Unix(1<<31-1, 0)

// hint returns the file time for content that ends at ends. It is never earlier than that.
func hint(ends time.Time) time.Time {
	if ends.IsZero() || ends.After(never) {
		return never
	}
	return ends
}

// remove deletes the file so that it stays deleted after a crash.
func (p place) remove() error {
	if err := p.unlink(); err != nil {
		return err
	}
	return p.settle()
}

// unlink deletes the file. After a crash it may be back.
func (p place) unlink() error {
	if err := os.Remove(p.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unavailable(err)
	}
	return nil
}

// settle syncs the folder after a change. Others can see the change already.
func (p place) settle() error {
	if err := syncFolder(p.folder); err != nil {
		return fmt.Errorf("%w: %w", unavailable(err), cell.ErrOutcomeUnknown)
	}
	return nil
}

// makeFolders makes a folder and those above it, so that they stay after a crash.
func makeFolders(folder string) error {
	err := os.Mkdir(folder, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		info, err := os.Stat(folder)
		if err == nil && !info.IsDir() {
			err = &fs.PathError{Op: "open", Path: folder, Err: errors.New("not a folder")}
		}
		return err
	case errors.Is(err, fs.ErrNotExist):
		if err := makeFolders(filepath.Dir(folder)); err != nil {
			return err
		}
		return makeFolders(folder)
	case err != nil:
		return err
	}
	return syncFolder(filepath.Dir(folder))
}

func syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}
