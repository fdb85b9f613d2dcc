package sql

import (
	"fmt"
	"io/fs"

	"github.com/sidecart/sidecart/internal/storage"
)

// Schema is a database within one transaction that holds a lock on the schema. If several processes start at once, only
// the first migrates.
type Schema interface {
	// Version returns the version of the schema, 0 for an empty database. needs is the least version that a sidecar
	// must know to use it. It is lower than version if the later migrations only added what a sidecar need not know.
	Version() (version, needs int, err error)
	// Apply runs statements, and records version and needs.
	Apply(version, needs int, statements string) error
}

// Optional reports whether a store can work without the migrations that schema still lacks: those after the first only
// serve the audit trail. It is for a role that may not migrate.
func (s *Server) Optional(schema Schema) bool {
	version, _, err := schema.Version()
	return err == nil && version >= 1 && !s.Audits()
}

// Migrate brings a schema up to date. The folder migrations of files has a file for each version. Their names sort in
// the order of the versions, and a file never changes once it was released. A file that only adds what an earlier
// version need not know says so in its first line: "-- needs 1". A schema newer than the files is used if it needs no
// more than they know. Otherwise it is refused.
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
