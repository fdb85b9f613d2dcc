// Bench measures what locking costs: add-item operations on one cart, split over one, two and five processes, through
// sidecars and as a program would make them without one. It starts its own Redis, builds the sidecar as it is released,
// runs everything interleaved on this machine, and marks each of the project's targets as met or missed.
//
// With -backends it measures every backend of this version beside a correct loop of read, change and write by that
// backend's own means. With -calls it measures what each call costs by itself, beside an empty one and beside Redis
// without a sidecar.
//
// It is a program and not a test: a busy machine gives other numbers, and those should not fail a build.
package main
