package sqlite

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/sidecart/sidecart/internal/storage"
)

// databasePath checks what follows "sqlite:" in the URL. If name is not "", errors show it in place of the URL.
func databasePath(path, name string) (string, error) {
	const problem = "%w: database URL %q: %s: write sqlite:PATH, such as sqlite:/var/lib/sidecart/carts.db"
	switch {
	case path == "":
		return "", fmt.Errorf(problem, storage.ErrUnsupported, cmp.Or(name, "sqlite:"), "the path is missing")
	case strings.HasPrefix(path, ":"):
		return "", fmt.Errorf(problem, storage.ErrUnsupported, cmp.Or(name, "sqlite:"+path), "a database in memory keeps no carts (the Memory backend does that)")
	case strings.HasPrefix(path, "file:"):
		return "", fmt.Errorf(problem, storage.ErrUnsupported, cmp.Or(name, "sqlite:"+path), "a URI is no path")
	case strings.Contains(path, "?"):
		return "", fmt.Errorf(problem, storage.ErrUnsupported, cmp.Or(name, "sqlite:"+path), "it contains ?: options are not taken, and the name of the file cannot have one")
	}
	// The process may change its folder later.
	return filepath.Abs(path)
}

// createFile makes the file if it is not there, readable by its owner only, and makes sure that its name survives a
// crash.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil && runtime.GOOS != "windows" {
		return err
	}
	return nil
}

// protect gives the files beside the database the database's own mode, since this SQLite makes them by the umask alone.
// Files of another owner stay as they are.
func (d *driver) protect() {
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Chmod(d.path+suffix, d.file.Mode().Perm())
	}
}

// unmoved fails if the path no longer leads to the open file, since writes to a deleted file are lost.
func (d *driver) unmoved() error {
	now, err := os.Stat(d.path)
	if err == nil && !os.SameFile(now, d.file) {
		err = errors.New("the file is not the one that was opened")
	}
	if err != nil {
		refusal := &storage.Refusal{Words: "the file of the database was moved, replaced or deleted"}
		return fmt.Errorf("%w: %w: %s: %w", storage.ErrUnavailable, refusal, d.name, err)
	}
	return nil
}
