package cell

import (
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// Recent are the values that a process read or stored a moment ago: what a [Recaller] needs. It is safe for concurrent
// use.
type Recent struct {
	keeps time.Duration

	mu     sync.Mutex
	values map[cart.Key]recentValue
	bytes  int
}

type recentValue struct {
	value    []byte
	revision uint64
	at       time.Time // zero where the value has gone
	recalled int       // how often since it was read
}

const (
	// recentBytes is how much is kept.
	recentBytes = 4 << 20
	// mostRecalled is how often a value is recalled, and stored anew, before it is read again. A store that recalls
	// changes a value in one round trip where the others need two, and would win every race. While it reads, the others
	// have the same chance.
	mostRecalled = 8
)

// NewRecent returns a Recent that keeps values for the time keeps. The less a failed Swap costs, the longer that should
// be.
func NewRecent(keeps time.Duration) *Recent { return &Recent{keeps: keeps} }

// Read notes what was read under a key; revision 0 is nothing.
func (r *Recent) Read(key cart.Key, value []byte, revision uint64) {
	r.keep(key, value, revision, false)
}

// Stored notes what was stored under a key; revision 0 is nothing.
func (r *Recent) Stored(key cart.Key, value []byte, revision uint64) {
	r.keep(key, value, revision, true)
}

func (r *Recent) keep(key cart.Key, value []byte, revision uint64, stored bool) {
	const overhead = 256 // of an entry: small ones are bounded too
	r.mu.Lock()
	defer r.mu.Unlock()
	old, ok := r.values[key]
	if r.bytes+len(value) > recentBytes || r.values == nil { // mostly of what is too old anyway
		r.values, r.bytes, ok = map[cart.Key]recentValue{}, 0, false
	}
	if ok {
		r.bytes -= len(old.value) + overhead
	}
	v := recentValue{value: value, revision: revision, at: time.Now()}
	if stored { // in the place of one that was recalled, or not
		v.recalled = old.recalled
	}
	r.values[key] = v
	r.bytes += len(value) + overhead
}

// Drop notes that the value of a key is not known any more.
func (r *Recent) Drop(key cart.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.values[key]; ok {
		v.at = time.Time{}
		r.values[key] = v
	}
}

// Recall implements [Recaller].
func (r *Recent) Recall(key cart.Key) (value []byte, revision uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.values[key]
	if !ok || time.Since(v.at) >= r.keeps || v.recalled >= mostRecalled {
		return nil, 0, false
	}
	v.recalled++
	r.values[key] = v
	return v.value, v.revision, true
}
