package file

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/sidecart/sidecart/internal/storage"
)

// unavailable turns an error of the operating system into one of package storage. If the system refused, the error has
// the system's words without the path.
func unavailable(err error) error {
	if code, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, &storage.Refusal{Words: code.Error()}, err)
	}
	return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
}

// ended returns the error of a call whose context has ended. A deadline means that the call's turn did not come in
// time.
func ended(ctx context.Context) error {
	if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", storage.ErrUnavailable, context.DeadlineExceeded)
}
