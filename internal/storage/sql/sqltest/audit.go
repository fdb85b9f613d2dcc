package sqltest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/testserver"
)

// audit is that of a store which keeps a trail.
var audit = sql.Audit{Retention: time.Hour, Who: "pod"}

func auditing(url string) sql.Config {
	c := config(url)
	c.Audit = audit
	return c
}

// refused fails unless err is a refusal with these words, of which the outcome is known.
func refused(t *testing.T, what string, err error, words string) {
	t.Helper()
	said, _ := storage.RefusalOf(err)
	if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, cell.ErrOutcomeUnknown) || !strings.Contains(said, words) {
		t.Errorf("%s: %v, refused with %q, want %q", what, err, said, words)
	}
}

// testAuditRights: a store that may not write to the trail makes no change, and is not ready. One that keeps none needs
// no right.
func testAuditRights(t *testing.T, p Product) {
	server := p.Start(t)
	owner := server.NewDatabase(t)
	database := testserver.DatabaseOf(owner)
	query(t, server, database, p.MakeUser(database))
	key := keysOf(1)[0]
	must(t, p.open(t, config(owner)), key)
	query(t, server, database, p.Grant(database))
	url := server.URL("least", database)
	must(t, p.open(t, config(url)), key)
	s := p.open(t, auditing(url))
	refused(t, "ping", s.Ping(t.Context()), "sidecart_audit")
	_, err := raise(t.Context(), s, key)
	refused(t, "a change", err, "sidecart_audit")
	if v := version(t, s, key); v != 2 {
		t.Errorf("version %d, want 2", v)
	}
	query(t, server, database, p.GrantAudit(database))
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	must(t, s, key)
	if got := query(t, server, database, "SELECT who, identifier, from_version, to_version FROM sidecart_audit"); got != "pod\tu0\t2\t3" {
		t.Errorf("the trail is %q", got)
	}
	query(t, server, database, ageTrail)
	if err := p.SweepAudit(t.Context(), auditing(url)); err != nil {
		t.Fatal(err)
	}
	if got := query(t, server, database, "SELECT COUNT(*) FROM sidecart_audit"); got != "0" {
		t.Errorf("%s lines are left", got)
	}
}

// ageTrail makes all lines old enough to go.
const ageTrail = "UPDATE sidecart_audit SET at = '2001-01-01 00:00:00'"

// testAuditLater: where the tables of an earlier release are used by a role that may not change them, a store that
// keeps no trail needs nothing more, and one that keeps a trail says what is missing.
func testAuditLater(t *testing.T, p Product) {
	for _, earlier := range []struct{ name, undo string }{
		{"WithoutTrail", "DROP TABLE sidecart_audit; DELETE FROM sidecart_schema WHERE version >= 2"},
		{"WithoutCheckouts", "ALTER TABLE sidecart_audit DROP COLUMN checkout_id, DROP COLUMN attributes; DELETE FROM sidecart_schema WHERE version >= 3"},
	} {
		t.Run(earlier.name, func(t *testing.T) { testAuditSince(t, p, earlier.undo) })
	}
}

// testAuditSince is the test for one earlier release. undo makes its tables of ours.
func testAuditSince(t *testing.T, p Product, undo string) {
	server := p.Start(t)
	owner := server.NewDatabase(t)
	database := testserver.DatabaseOf(owner)
	query(t, server, database, p.MakeUser(database))
	key := keysOf(1)[0]
	must(t, p.open(t, config(owner)), key)
	query(t, server, database, p.Grant(database)+"; "+undo)
	url := server.URL("least", database)
	s := p.open(t, config(url))
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("without a trail: %v", err)
	}
	must(t, s, key)
	audited := p.open(t, auditing(url))
	refused(t, "with a trail", audited.Ping(t.Context()), "sidecart has to make or change its tables")
	must(t, p.open(t, config(owner)), key)
	query(t, server, database, p.GrantAudit(database))
	must(t, audited, key)
}

// lines counts those of each identifier.
func lines(t *testing.T, server *testserver.DatabaseServer, database string, key cart.Key) uint64 {
	t.Helper()
	var n uint64
	out := query(t, server, database, "SELECT COUNT(*) FROM sidecart_audit WHERE prefix = 'cart' AND identifier = '"+key.Identifier+"' AND instance = '"+key.Instance+"'")
	if _, err := fmt.Sscan(out, &n); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return n
}

// testAuditOfACrash: connections end and the server crashes in the middle of changes, and a cart that was raised n
// times has n lines.
func testAuditOfACrash(t *testing.T, p Product) {
	server := p.Start(t, testserver.WithSync())
	url := server.NewDatabase(t)
	database := testserver.DatabaseOf(url)
	s, other := p.open(t, auditing(url)), p.open(t, auditing(url))
	// Names that a careless comparison takes for one.
	keys := []cart.Key{{Identifier: "u", Instance: "a"}, {Identifier: "U", Instance: "a"}, {Identifier: "u ", Instance: "a"}, {Identifier: "ü", Instance: "a"}}
	stop := make(chan struct{})
	results, others := writers(t.Context(), s, keys, stop), writers(t.Context(), other, keys, stop)
	rise := func(what string) {
		for _, key := range keys {
			before := version(t, s, key)
			eventually(t, what, func() bool { return version(t, s, key) > before+5 })
		}
	}
	rise("changes")
	for range 5 {
		if err := p.EndConnections(server, database); err != nil {
			t.Error(err)
		}
	}
	rise("changes after connections ended")
	server.Kill()
	server.Restart()
	rise("changes after the crash")
	close(stop)
	results()
	others()
	for _, key := range keys {
		if v, n := version(t, s, key), lines(t, server, database, key); v != n {
			t.Errorf("%q has version %d and %d lines", key, v, n)
		}
	}
	if gaps := query(t, server, database, "SELECT COUNT(*) FROM sidecart_audit WHERE to_version <> from_version + 1"); gaps != "0" {
		t.Errorf("%s lines do not follow on the one before", gaps)
	}
}

// testAuditLostAnswers: a trail costs no round trip, and what becomes of the change becomes of its line, whichever
// answer gets lost.
func testAuditLostAnswers(t *testing.T, p Product) {
	url := p.Shared(t).NewDatabase(t)
	lostAnswers(t, p, url, audit)
	key := keysOf(1)[0]
	s := p.open(t, config(url))
	database := testserver.DatabaseOf(url)
	if v, n := version(t, s, key), lines(t, p.Shared(t), database, key); v != n {
		t.Errorf("version %d and %d lines", v, n)
	}
}

// testAuditRemoval: lines that are old enough are removed while carts are changed, by several stores at once, and no
// others.
func testAuditRemoval(t *testing.T, p Product) {
	server := p.Shared(t)
	url := server.NewDatabase(t)
	database := testserver.DatabaseOf(url)
	s, keys, stop := p.open(t, auditing(url)), keysOf(3), make(chan struct{})
	must(t, s, keys[0])
	oldLines(t, server, database, "cart", 1700)
	oldLines(t, server, database, "other", 3)
	results := writers(t.Context(), s, keys[1:], stop)
	done := make(chan error)
	for range 3 {
		go func() { done <- p.SweepAudit(t.Context(), auditing(url)) }()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	close(stop)
	for i, n := range results() {
		if n.failed != nil || n.unknown > 0 {
			t.Errorf("%q: %d unknown, %v", keys[1+i], n.unknown, n.failed)
		}
	}
	// One that came last may have left the rest to one that had just ended.
	if err := p.SweepAudit(t.Context(), auditing(url)); err != nil {
		t.Fatal(err)
	}
	if got := query(t, server, database, "SELECT prefix, COUNT(*) FROM sidecart_audit WHERE call_name = 'Old' GROUP BY prefix"); got != "other\t3" {
		t.Errorf("old lines that are left: %q", got)
	}
	for _, key := range keys {
		if v, n := version(t, s, key), lines(t, server, database, key); v != n {
			t.Errorf("%q has version %d and %d lines", key, v, n)
		}
	}
}

// oldLines adds lines of last week.
func oldLines(t *testing.T, server *testserver.DatabaseServer, database, prefix string, n int) {
	t.Helper()
	row := fmt.Sprintf("('%s', '%s', 'old', 'default', 'id', 'items', 0, 1, 'altered', 'Old', 'pod')",
		time.Now().Add(-7*24*time.Hour).UTC().Format("2006-01-02 15:04:05"), prefix)
	for ; n > 0; n -= 500 { // an argument of a program has a limit
		query(t, server, database, "INSERT INTO sidecart_audit (at, prefix, identifier, instance, cart_id, part, from_version, to_version, kind, call_name, who) VALUES "+
			row+strings.Repeat(", "+row, min(n, 500)-1))
	}
}

// AuditBatches tests that a removal takes no more lines at once than it is told, and none while somebody else has the
// lock, which the statement hold takes and let gives back. The driver keeps a trail for an hour.
func AuditBatches(t *testing.T, d Driver, server *testserver.DatabaseServer, database, hold, let string) {
	if err := cell.New(d).Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	oldLines(t, server, database, "cart", 25)
	lend := func(f func(conn sql.Conn)) {
		conn, err := d.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		f(conn)
	}
	remove := func(ctx context.Context) (n int64) {
		lend(func(conn sql.Conn) {
			var err error
			if n, err = d.RemoveLines(ctx, conn, time.Hour, 10); err != nil {
				t.Fatal(err)
			}
		})
		return n
	}
	lend(func(other sql.Conn) {
		run := func(statement string) {
			if err := other.Query(t.Context(), func(func(...any) error) error { return nil }, statement); err != nil {
				t.Fatal(err)
			}
		}
		run(hold)
		if n := remove(t.Context()); n != 0 {
			t.Errorf("%d lines were removed while another store removes", n)
		}
		run(let)
	})
	for _, want := range []int64{10, 10, 5, 0} {
		if n := remove(t.Context()); n != want {
			t.Errorf("%d lines were removed, want %d", n, want)
		}
	}
}

// QuickerMaker tests that of two who make the same cart the second stores nothing, and no line, and is told to try
// again.
func QuickerMaker(t *testing.T, d Driver, server *testserver.DatabaseServer, database string) {
	key, s := keysOf(1)[0], cell.New(d)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := d.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	defer conn.Rollback(context.WithoutCancel(t.Context()))
	rows := make([]sql.Scan, 1)
	if _, err := d.Lock(t.Context(), conn, []cart.Key{key}, rows); err != nil || rows[0].Found() {
		t.Fatalf("%v, found %t", err, rows[0].Found())
	}
	must(t, s, key)
	r := &cell.Record{Save: true, Items: []byte("{}"), Conditions: []byte("{}")}
	r.State.Cart.ID, r.State.Cart.Version = storage.NewID(), 1
	line := sql.Line{Key: key, Audited: storage.Audited{CartID: r.State.Cart.ID, Part: cart.PartItems, To: 1, Kind: storage.ChangeAltered}}
	if err := d.Commit(t.Context(), conn, time.Now(), []sql.Change{{Key: key, Record: r}}, []sql.Line{line}); !errors.Is(err, sql.ErrQuicker) {
		t.Errorf("the second: %v", err)
	}
	conn.Rollback(t.Context())
	if v, n := version(t, s, key), lines(t, server, database, key); v != 1 || n != 1 {
		t.Errorf("version %d and %d lines, want 1 and 1", v, n)
	}
}
