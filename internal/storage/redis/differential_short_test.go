//go:build !long

package redis

// differentialSeeds is how many sequences TestDifferential makes; with the build tag long there are more.
const differentialSeeds = 15
