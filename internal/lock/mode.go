package lock

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// mode says whether distributed locking is on. Every change reads it. It is written when options change or the tripwire
// trips.
type mode struct {
	locking atomic.Bool
	foreign atomic.Uint64

	mu      sync.Mutex
	can     bool
	tripped bool
	reason  string
	since   time.Time
}

func (m *mode) configure(o Options, caps storage.Capabilities) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.can = caps.Locks && caps.Shared
	switch {
	case o.Locking && m.can:
		m.set(true, o.Reason)
		m.tripped = false // the configuration now says the same as the tripwire
	case o.Locking:
		m.set(false, caps.Backend+"CannotLockAcrossReplicas")
	case m.tripped:
	default:
		m.set(false, o.Reason)
	}
}

func (m *mode) set(on bool, reason string) {
	if m.since.IsZero() || m.locking.Load() != on {
		m.since = time.Now()
	}
	m.locking.Store(on)
	m.reason = reason
}

// trip notes a foreign writer. It reports whether that turned locking on, or would have if the store could lock.
func (m *mode) trip() bool {
	m.foreign.Add(1)
	if m.locking.Load() {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tripped || m.locking.Load() {
		return false
	}
	m.tripped = true
	if m.can {
		m.set(true, EventForeignWriter)
	}
	return true
}

// foreignWriter is the tripwire. It is called when somebody else changed a cart after this sidecar's own last change.
func (c *Coordinator) foreignWriter(key cart.Key) {
	if !c.mode.trip() {
		return
	}
	if f := c.opts.Load().OnEvent; f != nil {
		msg := "another writer changed " + key.String() + " while locking was off here: locking is on from now"
		if !c.mode.can {
			msg = "another writer changed " + key.String() + ", and this backend cannot lock across replicas: changes stay conditional on the version"
		}
		f(Event{Kind: EventForeignWriter, Key: key, Message: msg})
	}
}

// Status of a coordinator.
type Status struct {
	// Locking says whether distributed locking is on, and Reason why.
	Locking bool
	Reason  string
	// Since is when it last changed.
	Since time.Time
	// ForeignWriters counts version conflicts that this sidecar did not cause.
	ForeignWriters uint64
	// Queues are the carts for which changes and leases wait now, longest queue first, at most 20.
	Queues []Queue
	// Leases are those that were acquired through this sidecar and have not ended, oldest first, at most 100.
	Leases []HeldLease
	// Stats are counters since the start.
	Stats Stats
}

// Queue is a cart for which changes or leases wait.
type Queue struct {
	Key     cart.Key
	Waiting int
	// Since is when the oldest of them came.
	Since time.Time
}

// Stats count since the start.
type Stats struct {
	// Changes are changes answered with success.
	Changes uint64
	// CommitCounts count the commits that carried them, if the store is a [storage.Meter].
	storage.CommitCounts
	// Acquired counts locks taken in the backend. Timeouts counts waits that ended without one.
	Acquired, Timeouts uint64
	// LeasesGranted counts leases granted to clients, LeaseTimeouts requests that waited in vain, and LeasesLost
	// answers that a lease was lost.
	LeasesGranted, LeaseTimeouts, LeasesLost uint64
	// Waiting is how many changes and leases wait now, and LeasesHeld how many leases are held.
	Waiting, LeasesHeld int64
}

type stats struct {
	changes, acquired, timeouts              atomic.Uint64
	leasesGranted, leaseTimeouts, leasesLost atomic.Uint64
}

const (
	maxQueuesShown = 20
	maxLeasesShown = 100
)

// Status returns what the status page shows.
func (c *Coordinator) Status() Status {
	s := Status{
		Locking:        c.mode.locking.Load(),
		ForeignWriters: c.mode.foreign.Load(),
		Stats: Stats{
			Changes: c.stats.changes.Load(), Acquired: c.stats.acquired.Load(), Timeouts: c.stats.timeouts.Load(),
			LeasesGranted: c.stats.leasesGranted.Load(), LeaseTimeouts: c.stats.leaseTimeouts.Load(), LeasesLost: c.stats.leasesLost.Load(),
		},
	}
	if m, ok := storage.As[storage.Meter](c.store); ok {
		s.Stats.CommitCounts = m.CommitCounts()
	}
	c.mode.mu.Lock()
	s.Reason, s.Since = c.mode.reason, c.mode.since
	c.mode.mu.Unlock()
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		for key, q := range sh.queues {
			if n, since := q.waiting(); n > 0 {
				s.Queues = append(s.Queues, Queue{Key: key, Waiting: n, Since: since})
				s.Stats.Waiting += int64(n)
			}
		}
		sh.mu.Unlock()
	}
	s.Leases = c.leases.list()
	s.Stats.LeasesHeld = int64(len(s.Leases))
	s.Leases = s.Leases[:min(len(s.Leases), maxLeasesShown)]
	for i := range s.Leases {
		s.Leases[i].Waiting = c.waitingFor(s.Leases[i].Key)
	}
	slices.SortFunc(s.Queues, func(a, b Queue) int { return cmp.Compare(b.Waiting, a.Waiting) })
	s.Queues = s.Queues[:min(len(s.Queues), maxQueuesShown)]
	return s
}

// waitingFor is how many changes and leases wait in the queue of a cart.
func (c *Coordinator) waitingFor(key cart.Key) (n int) {
	sh := c.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if q := sh.queues[key]; q != nil {
		n, _ = q.waiting()
	}
	return n
}
