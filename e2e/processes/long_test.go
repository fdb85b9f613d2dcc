//go:build long

package processes

// defaultRuns is how many histories each test makes; without the build tag long there are fewer.
const defaultRuns = 10
