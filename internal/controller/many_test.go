//go:build !race

package controller

// manyStorages is for figures that mean something.
const manyStorages = 200

// quietTimes is how often each sidecar is asked while nothing happens, and settleTimes before that, since one that is
// new is asked more often at first.
const quietTimes, settleTimes = 4, int(changeLasts/askLatest) + 1
