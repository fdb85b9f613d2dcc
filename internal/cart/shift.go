package cart

import "maps"

// Shifted returns a copy of c in which every version above after is higher by by. It is the result of a change that was
// computed from version after, if changes of other parts raised the version before it was committed.
func (c *Cart) Shifted(after, by uint64) *Cart {
	s := *c
	if by == 0 {
		return &s
	}
	move := func(v *uint64) {
		if *v > after {
			*v += by
		}
	}
	move(&s.Version)
	move(&s.Items.Version)
	move(&s.Conditions.Version)
	move(&s.Floor)
	s.Metadata = append([]Entry(nil), c.Metadata...)
	for i := range s.Metadata {
		move(&s.Metadata[i].Version)
	}
	s.Removed = maps.Clone(c.Removed)
	for k, v := range s.Removed {
		move(&v)
		s.Removed[k] = v
	}
	return &s
}
