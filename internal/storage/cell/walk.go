package cell

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var (
	_ storage.Walker = (*Store)(nil)
	_ storage.Fencer = (*Store)(nil)
)

// Page implements [storage.Walker].
func (s *Store) Page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error) {
	w, ok := s.powers.(Walker)
	if !ok {
		return nil, "", fmt.Errorf("walk: %w: it cannot find all carts", storage.ErrUnsupported)
	}
	if err = s.enter(ctx); err == nil {
		keys, next, err = w.Page(ctx, after, limit)
	}
	if err != nil {
		return nil, "", fmt.Errorf("walk: %w", err)
	}
	return keys, next, nil
}

// LastFence implements [storage.Fencer].
func (s *Store) LastFence(ctx context.Context, key cart.Key) (uint64, error) {
	last, err := s.lastFence(ctx, key)
	if err != nil {
		return 0, fmt.Errorf("look at fence of %q: %w", key, err)
	}
	return last, nil
}

func (s *Store) lastFence(ctx context.Context, key cart.Key) (uint64, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	if c, ok := s.powers.(FenceCounter); ok {
		return c.LastFence(ctx)
	}
	r, now, err := s.driver.Load(ctx, key, false)
	if err != nil {
		return 0, err
	}
	// If the last fence was forgotten, the clock passed it that long ago.
	return max(r.State.Fence, uint64(now.Add(-storage.LeaseMemory).UnixMicro())), nil
}

// RaiseFence implements [storage.Fencer].
func (s *Store) RaiseFence(ctx context.Context, key cart.Key, fence uint64) error {
	if err := s.raiseFence(ctx, key, fence); err != nil {
		return fmt.Errorf("raise fence of %q: %w", key, err)
	}
	return nil
}

func (s *Store) raiseFence(ctx context.Context, key cart.Key, fence uint64) error {
	if c, ok := s.powers.(FenceCounter); ok {
		if err := s.enter(ctx); err != nil {
			return err
		}
		return c.RaiseFence(ctx, fence)
	}
	return s.update(ctx, []cart.Key{key}, func(_ time.Time, records []*Record) ([]string, error) {
		r := records[0]
		if r.NextFence != nil {
			return nil, fmt.Errorf("%w: %w", storage.ErrUnsupported, errUncounted)
		}
		r.State.Fence, r.Save = max(r.State.Fence, fence), true
		return nil, nil
	})
}

// Place is the place of a cart in the order of the names, identifiers first. A driver that walks in this order goes on
// after a place.
func Place(key cart.Key) string { return key.Identifier + "\x00" + key.Instance }

// KeyAt is the key at a place; that of "" stands before all others.
func KeyAt(place string) (key cart.Key) {
	key.Identifier, key.Instance, _ = strings.Cut(place, "\x00") // names hold no NUL
	return key
}

var errUncounted = errors.New("its driver counts fences and cannot raise them")
