//go:build long

package lock_test

// addsEach is how many adds each writer of TestSeveralWritersLoseNothing makes; without the build tag long there are
// fewer.
const addsEach = 100
