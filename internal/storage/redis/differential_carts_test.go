package redis

import (
	"fmt"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// expire reports whether both carts expire together.
func (w *twins) expire(got, want *cart.Cart) bool {
	if got.ExpiresAt.IsZero() || want.ExpiresAt.IsZero() {
		return got.ExpiresAt.Equal(want.ExpiresAt)
	}
	return got.ExpiresAt.Sub(w.ends(want.ExpiresAt)).Abs() < time.Minute
}

// place is a cart to replace another: with items, conditions, metadata and tombstones, or without.
func (w *twins) place() *cart.Cart {
	c := &cart.Cart{ID: randomName(), Version: 1 + w.rand.Uint64N(20), CreatedAt: time.Now().Truncate(time.Millisecond).UTC()}
	version := func() uint64 { return 1 + w.rand.Uint64N(c.Version) }
	parts := []cart.Part{cart.PartItems, cart.PartConditions, cart.PartReceived, cart.PartLedger}
	for range w.rand.IntN(5) {
		parts = append(parts, cart.PartMetadata(fmt.Sprint("key", w.rand.IntN(100))))
	}
	for _, k := range []string{"z", "items", "c.{d}%", "a"} {
		parts = append(parts, cart.PartMetadata(k))
	}
	for _, p := range parts {
		value := fmt.Appendf(nil, `{"n":%d}`, w.rand.IntN(1000))
		if _, metadata := p.MetadataKey(); metadata && w.yes(3) {
			value = nil
		}
		if w.yes(4) {
			continue
		}
		if err := c.StorePart(p, value, version()); err != nil {
			w.Fatal(err)
		}
	}
	if w.yes(2) {
		c.Floor = version()
	}
	return c
}

// compareLife checks that the server keeps a cart for as long as the cart says, and the index as long as the cart.
func (w *twins) compareLife(key cart.Key, c *cart.Cart) {
	n := w.store.space.names(key)
	left := func(k string) time.Duration { return w.store.client.PTTL(w.Context(), k).Val() }
	kept, indexed := left(n.cart), left(n.index) // -1 for ever, -2 for a key that is not there
	switch {
	case !c.Exists():
	case c.ExpiresAt.IsZero() != (kept == -1), kept >= 0 && (kept-time.Until(c.ExpiresAt)).Abs() > time.Minute:
		w.Errorf("%v expires at %v, and is kept for %v", key, c.ExpiresAt, kept)
	case indexed != -1 && (indexed < kept-time.Minute || kept == -1):
		w.Errorf("%v is kept for %v, and its index for %v", key, kept, indexed)
	}
}
