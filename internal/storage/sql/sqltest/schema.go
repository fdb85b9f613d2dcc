package sqltest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/testserver"
)

// testManyStart: of ten stores that start at once on an empty database, one makes the tables and all work.
func testManyStart(t *testing.T, p Product) {
	server := p.Shared(t)
	url := server.NewDatabase(t)
	const n = 10
	stores, failed := make([]*cell.Store, n), make(chan error, n)
	for i := range stores {
		stores[i] = p.open(t, config(url))
	}
	for i, s := range stores {
		go func() {
			_, err := raise(t.Context(), s, cart.Key{Identifier: "u", Instance: fmt.Sprint(i)})
			failed <- err
		}()
	}
	for range stores {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if got := query(t, server, testserver.DatabaseOf(url), "SELECT version, needs FROM sidecart_schema ORDER BY version"); got != "1\t1\n2\t1\n3\t1" {
		t.Errorf("the schema's versions are %q", got)
	}
	if count, _, err := stores[0].Count(t.Context(), 100); err != nil || count != n {
		t.Errorf("%d carts, %v, want %d", count, err, n)
	}
}

// testNewerSchema: a schema that a newer sidecar made is used where it only has more, and refused by name otherwise.
func testNewerSchema(t *testing.T, p Product) {
	server := p.Shared(t)
	url := server.NewDatabase(t)
	must(t, p.open(t, config(url)), keysOf(1)[0])
	database := testserver.DatabaseOf(url)
	query(t, server, database, "INSERT INTO sidecart_schema (version, needs, applied_at) VALUES (98, 1, CURRENT_TIMESTAMP)")
	must(t, p.open(t, config(url)), keysOf(1)[0])
	query(t, server, database, "INSERT INTO sidecart_schema (version, needs, applied_at) VALUES (99, 99, CURRENT_TIMESTAMP)")
	s := p.open(t, config(url))
	if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnsupported) || !strings.Contains(err.Error(), "the schema has version 99") {
		t.Errorf("Ping: %v", err)
	}
	if made, err := raise(t.Context(), s, keysOf(1)[0]); made || !errors.Is(err, storage.ErrUnsupported) {
		t.Errorf("a change was made: %t, %v", made, err)
	}
}

// testSweep: rows that have ended are deleted, however many, and no others.
func testSweep(t *testing.T, p Product) {
	server := p.Shared(t)
	url := server.NewDatabase(t)
	s := p.open(t, config(url))
	must(t, s, keysOf(1)[0])
	database := testserver.DatabaseOf(url)
	var rows []string
	for i := range 250 {
		rows = append(rows, fmt.Sprintf("('old', 'u%d', 'default', 1, 1, 1, %d, '{}', '{}')", i, time.Now().Add(-time.Second).UnixMilli()))
	}
	rows = append(rows, fmt.Sprintf("('old', 'later', 'default', 1, 1, 1, %d, '{}', '{}')", time.Now().Add(time.Hour).UnixMilli()),
		"('old', 'never', 'default', 1, 1, 1, NULL, '{}', '{}')")
	query(t, server, database, "INSERT INTO sidecart_carts (prefix, identifier, instance, version, items_version, conditions_version, removable_at, items, conditions) VALUES "+
		strings.Join(rows, ", "))
	if err := p.Sweep(t.Context(), config(url)); err != nil {
		t.Fatal(err)
	}
	left := query(t, server, database, "SELECT identifier FROM sidecart_carts ORDER BY identifier")
	if left != "later\nnever\nu0" {
		t.Errorf("left are %q", left)
	}
	must(t, s, keysOf(1)[0])
}

// testTablesRemoved: a database that was emptied while a store uses it is made anew.
func testTablesRemoved(t *testing.T, p Product) {
	server := p.Shared(t)
	url := server.NewDatabase(t)
	s := p.open(t, config(url))
	must(t, s, keysOf(1)[0])
	query(t, server, testserver.DatabaseOf(url), "DROP TABLE sidecart_carts; DROP TABLE sidecart_schema")
	if _, err := raise(t.Context(), s, keysOf(1)[0]); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("without its tables: %v", err)
	}
	must(t, s, keysOf(1)[0])
}

// testRestoredFences: the counter of a database that was restored from a backup has forgotten its last fences. A store
// that starts raises it over them.
func testRestoredFences(t *testing.T, p Product) {
	url := p.Shared(t).NewDatabase(t)
	began := uint64(time.Now().Add(-time.Minute).UnixMicro()) // the clocks are those of one machine
	for range 2 {
		s := p.open(t, config(url))
		g, err := s.Acquire(t.Context(), keysOf(1)[0], storage.Claim{
			Token: fmt.Sprint("token-", began), Parts: []cart.Part{cart.PartAll}, Duration: time.Minute, Leased: true,
		}, false)
		if err != nil {
			t.Fatal(err)
		}
		if g.Fence <= began || g.Fence >= 1<<53 {
			t.Errorf("fence %d, want more than %d", g.Fence, began)
		}
		if err := s.Release(t.Context(), keysOf(1)[0], fmt.Sprint("token-", began)); err != nil {
			t.Fatal(err)
		}
		began = uint64(time.Now().UnixMicro()) // whatever was given meanwhile is less
	}
}
