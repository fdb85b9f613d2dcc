//go:build race

package lock

// tolerance is the share of what is counted by which a cart may take more: the race detector gives each small text a
// block of its own.
const tolerance = 4
