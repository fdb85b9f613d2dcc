package cart

import "slices"

// fewParts is the number of comparisons up to which scans are faster than a set. A change may have a thousand parts,
// one for each metadata key, and a queue may have a thousand changes.
const fewParts = 256

// PartSet is a set of parts that grows. The zero value is empty.
type PartSet struct {
	all   bool // holds PartAll
	parts map[Part]struct{}
}

// Add puts parts into the set.
func (s *PartSet) Add(parts ...Part) {
	if s.parts == nil {
		s.parts = make(map[Part]struct{}, len(parts))
	}
	for _, p := range parts {
		s.all = s.all || p == PartAll
		s.parts[p] = struct{}{}
	}
}

// Len is how many parts the set has.
func (s *PartSet) Len() int { return len(s.parts) }

// Has reports whether p itself is in the set.
func (s *PartSet) Has(p Part) bool {
	_, ok := s.parts[p]
	return ok
}

// Overlaps reports whether a lock over parts excludes a lock over s.
func (s *PartSet) Overlaps(parts []Part) bool {
	switch {
	case len(s.parts) == 0 || len(parts) == 0:
		return false
	case s.all || slices.Contains(parts, PartAll):
		return true
	}
	return slices.ContainsFunc(parts, s.Has)
}

// Overlap reports whether a lock over a excludes a lock over b.
func Overlap(a, b []Part) bool {
	if len(a)*len(b) <= fewParts {
		return slices.ContainsFunc(a, func(p Part) bool { return slices.ContainsFunc(b, p.Overlaps) })
	}
	var s PartSet
	s.Add(a...)
	return s.Overlaps(b)
}

// Covers reports whether a lock over held keeps everybody else from changing any of want.
func Covers(held, want []Part) bool {
	if slices.Contains(held, PartAll) {
		return true
	}
	if len(held)*len(want) <= fewParts {
		return !slices.ContainsFunc(want, func(p Part) bool { return !slices.Contains(held, p) })
	}
	var s PartSet
	s.Add(held...)
	return !slices.ContainsFunc(want, func(p Part) bool { return !s.Has(p) })
}
