package memcached

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
	"github.com/sidecart/sidecart/internal/testserver"
)

func TestConformance(t *testing.T) {
	for name, tc := range map[string]struct {
		servers, largest int
		args             []string
	}{
		"one server":    {1, 1 << 20, nil},
		"three servers": {3, 0, []string{"-I", "8m", "-m", "256"}},
	} {
		t.Run(name, func(t *testing.T) {
			addresses := start(t, tc.servers, tc.args...)
			var prefixes atomic.Int64
			storagetest.Run(t, func(t *testing.T) storagetest.Harness {
				prefix := fmt.Sprint("cart", prefixes.Add(1)) // there is nothing under it yet
				return storagetest.Harness{
					Store:  open(t, addresses, prefix),
					Second: func(t *testing.T) storage.Store { return open(t, addresses, prefix) },
					Other:  func(t *testing.T) storage.Store { return open(t, addresses, prefix+".a") },
				}
			}, storagetest.Caps{
				NoPairs:      "a cas is of one value",
				NoInstances:  "Memcached does not list its keys, and an index may be forgotten by itself",
				NoCount:      "Memcached does not list its keys",
				NoWalk:       "Memcached does not list its keys",
				NoFlush:      "Memcached does not list its keys, and flush_all deletes what belongs to others",
				MaxCartBytes: tc.largest,
			})
		})
	}
}

// start starts servers that are empty.
func start(t *testing.T, n int, args ...string) (addresses []string) {
	t.Helper()
	for range n {
		addresses = append(addresses, testserver.StartMemcached(t, args...).Addr)
	}
	return addresses
}

// patient is for a machine that runs much else.
const patient = 10 * time.Second

func open(t *testing.T, addresses []string, prefix string) *cell.Store {
	t.Helper()
	s := New(Config{Addresses: addresses, Prefix: prefix, Dial: patient, Read: patient, Write: patient})
	t.Cleanup(func() { _ = s.Close() })
	return s
}
