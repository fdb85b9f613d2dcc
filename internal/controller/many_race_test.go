//go:build race && !long

package controller

// manyStorages is enough to find races; the detector makes everything several times slower. With the build tag long
// there are more.
const manyStorages = 16

// quietTimes is how often each sidecar is asked while nothing happens.
const quietTimes = 1
