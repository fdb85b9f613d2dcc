package mysql_test

import (
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/mysql"
	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
	"github.com/sidecart/sidecart/internal/testserver"
)

func TestConformance(t *testing.T) {
	server := testserver.SharedMariaDB(t)
	storagetest.Run(t, func(t *testing.T) storagetest.Harness { return harness(t, server.NewDatabase(t)) }, storagetest.Caps{})
}

func harness(t *testing.T, url string) storagetest.Harness {
	return storagetest.Harness{
		Store:  open(t, config(url, "cart")),
		Second: func(t *testing.T) storage.Store { return open(t, config(url, "cart")) },
		Other:  func(t *testing.T) storage.Store { return open(t, config(url, "cart2")) },
	}
}

// config has timeouts for a busy machine.
func config(url, prefix string) sql.Config {
	return sql.Config{URL: url, Prefix: prefix, Dial: 10 * time.Second, Read: 10 * time.Second, Write: 10 * time.Second}
}

func open(t *testing.T, c sql.Config) *cell.Store {
	t.Helper()
	s, err := mysql.Open(t.Context(), c)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
