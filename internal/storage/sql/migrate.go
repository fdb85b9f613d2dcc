package sql

import (
	"fmt"
	"io/fs"

	"github.com/sidecart/sidecart/internal/storage"
)

// Schema is a database within one transaction that holds a lock on its schema: of several processes that start at once,
// the first migrates.
type Schema interface {
	// Version is that of the schema; 0 for an empty database.
	Version() (int, error)
	// Apply runs statements, and notes that they lead to version.
	Apply(version int, statements string) error
}

// Migrate brings a schema up to date. files has one for each version, by whose names they sort in order, and which
// never change once they were released. A schema that is newer than the files is refused.
func Migrate(s Schema, files fs.FS) error {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return err
	}
	version, err := s.Version()
	if err != nil {
		return err
	}
	if version > len(names) {
		return fmt.Errorf("%w: the schema has version %d, which a newer sidecar made: this one is too old for it", storage.ErrUnsupported, version)
	}
	for i, name := range names[version:] {
		statements, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if err := s.Apply(version+i+1, string(statements)); err != nil {
			return fmt.Errorf("migration %d: %w", version+i+1, err)
		}
	}
	return nil
}
