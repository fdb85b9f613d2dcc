package lock

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// cache remembers the last known state of carts, so that a change can be computed without a read first. It may be
// wrong: a commit is conditional on what it was computed from, and a conflict brings the truth.
type cache struct {
	seed maphash.Seed
	// Several small lists, so that carts do not meet on one mutex.
	parts [16]cachePart
}

// cacheBytes bounds the memory of the carts remembered, in each of the parts.
const cacheBytes = 1 << 20

type cachePart struct {
	mu    sync.Mutex
	byKey map[cart.Key]*list.Element
	order list.List // of *cached, most recent first
	bytes int
	// clock rises with every commit on one of these carts: a read that was under way meanwhile may have an older state
	// to offer.
	clock uint64
}

type cached struct {
	key  cart.Key
	cart *cart.Cart
	size int
	// own says that the state is from a commit of this sidecar. If the backend has another state, then somebody else
	// wrote.
	own bool
	// turn is when this sidecar last changed the cart in a turn of its own.
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
	p.weigh(v) // a document that has been parsed since takes more
	return v.cart, v.own
}

// used notes that the cart was worked on without a commit, which may have made its entry larger.
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

// set remembers the state that a commit of this sidecar left or found.
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

// busy is how soon after a turn another one of the same cart makes it likely that a third will follow.
const busy = 50 * time.Millisecond

// takesTurns notes a turn and reports whether the one before was just now: then several sidecars change this cart again
// and again.
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

// drop forgets a cart whose state is in doubt.
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
			return // nothing new; keep what is known of its origin
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

// weigh counts an entry as large as it is now, and drops what is too much for the cache.
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

// size is about how much memory an entry takes, in bytes.
func size(v *cached) int {
	// The entry, its element of the list, and its slot in the map, which has room for up to twice as many.
	const overhead = 96 + 48 + 2*(32+8+1)
	return overhead + len(v.key.Identifier) + len(v.key.Instance) + v.cart.Footprint()
}
