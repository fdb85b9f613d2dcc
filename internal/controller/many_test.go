//go:build !race

package controller

// manyStorages is for figures that mean something.
const manyStorages = 200
