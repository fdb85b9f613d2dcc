package memory

import (
	"fmt"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
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

// TestLeaseOfEndedLock: a lease that is granted because a lock has ended has its fence for the first call that asks.
func TestLeaseOfEndedLock(t *testing.T) {
	for name, ask := range map[string]func(s storage.Locker, key cart.Key) (storage.Lease, error){
		"Lease": func(s storage.Locker, key cart.Key) (storage.Lease, error) { return s.Lease(t.Context(), key, "next") },
		"Renew": func(s storage.Locker, key cart.Key) (storage.Lease, error) {
			return s.Renew(t.Context(), key, "next", time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDriver()
			s, key := cell.New(d), cart.Key{Identifier: "u1", Instance: "default"}
			claim := storage.Claim{Token: "first", Parts: []cart.Part{cart.PartItems}, Duration: time.Hour, Leased: true}
			first, err := s.Acquire(t.Context(), key, claim, false)
			if err != nil {
				t.Fatal(err)
			}
			claim.Token = "next"
			outs, err := s.Commit(t.Context(), storage.Commit{Key: key, Locks: storage.Locks{Parts: claim.Parts, Claim: &claim}})
			if err != nil || !outs[0].Claimed.Queued {
				t.Fatalf("Commit: %+v, %v", outs, err)
			}
			d.states[key].Held[0].Expires = time.Now()
			if got, err := ask(s, key); err != nil || got.Fence <= first.Fence {
				t.Errorf("%+v, %v, after fence %d", got, err, first.Fence)
			}
		})
	}
}

// TestExpiredCartsAreDropped: expired carts that nobody reads again do not stay in memory.
func TestExpiredCartsAreDropped(t *testing.T) {
	d := newDriver()
	s := cell.New(d)
	create := func(name string, ttl time.Duration) {
		t.Helper()
		outs, err := s.Commit(t.Context(), storage.Commit{
			Key:    cart.Key{Identifier: name, Instance: "default"},
			Change: storage.Change{NewID: name, Steps: 1, TTL: ttl},
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
	for n := 0; len(d.states) > dead+dead/4; n++ {
		if time.Now().After(deadline) {
			t.Fatalf("%d states are kept for %d carts", len(d.states), dead)
		}
		create(fmt.Sprint("another", n), time.Millisecond)
	}
}
