package observe

import (
	"bytes"
	"sync"
)

// maxCarts is how many carts are remembered, with two values each. For one more, any other cart is forgotten, and the
// next two writes of that one cannot be judged.
const maxCarts = 10_000

// Counts say what was seen. The zero value says that nothing was.
type Counts struct {
	// Carts is how many different carts there are, as far as they are remembered.
	Carts int
	// Writes is how many writes the Detector was told of.
	Writes uint64
	// Lost is how many of them undid a change of the write before.
	Lost uint64
	// Repeated is how many wrote what was there already. So does the second of two that add the same item at once, and
	// a program that writes although nothing has changed.
	Repeated uint64
	// Missed is how many were replaced before they could be read, so that nobody knows what they were.
	Missed uint64
	// Opaque is how many values are neither JSON nor PHP's serialize format, so that they cannot be compared.
	Opaque uint64
}

// Loss is one lost update. It has no values, since those belong to the customers.
type Loss struct {
	Cart string
	// Gone is the path in the document of something that was taken back.
	Gone string
	// More is how many others were taken back by the same write.
	More int
}

// Detector judges the writes of carts. It is safe for concurrent use, but must be told of the writes of one cart in
// order.
type Detector struct {
	mu     sync.Mutex
	counts Counts
	carts  map[string]*history
}

// history has the last two values of a cart. fields is nil if there was none or it could not be read.
type history struct {
	raw          []byte
	before, last fields
}

// Missed notes n writes whose values nobody has seen.
func (d *Detector) Missed(n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts.Writes += n
	d.counts.Missed += n
}

// Found notes the value that a cart has before its first write.
func (d *Detector) Found(cart string, value []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, _ := parse(value)
	h := d.history(cart)
	h.raw, h.last = bytes.Clone(value), now
}

// Saw notes that a cart has a value now, nil for none, and returns what was lost with it, or nil.
//
// A write has lost an update if it undoes a change of the write before it and also changes another field. A shopper who
// takes back the last change does one thing at a time; a program that writes an old cart with a change of its own does
// both. A write that only removes fields may be a shopper who empties the cart, so it is not a loss. A field that both
// writes give a new value, such as a time, proves nothing, and neither do two changes of one quantity. So some losses
// are not counted.
func (d *Detector) Saw(cart string, value []byte) *Loss {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.history(cart)
	d.counts.Writes++
	if value != nil && bytes.Equal(h.raw, value) {
		d.counts.Repeated++
		return nil
	}
	now, ok := parse(value)
	if !ok {
		d.counts.Opaque++
	}
	loss := judge(cart, h.before, h.last, now)
	if loss != nil {
		d.counts.Lost++
	}
	h.raw, h.before, h.last = bytes.Clone(value), h.last, now
	return loss
}

// history is what is remembered of a cart.
func (d *Detector) history(cart string) *history {
	if h := d.carts[cart]; h != nil {
		return h
	}
	if d.carts == nil {
		d.carts = map[string]*history{}
	}
	for other := range d.carts {
		if len(d.carts) < maxCarts {
			break
		}
		delete(d.carts, other)
	}
	h := &history{}
	d.carts[cart] = h
	return h
}

// judge compares three values of a cart.
func judge(cart string, before, last, now fields) *Loss {
	if before == nil || last == nil || now == nil {
		return nil
	}
	var loss *Loss
	for path := range union(before, last) {
		if before[path] != last[path] && now[path] == before[path] {
			switch {
			case loss == nil:
				loss = &Loss{Cart: cart, Gone: path}
			case path < loss.Gone:
				loss.Gone = path
				loss.More++
			default:
				loss.More++
			}
		}
	}
	if loss == nil {
		return nil
	}
	another, sets := false, false
	for path := range union(last, now) {
		if last[path] == now[path] {
			continue
		}
		fresh, back := before[path] == last[path], before[path] == now[path]
		another = another || fresh
		sets = sets || (fresh || back) && now[path] != ""
	}
	if !another || !sets {
		return nil
	}
	return loss
}

// union visits the paths of both.
func union(a, b fields) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for path := range a {
			if !yield(path) {
				return
			}
		}
		for path := range b {
			if _, twice := a[path]; !twice && !yield(path) {
				return
			}
		}
	}
}

// Counts returns what was counted until now.
func (d *Detector) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.counts
	c.Carts = len(d.carts)
	return c
}
