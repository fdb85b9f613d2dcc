//go:build !long

package main

// troubled are the backends whose troubles TestTroubles brings about; with the build tag long, all.
var troubled = []string{"Redis", "SQLite", "File"}
