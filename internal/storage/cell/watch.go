package cell

import (
	"context"
	"fmt"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Watch implements [storage.Watcher].
func (s *Store) Watch(key cart.Key, changed func()) (stop func()) {
	first, remove := s.watches.Add(key, changed)
	if first && s.announcer != nil {
		s.announcer.Watching(key)
	}
	return func() { remove() }
}

// Hears implements [storage.Watcher]. Nobody else changes the carts of a driver whose data is not shared.
func (s *Store) Hears(key cart.Key) bool {
	if !s.driver.Capabilities().Shared {
		return true
	}
	return s.announcer != nil && s.announcer.Announced(key)
}

// Glance implements [storage.Watcher]. It reads without the documents if the driver keeps them apart.
func (s *Store) Glance(ctx context.Context, keys []cart.Key) ([]storage.Glimpse, error) {
	all, err := storage.GlanceEach(ctx, keys, s.glance)
	if err != nil {
		return nil, fmt.Errorf("look at carts: %w", err)
	}
	return all, nil
}

func (s *Store) glance(ctx context.Context, key cart.Key) (storage.Glimpse, error) {
	if err := s.enter(ctx); err != nil {
		return storage.Glimpse{}, err
	}
	r, now, err := s.driver.Load(ctx, key, false)
	if err != nil || !r.State.Exists(now) {
		return storage.Glimpse{}, err
	}
	return storage.GlimpseAt(&r.State.Cart, now), nil
}
