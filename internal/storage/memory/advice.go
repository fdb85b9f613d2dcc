package memory

import (
	"context"

	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Advisor = (*Store)(nil)

// Advice implements [storage.Advisor].
func (s *Store) Advice(context.Context) ([]storage.Advice, error) {
	return []storage.Advice{{
		Code:    storage.AdviceNotDurable,
		Message: "Carts are in the memory of the sidecar: they end with it, and no other pod sees them.",
	}}, nil
}
