package memory

import (
	"fmt"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		s := New()
		t.Cleanup(func() { _ = s.Close() })
		return storagetest.Harness{Store: s}
	}, storagetest.Caps{
		NoSecond: "the carts are in the memory of one store",
		NoPrefix: "a store has all of its map to itself",
	})
}

// TestExpiredCartsAreDropped: what nobody reads again does not stay in memory.
func TestExpiredCartsAreDropped(t *testing.T) {
	s := New()
	create := func(name string, ttl time.Duration) {
		t.Helper()
		outs, err := s.Commit(t.Context(), storage.Commit{
			Key: cart.Key{Identifier: name, Instance: "default"}, NewID: name, Steps: 1, TTL: ttl,
		})
		if err != nil || outs[0].Status != storage.Committed {
			t.Fatalf("Commit: %v, %v", outs, err)
		}
	}
	const dead = 5000
	for i := range dead {
		create(fmt.Sprint("dead", i), time.Millisecond)
	}
	for i := range dead {
		create(fmt.Sprint("alive", i), time.Hour)
	}
	deadline := time.Now().Add(30 * time.Second)
	for n := 0; len(s.states) > dead+dead/4; n++ {
		if time.Now().After(deadline) {
			t.Fatalf("%d states are kept for %d carts", len(s.states), dead)
		}
		create(fmt.Sprint("another", n), time.Millisecond)
	}
}
