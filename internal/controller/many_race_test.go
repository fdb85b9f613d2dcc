//go:build race

package controller

// manyStorages is enough to race; the detector makes all of it several times slower.
const manyStorages = 40

// quietTimes is how often each sidecar is asked while nothing happens, and settleTimes before that: while it is asked
// as often as one that is new, nothing may be written either.
const quietTimes, settleTimes = 1, 2
