//go:build race

package controller

// manyStorages is enough to race; the detector makes all of it several times slower.
const manyStorages = 40
