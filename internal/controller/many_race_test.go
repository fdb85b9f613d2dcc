//go:build race

package controller

// manyStorages is enough to race; the detector makes all of it several times slower.
const manyStorages = 40

// quietTimes is how often each sidecar is asked while nothing happens.
const quietTimes = 1
