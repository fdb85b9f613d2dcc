//go:build long

package redis

// differentialSeeds is how many sequences TestDifferential makes; without the build tag long there are fewer.
const differentialSeeds = 30
