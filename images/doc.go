// Package images tests the container images that tools/images builds, as those who get one would: it reads the archives
// with nothing but the standard library. It holds no code of its own.
package images
