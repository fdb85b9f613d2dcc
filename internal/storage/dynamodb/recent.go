package dynamodb

import (
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

const (
	// recentFor is how long an item that was read or written serves as the one to change. A change that finds another
	// one in its place is paid for nothing, and a write costs five times what a read does, so the item must be very
	// likely the same still: it is while a sidecar makes its changes under a lock, one after the other.
	recentFor = 50 * time.Millisecond
	// recentBytes is how much of them is kept.
	recentBytes = 4 << 20
)

// recent are the items that this process read or wrote a moment ago.
type recent struct {
	mu    sync.Mutex
	items map[cart.Key]recentItem
	bytes int
}

type recentItem struct {
	state    []byte
	revision uint64
	at       time.Time
}

// keep notes what is under a key; revision 0 is nothing.
func (r *recent) keep(key cart.Key, state []byte, revision uint64) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes+len(state) > recentBytes || r.items == nil { // mostly of what is too old anyway
		r.items, r.bytes = map[cart.Key]recentItem{}, 0
	}
	const overhead = 256 // of an entry: small ones are bounded too
	if old, ok := r.items[key]; ok {
		r.bytes -= len(old.state) + overhead
	}
	r.items[key] = recentItem{state, revision, now}
	r.bytes += len(state) + overhead
}

func (r *recent) drop(key cart.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if it, ok := r.items[key]; ok {
		it.at = time.Time{}
		r.items[key] = it
	}
}

func (r *recent) get(key cart.Key) (state []byte, revision uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	it, ok := r.items[key]
	return it.state, it.revision, ok && time.Since(it.at) < recentFor
}
