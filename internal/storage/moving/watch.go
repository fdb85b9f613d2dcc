package moving

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Watcher = (*Store)(nil)

// Watch implements [storage.Watcher]. A cart may be changed in either store, and its move from one to the other is
// reported like a change.
func (s *Store) Watch(key cart.Key, changed func()) (stop func()) {
	stopNew := storage.WatcherOf(s.new).Watch(key, changed)
	stopOld := storage.WatcherOf(s.old).Watch(key, changed)
	return func() {
		stopNew()
		stopOld()
	}
}

// Hears implements [storage.Watcher].
func (s *Store) Hears(key cart.Key) bool {
	return storage.WatcherOf(s.new).Hears(key) && storage.WatcherOf(s.old).Hears(key)
}

// Glance implements [storage.Watcher]. Which of the stores has a cart is known only when it is read.
func (s *Store) Glance(ctx context.Context, keys []cart.Key) ([]storage.Glimpse, error) {
	return storage.GlanceEach(ctx, keys, func(ctx context.Context, key cart.Key) (storage.Glimpse, error) {
		c, err := s.Load(ctx, key)
		if err != nil {
			return storage.Glimpse{}, err
		}
		return storage.GlimpseAt(c, time.Now()), nil
	})
}
