package main

import (
	"path/filepath"

	"github.com/sidecart/sidecart/internal/config"
)

var memoryBackend = &backend{
	product: config.Product{Type: config.BackendMemory},
	flags:   func(_, _ string) []string { return []string{"--backend", "memory"} },
	alone:   true,
}

var fileBackend = &backend{
	product: config.Product{Type: config.BackendFile},
	flags: func(_, dir string) []string {
		return []string{"--backend", "file", "--file-directory", filepath.Join(dir, "carts")}
	},
}
