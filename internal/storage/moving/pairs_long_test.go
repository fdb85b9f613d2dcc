//go:build long

package moving_test

// movedPairs are those between which carts move in tests of faults and of load.
func movedPairs() []string { return allPairs() }
