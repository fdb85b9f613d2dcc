package lock_test

import (
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/redis"
	"github.com/sidecart/sidecart/internal/testserver"
)

func openMemory(t testing.TB) storage.Locker {
	t.Helper()
	s := memory.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// sharedBackends open a backend; what they return opens it once more, as a
// further sidecar would.
var sharedBackends = map[string]func(t *testing.T) func() storage.Store{
	"redis": func(t *testing.T) func() storage.Store {
		return openRedis(t, redis.Config{Addresses: []string{testserver.StartRedis(t).Addr}})
	},
}

func openRedis(t *testing.T, c redis.Config) func() storage.Store {
	c.Prefix, c.DialTimeout, c.ReadTimeout, c.WriteTimeout = "cart", time.Second, 5*time.Second, 5*time.Second
	return func() storage.Store {
		s, err := redis.New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}
