package storage

// Decorator is a store over another one. Its own methods are those of the contract, written out one by one. [As] finds
// the powers of the store below.
type Decorator interface {
	// Unwrap returns the store below.
	Unwrap() Store
}

// As finds a power that only some stores have: [Beater], [Advisor], [Auditor], [Counter], [Walker], [Fencer], [Loner],
// [Mover], [OutsideHeap], [Watcher] or [Meter]. The outermost store that has it answers; false means that the
// documented fallback holds. Do not ask for a [Locker] this way: a decorator of a Locker is one itself.
func As[Power any](s Store) (Power, bool) {
	for {
		if p, ok := s.(Power); ok {
			return p, true
		}
		d, ok := s.(Decorator)
		if !ok {
			var none Power
			return none, false
		}
		s = d.Unwrap()
	}
}

// OutsideHeap is a store that uses memory which Go's garbage collector does not know of. The fallback is 0 bytes.
type OutsideHeap interface {
	// OutsideHeap returns how much memory that is, in bytes.
	OutsideHeap() int64
}

// Meter is a store that counts its commits. The fallback is 0 commits.
type Meter interface {
	CommitCounts() CommitCounts
}

// CommitCounts count the commits that were asked of a store since it was opened.
type CommitCounts struct {
	// Commits are all of them; two that share a step count once.
	Commits uint64
	// Conflicts are those that were refused on a version; Locked, on a held lock.
	Conflicts, Locked uint64
}
