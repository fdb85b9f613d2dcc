package lock

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// leases are the leases that were acquired through this sidecar. The status page shows them, and a stream that holds
// one is told when it is released. Only the backend knows which of them are still held. The list holds at most
// [MaxListed], so that a client which keeps taking long leases on new names does not fill the memory.
type leases struct {
	mu   sync.Mutex
	byID map[leaseID]*listed
}

// MaxListed is how many leases a sidecar lists and counts as held.
const MaxListed = 4096

type leaseID struct {
	key   cart.Key
	token string
}

// listed is a lease in the list.
type listed struct {
	Lease
	since time.Time
	ends  time.Time     // by this process's clock
	gone  chan struct{} // closed when it was released
	// watched says that somebody waits for gone.
	watched bool
}

func (s *leases) add(key cart.Key, l Lease, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = make(map[leaseID]*listed)
	}
	now := time.Now()
	// Each addition checks a few others and drops those that have ended, so that few ended leases stay. Go starts the
	// range over a map at a random place.
	looks := 8
	for id, h := range s.byID {
		if !now.Before(h.ends) {
			delete(s.byID, id)
		}
		if looks--; looks == 0 {
			break
		}
	}
	for id, h := range s.byID {
		if len(s.byID) < MaxListed {
			break
		}
		if !h.watched {
			delete(s.byID, id)
		}
	}
	l.Cart = nil
	s.byID[leaseID{key, l.Token}] = &listed{Lease: l, since: now, ends: now.Add(d), gone: make(chan struct{})}
}

func (s *leases) renew(key cart.Key, l Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.byID[leaseID{key, l.Token}]; h != nil {
		h.Lease, h.ends = l, time.Now().Add(l.Duration)
	}
}

// parts returns what the lease covers; nil if the lease is not in the list.
func (s *leases) parts(key cart.Key, token string) []cart.Part {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.byID[leaseID{key, token}]; h != nil {
		return h.Parts
	}
	return nil
}

// end notes that a lease is not held any more.
func (s *leases) end(key cart.Key, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := leaseID{key, token}
	if h := s.byID[id]; h != nil {
		close(h.gone)
		delete(s.byID, id)
	}
}

// released returns a channel that is closed when the lease is released through this sidecar.
func (s *leases) released(key cart.Key, token string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.byID[leaseID{key, token}]; h != nil {
		h.watched = true
		return h.gone
	}
	return nil
}

// clear drops all leases, after the backend was flushed.
func (s *leases) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.byID)
}

// HeldLease is a lease as it may be shown to people: without its token.
type HeldLease struct {
	Key cart.Key
	storage.Lease
	// Since is when it was granted, by this sidecar's clock.
	Since time.Time
	// Waiting is how many changes and leases wait for that cart in this sidecar.
	Waiting int
}

// list returns the held leases, oldest first, and drops those that have ended.
func (s *leases) list() []HeldLease {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var held []HeldLease
	for id, h := range s.byID {
		if !now.Before(h.ends) {
			delete(s.byID, id)
			continue
		}
		held = append(held, HeldLease{Key: id.key, Lease: h.Lease.Lease, Since: h.since})
	}
	slices.SortFunc(held, func(a, b HeldLease) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Fence, b.Fence)) })
	return held
}
