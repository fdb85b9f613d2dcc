package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/ncruces/go-sqlite3"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/sql"
)

// words returns what SQLite says of an error. A failed write is not reported as a full disk, since the driver passes no
// cause on to SQLite. So this text names the full disk itself.
func words(code sqlite3.ErrorCode, err error) string {
	var extended sqlite3.ExtendedErrorCode
	if errors.As(err, &extended) {
		switch extended {
		case sqlite3.IOERR_WRITE, sqlite3.IOERR_FSYNC, sqlite3.IOERR_TRUNCATE, sqlite3.IOERR_SHMSIZE:
			return code.Error() + ": a write failed, as it does on a full disk"
		}
	}
	return code.Error()
}

// translate turns SQLite's errors into those of package storage.
func translate(ctx context.Context, err error) error {
	var code sqlite3.ErrorCode
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &code):
		return err
	case ctx.Err() != nil:
		return sql.Ended(ctx, err)
	case code == sqlite3.TOOBIG:
		return fmt.Errorf("%w: %w", storage.ErrTooLarge, err)
	case code == sqlite3.CORRUPT || code == sqlite3.NOTADB:
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	case code == sqlite3.BUSY || code == sqlite3.LOCKED || code == sqlite3.INTERRUPT: // no answer in time
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	default: // full, read-only, gone, or broken otherwise
		return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, &storage.Refusal{Words: words(code, err)}, err)
	}
}

func isSQLite(err error) bool {
	var code sqlite3.ErrorCode
	return errors.As(err, &code)
}

// told returns an error as the caller may see it. It is the last step of every call.
func (d *driver) told(err error) error {
	if d.secret {
		return storage.WithoutPath(err)
	}
	return err
}
