package memcached

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/sidecart/sidecart/internal/storage"
)

var (
	errTooLarge = fmt.Errorf("%w: the item is too large for the server", storage.ErrTooLarge)
	errNoCAS    = &storage.Refusal{Words: "cas is disabled: start memcached without -C"}
	errUnique   = &storage.Refusal{Words: "the cas unique is none of memcached's: carts need a memcached server, without a proxy that speaks its protocol"}
)

// isTimeout reports whether a deadline passed.
func isTimeout(err error) bool {
	network, ok := errors.AsType[net.Error](err)
	return ok && network.Timeout()
}

// translate turns errors into those of package storage. What a condition said stays as it is.
func (s *server) translate(ctx context.Context, err error) error {
	switch {
	case err == nil, isCondition(err), errors.Is(err, errOtherProcess), errors.Is(err, storage.ErrTooLarge), errors.Is(err, storage.ErrClosed):
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("memcached %s: %w: %w", s.address, ctx.Err(), err)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: memcached: %w: %w: %w", storage.ErrUnavailable, &storage.Silence{Server: s.address}, ctx.Err(), err)
	case isTimeout(err):
		return fmt.Errorf("%w: memcached: %w: %w", storage.ErrUnavailable, &storage.Silence{Server: s.address}, err)
	}
	return fmt.Errorf("%w: memcached %s: %w", storage.ErrUnavailable, s.address, err)
}
