package lock

import (
	"slices"

	"github.com/sidecart/sidecart/internal/cart"
)

// fewParts is up to how many comparisons scans beat a set. A change may have a thousand parts,
// one for each metadata key, and a line a thousand changes.
const fewParts = 256

// partSet is a set of parts that grows.
type partSet struct {
	all   bool // holds PartAll
	parts map[cart.Part]struct{}
}

func (s *partSet) add(parts ...cart.Part) {
	if s.parts == nil {
		s.parts = make(map[cart.Part]struct{}, len(parts))
	}
	for _, p := range parts {
		s.all = s.all || p == cart.PartAll
		s.parts[p] = struct{}{}
	}
}

func (s *partSet) has(p cart.Part) bool {
	_, ok := s.parts[p]
	return ok
}

// overlaps reports whether a lock over some of parts holds off one over some of s.
func (s *partSet) overlaps(parts []cart.Part) bool {
	switch {
	case len(s.parts) == 0 || len(parts) == 0:
		return false
	case s.all || slices.Contains(parts, cart.PartAll):
		return true
	}
	return slices.ContainsFunc(parts, s.has)
}

// overlap reports whether a lock over some of a holds off one over some of b.
func overlap(a, b []cart.Part) bool {
	if len(a)*len(b) <= fewParts {
		return slices.ContainsFunc(a, func(p cart.Part) bool { return slices.ContainsFunc(b, p.Overlaps) })
	}
	var s partSet
	s.add(a...)
	return s.overlaps(b)
}

// covers reports whether a lock over held holds off everybody who would change want.
func covers(held, want []cart.Part) bool {
	if slices.Contains(held, cart.PartAll) {
		return true
	}
	if len(held)*len(want) <= fewParts {
		return !slices.ContainsFunc(want, func(p cart.Part) bool { return !slices.Contains(held, p) })
	}
	var s partSet
	s.add(held...)
	return !slices.ContainsFunc(want, func(p cart.Part) bool { return !s.has(p) })
}
