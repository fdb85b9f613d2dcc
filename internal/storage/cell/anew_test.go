package cell

import (
	"errors"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// raising is a commit that raises the version by one, whatever the cart is, and counts how often it was computed anew.
func raising(at *cart.Cart, times *int) storage.Commit {
	c := storage.Commit{
		Key: key, Expect: storage.Expect{ID: at.ID, Version: at.Version},
		Change: storage.Change{NewID: "id", Steps: 1, TTL: time.Hour},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartItems}},
	}
	c.Anew = func(k *cart.Cart) storage.Commit {
		*times++
		return raising(k, times)
	}
	return c
}

// TestAnewIsBounded: a commit that is outrun again and again ends in a conflict at last, and gets the turn that it asks
// for then.
func TestAnewIsBounded(t *testing.T) {
	d := newToy()
	s, h := openHostile(t, d)
	other, was := d.open(t), &cart.Cart{}
	h.before = func() {
		out, err := commit(t.Context(), other, key, was)
		if err != nil {
			t.Fatal(err)
		}
		was = &cart.Cart{ID: out.ID, Version: out.Base + 1}
	}
	h.often = mostRaces
	times := 0
	c := raising(&cart.Cart{}, &times)
	c.Locks.Claim = &storage.Claim{Token: "turn", Parts: c.Locks.Parts, Duration: time.Minute}
	outs, err := s.Commit(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if out := outs[0]; out.Status != storage.Conflict || out.Anew || !out.Claimed.Granted || out.Cart.Version != mostRaces || times != mostRaces-1 {
		t.Errorf("%+v, computed anew %d times", out, times)
	}
}

// TestUnknownIsNotComputedAnew: a swap with an unknown outcome is not made again. Otherwise its own value would be
// taken for somebody else's.
func TestUnknownIsNotComputedAnew(t *testing.T) {
	d := newToy()
	s, h := openHostile(t, d)
	if _, err := commit(t.Context(), s, key, &cart.Cart{}); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]*cart.Cart{"as expected": {ID: "id", Version: 1}, "computed anew": {ID: "id", Version: 99}} {
		before, err := s.Load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		h.after = storage.ErrUnavailable
		times := 0
		if _, err := s.Commit(t.Context(), raising(at, &times)); !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := s.Load(t.Context(), key); err != nil || now.Version != before.Version+1 || times > 1 {
			t.Errorf("%s: version %d after %d, computed anew %d times, %v", name, now.Version, before.Version, times, err)
		}
	}
}
