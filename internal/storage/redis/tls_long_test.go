//go:build long

package redis

import (
	"testing"

	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

// TestConformanceOverTLS: the whole contract is kept where both sides prove who they are.
func TestConformanceOverTLS(t *testing.T) {
	t.Run("Sentinel", func(t *testing.T) {
		storagetest.Run(t, harness(serversOverTLS(t, Sentinel).config), storagetest.Caps{})
	})
	t.Run("Cluster", func(t *testing.T) {
		storagetest.Run(t, harness(serversOverTLS(t, Cluster).config), storagetest.Caps{
			NoForeignPairs: "the identifier is the hash tag",
		})
	})
}
