package memory

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Counter = (*Store)(nil)

// Count implements [storage.Counter].
func (s *Store) Count(ctx context.Context, most int) (n int, more bool, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, false, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	for _, st := range s.states {
		if c := &st.Cart; !c.Exists() || !c.ExpiresAt.IsZero() && !now.Before(c.ExpiresAt) {
			continue
		}
		if n == most {
			return n, true, nil
		}
		n++
	}
	return n, false, nil
}
