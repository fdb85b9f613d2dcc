package sql

import (
	"fmt"
	"io/fs"

	"github.com/sidecart/sidecart/internal/storage"
)

// Schema is a database within one transaction that holds a lock on its schema: of several processes that start at once,
// the first migrates.
type Schema interface {
	// Version is that of the schema, 0 for an empty database, and the version that a sidecar must know at least to use
	// it. That is an earlier one where the migrations since then only added what it need not know.
	Version() (version, needs int, err error)
	// Apply runs statements, and notes that they lead to version, and what it needs.
	Apply(version, needs int, statements string) error
}

// Optional reports whether a store can do without the migrations that s still lacks: those since the first only made
// what the audit trail needs. It is for a role that may not make them.
func (s *Server) Optional(schema Schema) bool {
	version, _, err := schema.Version()
	return err == nil && version >= 1 && !s.Audits()
}

// Migrate brings a schema up to date. The folder migrations of files has a file for each version. Their names sort in
// the order of the versions, and a file never changes once it was released. A file that only adds what an earlier
// version need not know says so in its first line: "-- needs 1". A schema that is newer than the files is used where it
// needs no more than they know, and refused otherwise.
func Migrate(s Schema, files fs.FS) error {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return err
	}
	version, needs, err := s.Version()
	if err != nil {
		return err
	}
	if needs > len(names) {
		return fmt.Errorf("%w: the schema has version %d, which a newer sidecar made: this one is too old for it", storage.ErrUnsupported, version)
	}
	for i := version; i < len(names); i++ {
		statements, err := fs.ReadFile(files, names[i])
		if err != nil {
			return err
		}
		if _, err := fmt.Sscanf(string(statements), "-- needs %d\n", &needs); err != nil {
			needs = i + 1
		}
		if err := s.Apply(i+1, needs, string(statements)); err != nil {
			return fmt.Errorf("migration %d: %w", i+1, err)
		}
	}
	return nil
}
