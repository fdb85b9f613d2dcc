package sql

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/storage"
)

// Migrations are in a folder for each kind of database, in files that are named by their
// version and never change once they were released.
//
//go:embed migrations
var migrations embed.FS

// migration returns the statements that lead to version, and false where there is no
// such version yet.
func migration(database string, version int) (string, bool, error) {
	folder := "migrations/" + database
	files, err := migrations.ReadDir(folder)
	if err != nil || version > len(files) {
		return "", false, err
	}
	raw, err := migrations.ReadFile(folder + "/" + files[version-1].Name()) // sorted by name
	return string(raw), true, err
}

const (
	createSchema = `CREATE TABLE IF NOT EXISTS sidecart_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT`
	querySchema  = `SELECT coalesce(max(version), 0) FROM sidecart_schema`
	raiseFences  = `UPDATE sidecart_fences SET last = ?1 WHERE last < ?1`
	saveSchema   = `INSERT INTO sidecart_schema (version, applied_at) VALUES (?1, ?2)`
)

// migrate brings the schema up to date, under the write lock of the file: of several
// processes that start at once, the first does it.
func (c *connection) migrate(ctx context.Context) (err error) {
	c.SetInterrupt(ctx)
	defer c.SetInterrupt(context.Background())
	tx, err := c.BeginImmediate()
	if err != nil {
		return err
	}
	defer tx.End(&err)
	if err := c.Exec(createSchema); err != nil {
		return err
	}
	if err := c.prepare([]string{querySchema, saveSchema}); err != nil {
		return err
	}
	defer func() {
		for _, stmt := range c.statements {
			err = errors.Join(err, stmt.Close())
		}
		c.statements = nil
	}()
	var version int
	if err := c.query(querySchema, func(stmt *sqlite3.Stmt) error {
		version = stmt.ColumnInt(0)
		return nil
	}); err != nil {
		return err
	}
	for {
		statements, ok, err := migration("sqlite", version+1)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		version++
		if err := c.Exec(statements); err != nil {
			return fmt.Errorf("migration %d: %w", version, err)
		}
		if err := c.exec(saveSchema, uint64(version), time.Now()); err != nil {
			return fmt.Errorf("migration %d: %w", version, err)
		}
	}
	if _, known, err := migration("sqlite", version); err != nil || !known {
		return fmt.Errorf("%w: the schema has version %d, which a newer sidecar made: this one is too old for it", storage.ErrUnsupported, version)
	}
	return c.raiseFences(time.Now())
}

// raiseFences lets fences rise above those that a file has given since the backup that it was restored from, of which its
// counter does not know. They are all less than the time, since none is given faster than one in a microsecond.
func (c *connection) raiseFences(now time.Time) error {
	stmt, _, err := c.Prepare(raiseFences)
	if err != nil {
		return err
	}
	c.statements[raiseFences] = stmt
	if err := c.exec(raiseFences, uint64(now.UnixMicro())); err != nil {
		return fmt.Errorf("raise the counter of fences: %w", err)
	}
	return nil
}
