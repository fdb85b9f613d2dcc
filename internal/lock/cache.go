package lock

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// cache remembers the last known state of carts, so that a change can be computed without a read first. It may be out
// of date: a commit depends on the state that it was computed from, and a conflict returns the current one.
type cache struct {
	seed maphash.Seed
	// Several small lists, so that carts do not contend for one mutex.
	parts [16]cachePart
}

// cacheBytes bounds the memory of the carts remembered, in each of the parts.
const cacheBytes = 1 << 20

type cachePart struct {
	mu    sync.Mutex
	byKey map[cart.Key]*list.Element
	order list.List // of *cached, most recent first
	bytes int
	// clock rises with every commit on one of these carts. A read that was under way during a commit may return an
	// older state.
	clock uint64
}

type cached struct {
	key  cart.Key
	cart *cart.Cart
	size int
	// own says that the state is from a commit of this sidecar. If the backend has another state, somebody else wrote
	// it.
	own bool
	// turn is when this sidecar last changed the cart under a turn of its own.
	turn time.Time
}

func newCache() *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.parts {
		c.parts[i].byKey = make(map[cart.Key]*list.Element)
	}
	return c
}

func (c *cache) part(key cart.Key) *cachePart {
	return &c.parts[maphash.Comparable(c.seed, key)%uint64(len(c.parts))]
}

// get returns the last known state, or nil if nothing is known.
func (c *cache) get(key cart.Key) (k *cart.Cart, own bool) {
	p := c.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.byKey[key]
	if !ok {
		return nil, false
	}
	p.order.MoveToFront(e)
	v := e.Value.(*cached)
	p.weigh(v) // a document that was parsed since takes more memory
	return v.cart, v.own
}

// used notes that the cart was used without a commit. That may have made its entry larger.
func (c *cache) used(key cart.Key) {
	p := c.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.byKey[key]; ok {
		p.weigh(e.Value.(*cached))
	}
}

// begin marks the start of a commit. The cache then takes no state from reads that began before it.
func (c *cache) begin(key cart.Key) {
	p := c.part(key)
	p.mu.Lock()
	p.clock++
	p.mu.Unlock()
}

// set remembers the state that a commit of this sidecar wrote or found.
func (c *cache) set(key cart.Key, k *cart.Cart) {
	p := c.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock++
	v := &cached{key: key, cart: k, own: true}
	if e, ok := p.byKey[key]; ok {
		v.turn = e.Value.(*cached).turn
	}
	p.put(v)
}

// busy is how close two turns on one cart must be to make a third one likely.
const busy = 50 * time.Millisecond

// takesTurns notes a turn and reports whether the previous one was less than busy ago. Then several sidecars keep
// changing this cart.
func (c *cache) takesTurns(key cart.Key) bool {
	p := c.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.byKey[key]
	if !ok {
		return false
	}
	v, now := e.Value.(*cached), time.Now()
	again := now.Sub(v.turn) < busy
	v.turn = now
	return again
}

// remember calls set if the whole state is known, and drop if only some parts are.
func (c *cache) remember(key cart.Key, k *cart.Cart, whole bool) {
	if whole {
		c.set(key, k)
	} else {
		c.drop(key)
	}
}

// drop forgets a cart if its state is in doubt.
func (c *cache) drop(key cart.Key) {
	p := c.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock++
	p.remove(key)
}

// stamp returns the clock before a read. It is passed to offer after the read.
func (c *cache) stamp(key cart.Key) uint64 {
	p := c.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clock
}

// offer remembers what a read found, unless a commit came in between. The state is not marked as own, since another
// writer may have made it.
func (c *cache) offer(key cart.Key, k *cart.Cart, stamp uint64) {
	p := c.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clock != stamp {
		return
	}
	if e, ok := p.byKey[key]; ok {
		if old := e.Value.(*cached).cart; old.ID == k.ID && old.Version == k.Version && old.Ledger.Version == k.Ledger.Version {
			return // nothing new: keep the mark of who wrote it
		}
	}
	p.put(&cached{key: key, cart: k})
}

func (c *cache) clear() {
	for i := range c.parts {
		p := &c.parts[i]
		p.mu.Lock()
		p.clock++
		clear(p.byKey)
		p.order.Init()
		p.bytes = 0
		p.mu.Unlock()
	}
}

func (p *cachePart) put(v *cached) {
	p.remove(v.key)
	p.byKey[v.key] = p.order.PushFront(v)
	p.weigh(v)
}

// weigh counts an entry at its current size, and drops entries until the cache fits its bound.
func (p *cachePart) weigh(v *cached) {
	p.bytes -= v.size
	v.size = size(v)
	p.bytes += v.size
	if v.size > cacheBytes/2 {
		p.remove(v.key) // one large cart must not push out all others
	}
	for p.bytes > cacheBytes {
		p.remove(p.order.Back().Value.(*cached).key)
	}
}

func (p *cachePart) remove(key cart.Key) {
	if e, ok := p.byKey[key]; ok {
		p.bytes -= p.order.Remove(e).(*cached).size
		delete(p.byKey, key)
	}
}

// size estimates how much memory an entry takes, in bytes.
func size(v *cached) int {
	// The entry, its element of the list, and its slot in the map, which has room for up to twice as many.
	const overhead = 96 + 48 + 2*(32+8+1)
	return overhead + len(v.key.Identifier) + len(v.key.Instance) + v.cart.Footprint()
}
