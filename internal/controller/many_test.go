//go:build !race

package controller

// manyStorages is for figures that mean something.
const manyStorages = 200

// quietTimes is how often each sidecar is asked while nothing happens.
const quietTimes = 4
