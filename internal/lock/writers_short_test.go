//go:build !long

package lock_test

// addsEach is how many adds each writer of TestSeveralWritersLoseNothing makes; with the build tag long there are more.
const addsEach = 50
