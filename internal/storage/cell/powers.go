package cell

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// These are powers that only some drivers have. [storage.Beater], [storage.Advisor] and [storage.Auditor], with the
// fallbacks described there, and Record.NextFence are more.

// Pairer is a driver that changes two carts in one step. The fallback is that no two share a step: a hand-over between
// them runs as two steps, which the layer above can resume. A [Swapper] never has this power.
type Pairer interface {
	Pairs(a, b cart.Key) bool
}

// Lister is a driver that finds the carts of an identifier. The fallback is ErrUnsupported.
type Lister interface {
	// Instances lists the instances that exist, in any order, the reserved one included.
	Instances(ctx context.Context, identifier string) ([]string, error)
}

// Counter is a driver that counts the carts that exist. The fallback is ErrUnsupported.
type Counter interface {
	// Count stops when it has counted most carts. It leaves out reserved names ([cart.Key.Reserved]).
	Count(ctx context.Context, most int) (int, error)
}

// Flusher is a driver that finds its records. The fallback is ErrUnsupported.
type Flusher interface {
	// Flush deletes all records of the store, and nothing else in the backend.
	Flush(ctx context.Context) error
}

// Notifier is a driver whose stores hear of each other's releases. A message may get lost, but rarely. The fallback is
// that a waiter looks at the record at the pace of a [Pacer], with jitter. Releases in the same store wake without it,
// so a driver whose data is not shared does not need it.
type Notifier interface {
	// Notify tells the other stores of the same data that a change let in the waiters of these tokens. It does not
	// block.
	Notify(key cart.Key, tokens []string)
	// Listen is called once, before all else. The driver must call wake with the tokens that others notify of.
	Listen(wake func(tokens []string))
}

// Announcer is a driver whose stores hear of each other's changes of watched carts. A message may get lost, but rarely.
// The fallback is that a store hears of its own changes alone.
type Announcer interface {
	// Follow is called once, before all else. The driver must tell watches of the changes that other stores make.
	Follow(watches *storage.Watches)
	// Watching says that a cart is watched from now on.
	Watching(key cart.Key)
	// Announced reports whether the others know that the cart is watched, and this store hears them.
	Announced(key cart.Key) bool
}

// Pacer is a driver whose waiters look at the record at another pace, since each look costs money or time. The fallback
// is 2 to 20 ms.
type Pacer interface {
	// Pauses are the shortest and the longest pause between two looks of the first in the queue; those behind it pause
	// longer by their place.
	Pauses() (shortest, longest time.Duration)
}

// Hearer is a [Notifier] that may be deaf for a time, or for ever. The fallback is that it hears.
type Hearer interface {
	// Hears reports whether it hears what others notify of. While it does not, waiters look at the record every 2 to 20
	// ms, as they do without a Notifier.
	Hears() bool
}

// Prober is a driver with a probe of its own. The fallback takes a turn on a cart that no client can name, and gives it
// back, which is two updates.
type Prober interface {
	// Probe is [storage.Store.Ping].
	Probe(ctx context.Context) error
}

// Prover is a driver whose changes need more than a turn does. The fallback is that they do not.
type Prover interface {
	// Prove fails if something is missing that a change needs and a turn does not. It leaves nothing behind.
	Prove(ctx context.Context) error
}

// OutsideHeap is [storage.OutsideHeap], as a power of a driver.
type OutsideHeap = storage.OutsideHeap

// Walker is a driver that finds its records one page after the other: [storage.Walker]. The fallback is ErrUnsupported.
type Walker interface {
	// Page lists records that exist, with a cart or without.
	Page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error)
}

// FenceCounter is a driver whose Record.NextFence counts. A driver that sets NextFence must be one. For other drivers,
// whose fences come from the clock, the fallback is in the State.
type FenceCounter interface {
	// LastFence is the last fence that the counter gave.
	LastFence(ctx context.Context) (uint64, error)
	// RaiseFence lets the counter go on after fence, or after a greater number if it has given one.
	RaiseFence(ctx context.Context, fence uint64) error
}
