package moving_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/dynamodb"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/mysql"
	"github.com/sidecart/sidecart/internal/storage/postgres"
	"github.com/sidecart/sidecart/internal/storage/redis"
	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/storage/sqlite"
	"github.com/sidecart/sidecart/internal/testserver"
)

// backends are those that carts move between. start starts one, and returns a function that opens it for a prefix, once
// for each sidecar.
var backends = []struct {
	name  string
	start func(t testing.TB) func(t testing.TB, prefix string) storage.Store
}{
	{"redis", func(t testing.TB) func(t testing.TB, prefix string) storage.Store {
		addr := testserver.StartRedis(t).Addr
		return func(t testing.TB, prefix string) storage.Store {
			c := redis.Config{Addresses: []string{addr}, Prefix: prefix}
			c.DialTimeout, c.ReadTimeout, c.WriteTimeout = patient, patient, patient
			s, err := redis.New(t.Context(), c)
			return opened(t, s, err)
		}
	}},
	{"postgres", func(t testing.TB) func(t testing.TB, prefix string) storage.Store {
		url := testserver.SharedPostgres(t).NewDatabase(t)
		return func(t testing.TB, prefix string) storage.Store {
			s, err := postgres.Open(t.Context(), database(url, prefix))
			return opened(t, s, err)
		}
	}},
	{"dynamodb", func(t testing.TB) func(t testing.TB, prefix string) storage.Store {
		endpoint := testserver.StartDynalite(t).Endpoint
		return func(t testing.TB, prefix string) storage.Store {
			c := dynamodb.Config{Table: "carts", Region: "local", Endpoint: endpoint, CreateTable: true, Prefix: prefix}
			c.AccessKeyID, c.SecretAccessKey = storage.NewSecret("AKIDEXAMPLE", "id"), storage.NewSecret("wJalrXUtnFEMI", "secret")
			c.DialTimeout, c.ReadTimeout, c.WriteTimeout = patient, patient, patient
			s, err := dynamodb.New(t.Context(), c)
			return opened(t, s, err)
		}
	}},
	{"mariadb", func(t testing.TB) func(t testing.TB, prefix string) storage.Store {
		url := testserver.SharedMariaDB(t).NewDatabase(t)
		return func(t testing.TB, prefix string) storage.Store {
			s, err := mysql.Open(t.Context(), database(url, prefix))
			return opened(t, s, err)
		}
	}},
	{"sqlite", func(t testing.TB) func(t testing.TB, prefix string) storage.Store {
		dir := t.TempDir()
		return func(t testing.TB, prefix string) storage.Store {
			// A file for each prefix, so that subtests do not wait for each other.
			s, err := sqlite.Open(t.Context(), sqlite.Config{URL: "sqlite:" + filepath.Join(dir, prefix+".db"), Prefix: prefix})
			return opened(t, s, err)
		}
	}},
}

func database(url, prefix string) sql.Config {
	return sql.Config{URL: url, Prefix: prefix, Dial: patient, Read: patient, Write: patient}
}

// patient is a timeout for a machine that runs many tests at once.
const patient = 20 * time.Second

func opened(t testing.TB, s storage.Store, err error) storage.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// backend is the place of a backend in the list.
func backend(t testing.TB, name string) func(t testing.TB, prefix string) storage.Store {
	t.Helper()
	for _, b := range backends {
		if b.name == name {
			return b.start(t)
		}
	}
	t.Fatalf("there is no backend %s", name)
	return nil
}

// pairs give each subtest two empty backends, opened anew by each call of openOld and openNew. With the build tag long
// there are all pairs; without, each backend is once a source and once a target.
var pairs = func() map[string]func(t *testing.T) (openOld, openNew func() movable) {
	all := map[string]func(t *testing.T) (openOld, openNew func() movable){
		"memory to memory": func(t *testing.T) (openOld, openNew func() movable) {
			a, b := memory.New(), memory.New()
			return func() movable { return a }, func() movable { return b }
		},
	}
	for _, name := range movedPairs() {
		all[name] = func(t *testing.T) (openOld, openNew func() movable) {
			from, to, _ := strings.Cut(name, " to ")
			a, b := backend(t, from), backend(t, to)
			return func() movable { return a(t, "cart").(movable) }, func() movable { return b(t, "cart").(movable) }
		}
	}
	return all
}()

// allPairs are the names of all pairs of two backends.
func allPairs() (names []string) {
	for _, from := range backends {
		for _, to := range backends {
			if from.name != to.name {
				names = append(names, fmt.Sprintf("%s to %s", from.name, to.name))
			}
		}
	}
	return names
}
