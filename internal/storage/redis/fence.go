package redis

import (
	"context"
	"fmt"
	"strconv"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Fencer = (*Store)(nil)

// LastFence runs one script.
func (s *Store) LastFence(ctx context.Context, key cart.Key) (uint64, error) {
	last, err := s.fence(ctx, key, 0)
	return last, s.translate(ctx, err, "look at fence of", key)
}

// RaiseFence runs one script.
func (s *Store) RaiseFence(ctx context.Context, key cart.Key, fence uint64) error {
	_, err := s.fence(ctx, key, fence)
	return s.translate(ctx, err, "raise fence of", key)
}

func (s *Store) fence(ctx context.Context, key cart.Key, raise uint64) (uint64, error) {
	reply, err := s.run(ctx, fenceScript, append(scriptArgs(fenceScript, 1, s.space.names(key).fence), raise))
	if err != nil {
		return 0, err
	}
	last, err := strconv.ParseUint(reply, 10, 53)
	if err != nil {
		return 0, fmt.Errorf("%w: a fence that is no number", storage.ErrCorrupt)
	}
	return last, nil
}
