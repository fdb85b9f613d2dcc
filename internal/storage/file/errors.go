package file

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/sidecart/sidecart/internal/storage"
)

// unavailable is an error of the operating system as one of package storage. Where the system has refused what was
// asked, it has the system's words, without the path.
func unavailable(err error) error {
	if code, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, &storage.Refusal{Words: code.Error()}, err)
	}
	return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
}

// ended tells how a call ends whose context did: a deadline means that its turn did not come in time.
func ended(ctx context.Context) error {
	if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", storage.ErrUnavailable, context.DeadlineExceeded)
}
