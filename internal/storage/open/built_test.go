package open

import (
	"slices"
	"testing"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage"
)

// The list of built backends says which of those that a configuration can name can be opened.
func TestBuilt(t *testing.T) {
	dir := t.TempDir()
	backends := map[config.Product]config.Backend{
		{Type: config.BackendRedis}:                           {Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{"127.0.0.1:1"}}},
		{Type: config.BackendMemcached}:                       {Type: config.BackendMemcached, Memcached: &config.Memcached{Addresses: []string{"127.0.0.1:1"}}},
		{Type: config.BackendDynamoDB}:                        {Type: config.BackendDynamoDB, DynamoDB: &config.DynamoDB{TableName: "carts", Region: "local"}},
		{Type: config.BackendDatabase, Dialect: "SQLite"}:     {Type: config.BackendDatabase, Database: &config.Database{URL: config.URL("sqlite:" + dir + "/carts.db")}},
		{Type: config.BackendDatabase, Dialect: "PostgreSQL"}: {Type: config.BackendDatabase, Database: &config.Database{URL: "postgres://127.0.0.1:1/shop"}},
		{Type: config.BackendDatabase, Dialect: "MySQL"}:      {Type: config.BackendDatabase, Database: &config.Database{URL: "mysql://127.0.0.1:1/shop"}},
		{Type: config.BackendMemory}:                          {Type: config.BackendMemory},
		{Type: config.BackendFile}:                            {Type: config.BackendFile, File: &config.File{Directory: dir + "/carts"}},
	}
	for product, b := range backends {
		c := config.Default()
		c.Backend = b
		if err := c.Validate().Err(); err != nil {
			t.Fatalf("%s: %v", product, err)
		}
		built := config.IsBuilt(product.Type, product.Dialect)
		store, err := Store(t.Context(), c)
		if (err == nil) != built {
			t.Errorf("%s, built: %t: %v", product, built, err)
		}
		if err != nil {
			continue
		}
		i := slices.IndexFunc(config.Built, func(p config.Product) bool { return p.Type == product.Type && p.Dialect == product.Dialect })
		caps := store.Capabilities()
		if caps.Backend != string(product.Type) {
			t.Errorf("%s opens a store of %s", product, caps.Backend)
		}
		// Files, SQLite's too, are shared by the processes of one machine, and not by pods.
		if shared := caps.Shared && product.Dialect != "SQLite" && product.Type != config.BackendFile; shared != config.Built[i].Shared {
			t.Errorf("%s is said to be shared: %t, and is: %t", product, config.Built[i].Shared, shared)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, p := range config.Built {
		if _, ok := backends[config.Product{Type: p.Type, Dialect: p.Dialect}]; !ok {
			t.Errorf("%s is on the list and unknown here", p)
		}
	}
	if got := config.BuiltNames(); got != "Redis, Memcached, DynamoDB, Database (PostgreSQL), Database (MySQL), Database (SQLite), Memory and File" {
		t.Errorf("in words it is %q", got)
	}
	c := config.Default()
	c.Backend = config.Backend{Type: config.BackendMemory}
	if s, err := Critical(t.Context(), c); s != nil || err != nil {
		t.Errorf("no critical backend: %v, %v", s, err)
	}
	for product, back := range backends {
		if product.Dialect == "SQLite" || product.Type != config.BackendDatabase && product.Type != config.BackendDynamoDB {
			continue
		}
		c.CriticalBackend = &back
		s, err := Critical(t.Context(), c)
		if err != nil {
			t.Errorf("%s for checkouts: %v", product, err)
			continue
		}
		if a, ok := storage.As[storage.Auditor](s); (ok && a.Audits()) != (product.Type == config.BackendDatabase) {
			t.Errorf("%s for checkouts keeps a trail: %t", product, !(product.Type == config.BackendDatabase))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
