package lock_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/dynamodb"
	"github.com/sidecart/sidecart/internal/storage/file"
	"github.com/sidecart/sidecart/internal/storage/memcached"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/middleware"
	"github.com/sidecart/sidecart/internal/storage/mysql"
	"github.com/sidecart/sidecart/internal/storage/postgres"
	"github.com/sidecart/sidecart/internal/storage/redis"
	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/storage/sqlite"
	"github.com/sidecart/sidecart/internal/testserver"
)

func openMemory(t testing.TB) storage.Locker {
	t.Helper()
	s := middleware.Measure(memory.New())
	t.Cleanup(func() { _ = s.Close() })
	return s.(storage.Locker)
}

// sharedBackends open a backend; what they return opens it once more, as a further sidecar would.
var sharedBackends = map[string]func(t *testing.T) func() storage.Store{
	"file": func(t *testing.T) func() storage.Store {
		c := file.Config{Directory: t.TempDir(), Prefix: "cart"}
		return func() storage.Store { return opened[*cell.Store](t)(file.Open(c)) }
	},
	"memcached": func(t *testing.T) func() storage.Store {
		c := memcached.Config{Addresses: []string{testserver.StartMemcached(t).Addr}, Prefix: "cart"}
		c.Dial, c.Read, c.Write = time.Second, 5*time.Second, 5*time.Second
		return func() storage.Store { return opened[*cell.Store](t)(memcached.New(c), nil) }
	},
	"redis": func(t *testing.T) func() storage.Store {
		c := redis.Config{Addresses: []string{testserver.StartRedis(t).Addr}, Prefix: "cart"}
		c.DialTimeout, c.ReadTimeout, c.WriteTimeout = time.Second, 5*time.Second, 5*time.Second
		return func() storage.Store { return opened[*redis.Store](t)(redis.New(t.Context(), c)) }
	},
	"dynamodb": func(t *testing.T) func() storage.Store {
		c := dynamodb.Config{Table: "carts", Region: "local", Endpoint: testserver.StartDynalite(t).Endpoint, CreateTable: true, Prefix: "cart"}
		c.AccessKeyID, c.SecretAccessKey = storage.NewSecret("AKIDEXAMPLE", "id"), storage.NewSecret("wJalrXUtnFEMI", "secret")
		c.DialTimeout, c.ReadTimeout, c.WriteTimeout = time.Second, 5*time.Second, 5*time.Second
		return func() storage.Store { return opened[*cell.Store](t)(dynamodb.New(t.Context(), c)) }
	},
	"postgres": func(t *testing.T) func() storage.Store {
		c := database(testserver.SharedPostgres(t).NewDatabase(t))
		return func() storage.Store { return opened[*cell.Store](t)(postgres.Open(t.Context(), c)) }
	},
	"mariadb": func(t *testing.T) func() storage.Store {
		c := database(testserver.SharedMariaDB(t).NewDatabase(t))
		return func() storage.Store { return opened[*cell.Store](t)(mysql.Open(t.Context(), c)) }
	},
	"sqlite": func(t *testing.T) func() storage.Store {
		c := sqlite.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "carts.db"), Prefix: "cart"}
		return func() storage.Store { return opened[*cell.Store](t)(sqlite.Open(t.Context(), c)) }
	},
}

func TestMain(m *testing.M) { testserver.Main(m) }

func database(url string) sql.Config {
	return sql.Config{URL: url, Prefix: "cart", Dial: 5 * time.Second, Read: 5 * time.Second, Write: 5 * time.Second}
}

func opened[S storage.Store](t *testing.T) func(S, error) storage.Store {
	return func(s S, err error) storage.Store {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return middleware.Measure(s)
	}
}
