//go:build !race

package lock

// tolerance is the share of what is counted by which a cart may take more.
const tolerance = 20
