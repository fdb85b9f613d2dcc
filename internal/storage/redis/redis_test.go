package redis

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
	"github.com/sidecart/sidecart/internal/testserver"
)

// patient are timeouts for a machine that runs many tests at once.
const patient = 20 * time.Second

func open(t testing.TB, c Config) *Store {
	t.Helper()
	for _, d := range []*time.Duration{&c.DialTimeout, &c.ReadTimeout, &c.WriteTimeout} {
		if *d == 0 {
			*d = patient
		}
	}
	if c.Prefix == "" {
		c.Prefix = "cart"
	}
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// harness gives each subtest a prefix of its own, and the other prefix begins like it.
func harness(c Config) func(t *testing.T) storagetest.Harness {
	var n atomic.Int64
	return func(t *testing.T) storagetest.Harness {
		c := c
		c.Prefix = fmt.Sprint("p", n.Add(1))
		other := c
		other.Prefix += ".b"
		return storagetest.Harness{
			Store:  open(t, c),
			Second: func(t *testing.T) storage.Store { return open(t, c) },
			Other:  func(t *testing.T) storage.Store { return open(t, other) },
		}
	}
}

// TestConformance: the whole contract is kept in each form of Redis. In two of them the user has only the rights that
// the documentation names.
func TestConformance(t *testing.T) {
	t.Run("Standalone", func(t *testing.T) {
		r := testserver.StartRedis(t)
		storagetest.Run(t, harness(asLeastUser(t, Config{Addresses: []string{r.Addr}}, r)), storagetest.Caps{})
	})
	t.Run("Socket, database and namespace", func(t *testing.T) {
		r := testserver.StartRedis(t, testserver.WithSocket())
		storagetest.Run(t, harness(Config{Addresses: []string{r.Addr}, Database: 3, Namespace: "shop_cache_"}), storagetest.Caps{})
	})
	t.Run("Cluster", func(t *testing.T) {
		c := testserver.StartRedisCluster(t, 3)
		storagetest.Run(t, harness(asLeastUser(t, Config{Addresses: c.Addrs(), Mode: Cluster}, c.Nodes...)), storagetest.Caps{
			NoForeignPairs: "the identifier is the hash tag",
		})
	})
}
