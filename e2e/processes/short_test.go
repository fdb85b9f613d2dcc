//go:build !long

package processes

// defaultRuns is how many histories each test makes; with the build tag long there are more.
const defaultRuns = 2
