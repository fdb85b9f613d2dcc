package proxy

import (
	"container/list"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// seenCarts remembers what the last GetCart of each user of a demo shop saw, so that the EmptyCart at the end of a
// checkout takes exactly that.
type seenCarts struct {
	mu    sync.Mutex
	of    map[string]*list.Element
	order list.List // of *seenCart, the oldest first
	size  int       // of all of them
}

// seenCart is what one GetCart saw. An EmptyCart takes its items. After that there is nothing to take until the next
// GetCart.
type seenCart struct {
	user  string
	items []cart.ItemQuantity
	etag  string // of the items
	until time.Time
	size  int
	// unsure says that a change which took the items may have been made. They must not be taken again, unless the
	// cart's items are unchanged.
	unsure bool
}

// mostSeen bounds the memory of seenCarts, in bytes. The oldest are forgotten first.
const mostSeen = 4 << 20

// note records what a GetCart saw. If the window is 0, it records nothing.
func (s *seenCarts) note(user string, window time.Duration, items []cart.ItemQuantity, etag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if e := s.of[user]; e != nil {
		s.drop(e)
	}
	if window > 0 {
		const each, perItem = 400, 32 // what Go needs in addition to the texts
		c := &seenCart{user: user, items: items, etag: etag, until: now.Add(window), size: each + len(user) + len(etag)}
		for _, i := range items {
			c.size += perItem + len(i.ID)
		}
		if s.of == nil {
			s.of = map[string]*list.Element{}
		}
		s.of[user] = s.order.PushBack(c)
		s.size += c.size
	}
	for e := s.order.Front(); e != nil && (window <= 0 || s.size > mostSeen || now.After(e.Value.(*seenCart).until)); e = s.order.Front() {
		s.drop(e)
	}
}

func (s *seenCarts) drop(e *list.Element) {
	c := s.order.Remove(e).(*seenCart)
	s.size -= c.size
	delete(s.of, c.user)
}

// taking is what an EmptyCart takes.
type taking struct {
	items  []cart.ItemQuantity
	etag   string
	unsure bool
	// took says how it ended.
	took func(error)
}

// take returns what to take from the user's cart; nil if no GetCart within the window is remembered. Of two concurrent
// calls the second finds nothing to take.
func (s *seenCarts) take(user string) *taking {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.of[user]
	if e == nil {
		return nil
	}
	c := e.Value.(*seenCart)
	if time.Now().After(c.until) {
		return nil
	}
	t := &taking{items: c.items, etag: c.etag, unsure: c.unsure}
	c.items = nil
	t.took = func(err error) {
		if err == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		c.items, c.unsure = t.items, c.unsure || !unchanged(err)
	}
	return t
}
