package lock

import (
	"fmt"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

// TestListedLeasesAreBounded: leases on ever new names do not fill the memory, and those that a call waits for stay.
func TestListedLeasesAreBounded(t *testing.T) {
	var s leases
	watched := cart.Key{Identifier: "watched", Instance: "default"}
	s.add(watched, Lease{Token: "held"}, time.Hour)
	gone := s.released(watched, "held")
	for i := range 3 * MaxListed {
		s.add(cart.Key{Identifier: fmt.Sprint(i), Instance: "default"}, Lease{Token: "t"}, time.Hour)
	}
	if n := len(s.list()); n != MaxListed {
		t.Errorf("%d are listed, want %d", n, MaxListed)
	}
	last := leaseID{cart.Key{Identifier: fmt.Sprint(3*MaxListed - 1), Instance: "default"}, "t"}
	if s.byID[last] == nil {
		t.Error("the last is not listed")
	}
	s.end(watched, "held")
	select {
	case <-gone:
	default:
		t.Error("who waits for the end of a lease was not told")
	}
}
