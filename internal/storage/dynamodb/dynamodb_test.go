package dynamodb

import (
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
	"github.com/sidecart/sidecart/internal/testserver"
)

// configAt is the configuration of a store that makes its table.
func configAt(endpoint string) Config {
	return Config{
		Table: "carts", Region: "local", Endpoint: endpoint, CreateTable: true, Prefix: "cart",
		AccessKeyID: storage.NewSecret("AKIDEXAMPLE", "id"), SecretAccessKey: storage.NewSecret("wJalrXUtnFEMI", "secret"),
		DialTimeout: time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
	}
}

func openStore(t testing.TB, c Config) *cell.Store {
	t.Helper()
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	server := testserver.StartDynalite(t)
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		c := configAt(server.Endpoint)
		c.Table = tableOf(t)
		return storagetest.Harness{
			Store:  openStore(t, c),
			Second: func(t *testing.T) storage.Store { return openStore(t, c) },
			Other: func(t *testing.T) storage.Store {
				c := c
				c.Prefix = "cart2"
				return openStore(t, c)
			},
		}
	}, storagetest.Caps{
		NoPairs:      "one item is swapped at a time: transactions cost twice, and not every server has them",
		MaxCartBytes: maxItemBytes,
		Slow:         4, // dynalite serves all calls one by one, in JavaScript
	})
}

// tableOf is a table name of the test alone.
func tableOf(t *testing.T) string {
	name := []byte(t.Name())
	for i, c := range name {
		if c == '/' {
			name[i] = '.'
		}
	}
	return string(name)
}
