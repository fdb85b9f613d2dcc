package sqltest

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// testLeastRights: a user who may read and write the tables, and nothing more, does everything that a store does. One
// who would have to make them is told what is missing.
func testLeastRights(t *testing.T, p Product) {
	server := p.Start(t)
	owner := server.NewDatabase(t)
	database := testserver.DatabaseOf(owner)
	url := server.URL("least", database)
	query(t, server, database, p.MakeUser(database))
	s := p.open(t, config(url))
	err := s.Ping(t.Context())
	if words, _ := storage.RefusalOf(err); !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(words, "sidecart has to make or change its tables") {
		t.Errorf("without tables: %v, refused with %q", err, words)
	}
	must(t, p.open(t, config(owner)), keysOf(1)[0])
	query(t, server, database, p.Grant(database))
	if err := s.Ping(t.Context()); err != nil { // the same store, since somebody else has made the tables meanwhile
		t.Fatalf("Ping: %v", err)
	}
	key := keysOf(1)[0]
	must(t, s, key)
	claim := storage.Claim{Token: "token", Parts: []cart.Part{cart.PartAll}, Duration: time.Minute, Leased: true}
	if g, err := s.Acquire(t.Context(), key, claim, false); err != nil || g.Fence == 0 {
		t.Errorf("lease: %+v, %v", g, err)
	}
	for name, err := range map[string]error{
		"release": s.Release(t.Context(), key, claim.Token), "beat": s.Beat(t.Context()), "flush": s.Flush(t.Context()),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Advice(t.Context()); err != nil {
		t.Errorf("advice: %v", err)
	}
}

// testEachRight: without any one of the rights to the table of carts a store is not ready, since changes are refused.
func testEachRight(t *testing.T, p Product) {
	server := p.Start(t)
	owner := server.NewDatabase(t)
	database := testserver.DatabaseOf(owner)
	query(t, server, database, p.MakeUser(database))
	must(t, p.open(t, config(owner)), keysOf(1)[0])
	for _, right := range []string{"SELECT", "INSERT", "UPDATE", "DELETE"} {
		query(t, server, database, p.Grant(database))
		query(t, server, database, p.Revoke(database, right))
		s := p.open(t, config(server.URL("least", database))) // its connections have the rights of now
		err := s.Ping(t.Context())
		if words, _ := storage.RefusalOf(err); !errors.Is(err, storage.ErrUnavailable) || words == "" {
			t.Errorf("without %s: %v, refused with %q", right, err, words)
		}
	}
}

// testTLS: a certificate is verified by the file of its authority and by the name of the server, and a wrong one is
// refused before anything is said.
func testTLS(t *testing.T, p Product) {
	authority := testserver.NewAuthority(t)
	pool := authority.Pool()
	server := p.Start(t, testserver.WithTLS(authority.Issue("db.test")))
	url := server.NewDatabase(t)
	for name, tc := range map[string]struct {
		tls  *tls.Config
		want string // of the error
	}{
		"right":            {&tls.Config{RootCAs: pool, ServerName: "db.test", MinVersion: tls.VersionTLS12}, ""},
		"another name":     {&tls.Config{RootCAs: pool, ServerName: "other.test", MinVersion: tls.VersionTLS12}, "other.test"},
		"that of the URL":  {&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, "127.0.0.1"},
		"unknown to all":   {&tls.Config{ServerName: "db.test", MinVersion: tls.VersionTLS12}, "unknown authority"},
		"whatever it says": {&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, ""}, //nolint:gosec // that is tested
	} {
		c := config(url)
		c.TLS = tc.tls
		err := p.open(t, c).Ping(t.Context())
		if (err == nil) != (tc.want == "") || err != nil && (!errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	plain := config(p.Shared(t).NewDatabase(t))
	plain.TLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // that is tested
	if err := p.open(t, plain).Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("a server without TLS: %v", err)
	}
}
