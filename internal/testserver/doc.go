// Package testserver starts real servers for tests and benchmarks, each in its own folder, on loopback only, and stops
// them by process id when the test ends. A missing binary fails the test; it is never skipped.
//
// It imports the standard library only, and no part of the product imports it.
package testserver
