// Package images tests the container images that tools/images builds from the side of their users: it reads the
// archives with the standard library alone. It holds only tests.
package images
