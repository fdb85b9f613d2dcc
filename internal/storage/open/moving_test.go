package open

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage"
)

func TestMoving(t *testing.T) {
	at := func(file string) config.Backend {
		return config.Backend{Type: config.BackendDatabase, Database: &config.Database{URL: config.URL("sqlite:" + filepath.Join(t.TempDir(), file))}}
	}
	c := config.Default()
	c.Backend = at("new.db")
	alone := Identity(c)
	c.MoveFrom = &config.MoveFrom{Backend: at("old.db")}
	if Identity(c) == alone {
		t.Error("a move is another store, and has the same identity")
	}
	s, err := Store(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, ok := storage.As[storage.Mover](s); !ok {
		t.Errorf("%T is no Mover", s)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}

	// The backend that carts leave need not keep a trail, even if the other does.
	c.Audit.Retention = config.Duration(time.Hour)
	if _, err := Store(t.Context(), c); err == nil || !strings.Contains(err.Error(), config.NoAudit) {
		t.Errorf("a move to SQLite with an audit trail: %v", err)
	}
	audited := *c
	audited.Backend.Database = &config.Database{URL: "postgres://127.0.0.1:1/shop"}
	s2, err := Store(t.Context(), &audited)
	if err != nil {
		t.Fatalf("a move to PostgreSQL with an audit trail: %v", err)
	}
	defer func() { _ = s2.Close() }()
	if a, ok := storage.As[storage.Auditor](s2); !ok || !a.Audits() {
		t.Error("the move keeps no audit trail")
	}
	c.Audit = config.Audit{}

	c.MoveFrom.Backend.Database = &config.Database{URLFile: "/not/there"}
	if _, err := Store(t.Context(), c); err == nil || !strings.Contains(err.Error(), "moveFrom.backend.database.urlFile") {
		t.Errorf("a secret file that is missing: %v", err)
	}
	c.MoveFrom.Backend = config.Backend{Type: config.BackendFile, File: &config.File{Directory: "/d"}}
	if err := Check(c).Err(); !config.IsBuilt(config.BackendFile, "") && (err == nil || !strings.Contains(err.Error(), "moveFrom.backend")) {
		t.Errorf("a backend that is not built: %v", err)
	}
}
