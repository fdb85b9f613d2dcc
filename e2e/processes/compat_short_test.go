//go:build compat && !long

package processes

// mixedFleets are what two releases make histories on: Redis, which is written by hand, and SQLite for the engine that
// all other backends share. With the build tag long there are more.
var mixedFleets = map[string]fleet{"redis": {}, "sqlite": {sqlite: true}}
