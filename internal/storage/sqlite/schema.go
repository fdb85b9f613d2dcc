package sqlite

import (
	"context"
	"embed"
	"errors"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/storage/sql"
)

//go:embed migrations
var migrations embed.FS

const (
	createSchema = `CREATE TABLE IF NOT EXISTS sidecart_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT`
	createAdded  = `CREATE TABLE IF NOT EXISTS sidecart_schema_added (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT`
	querySchema  = `
		SELECT max((SELECT coalesce(max(version), 0) FROM sidecart_schema), (SELECT coalesce(max(version), 0) FROM sidecart_schema_added)),
			(SELECT coalesce(max(version), 0) FROM sidecart_schema)`
	// A file that was restored from a backup may have given fences since the backup that its counter does not know of.
	// These are all less than the time in microseconds, since fewer than one fence is given in a microsecond.
	raiseFences = `UPDATE sidecart_fences SET last = ` + micros + ` WHERE last < ` + micros
	saveSchema  = `INSERT INTO sidecart_schema (version, applied_at) VALUES (?1, ?2)`
	saveAdded   = `INSERT INTO sidecart_schema_added (version, applied_at) VALUES (?1, ?2)`
)

// migrate brings the schema up to date, under the write lock of the file.
func (c *connection) migrate(ctx context.Context) (err error) {
	c.SetInterrupt(ctx)
	defer c.SetInterrupt(context.Background())
	tx, err := c.BeginImmediate()
	if err != nil {
		return err
	}
	defer tx.End(&err)
	if err := c.Exec(createSchema + ";" + createAdded); err != nil {
		return err
	}
	if err := c.prepare([]string{querySchema, saveSchema, saveAdded}); err != nil {
		return err
	}
	defer func() {
		for _, stmt := range c.statements {
			err = errors.Join(err, stmt.Close())
		}
		c.statements = nil
	}()
	if err := sql.Migrate(schema{c}, migrations); err != nil {
		return err
	}
	return c.Exec(raiseFences)
}

// schema is a [sql.Schema]. A sidecar of an earlier release refuses a file whose sidecart_schema has a version that it
// does not know. So what only adds something, and needs no more than was there, is noted in a table of its own.
type schema struct{ c *connection }

func (s schema) Version() (version, needs int, err error) {
	err = s.c.query(querySchema, func(stmt *sqlite3.Stmt) error {
		version, needs = stmt.ColumnInt(0), stmt.ColumnInt(1)
		return nil
	})
	return version, needs, err
}

func (s schema) Apply(version, needs int, statements string) error {
	if err := s.c.Exec(statements); err != nil {
		return err
	}
	save := saveSchema
	if needs < version {
		save = saveAdded
	}
	return s.c.exec(save, uint64(version), time.Now())
}
