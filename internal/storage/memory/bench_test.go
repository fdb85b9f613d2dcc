package memory

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// commitOnce changes the cart of key by one step, from version 0 or from at.
func commitOnce(ctx context.Context, s storage.Store, key cart.Key, at *cart.Cart, release string) (storage.Outcome, error) {
	c := storage.Commit{
		Key: key, Expect: storage.Expect{ID: at.ID, Version: at.Version},
		Change: storage.Change{NewID: "id", Steps: 1, TTL: time.Hour, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(`{"a":1}`), Step: 1}}},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartItems}},
	}
	if release != "" {
		c.Locks.Token, c.Locks.MustHold, c.Locks.Release = release, true, true
	}
	outs, err := s.Commit(ctx, c)
	if err == nil && outs[0].Status != storage.Committed {
		err = fmt.Errorf("not committed: %+v", outs[0])
	}
	if err != nil {
		return storage.Outcome{}, err
	}
	return outs[0], nil
}

// BenchmarkCommit changes one cart again and again, and so do others with theirs.
func BenchmarkCommit(b *testing.B) {
	s := New()
	defer s.Close()
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		key := cart.Key{Identifier: "u1", Instance: fmt.Sprint(n.Add(1))}
		at := &cart.Cart{}
		for pb.Next() {
			out, err := commitOnce(b.Context(), s, key, at, "")
			if err != nil {
				b.Error(err)
				return
			}
			at = &cart.Cart{ID: out.ID, Version: out.Base + 1}
		}
	})
}

// BenchmarkTurn takes a turn and gives it back with a change.
func BenchmarkTurn(b *testing.B) {
	s := New()
	defer s.Close()
	key := cart.Key{Identifier: "u1", Instance: "default"}
	claim := storage.Claim{Token: "turn", Parts: []cart.Part{cart.PartAll}, Duration: time.Minute}
	b.ReportAllocs()
	for b.Loop() {
		g, err := s.Acquire(b.Context(), key, claim, false)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := commitOnce(b.Context(), s, key, g.Cart, claim.Token); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLoad reads a cart.
func BenchmarkLoad(b *testing.B) {
	s := New()
	defer s.Close()
	key := cart.Key{Identifier: "u1", Instance: "default"}
	if _, err := commitOnce(b.Context(), s, key, &cart.Cart{}, ""); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Load(b.Context(), key); err != nil {
			b.Fatal(err)
		}
	}
}
