//go:build race && long

package controller

// manyStorages is as many as the race detector lets a machine have in some minutes.
const manyStorages = 40

// quietTimes is how often each sidecar is asked while nothing happens.
const quietTimes = 1
