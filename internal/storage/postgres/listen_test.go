package postgres

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/storage/sql/sqltest"
	"github.com/sidecart/sidecart/internal/testserver"
)

func newDriver(t *testing.T, url string) *driver {
	t.Helper()
	d, err := openDriver(sql.Config{URL: url, Prefix: "cart", Dial: 5 * time.Second, Read: 5 * time.Second, Write: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30s", what)
		}
	}
}

func run(t *testing.T, s *testserver.DatabaseServer, database, statements string) string {
	t.Helper()
	out, err := s.Query(database, statements)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A store hears what others of its prefix notify of, and again when its connection was lost.
func TestListens(t *testing.T) {
	t.Parallel()
	server := testserver.SharedPostgres(t)
	url := server.NewDatabase(t)
	database := testserver.DatabaseOf(url)
	d := newDriver(t, url)
	woken := make(chan string, 100)
	d.Listen(func(tokens []string) {
		for _, token := range tokens {
			woken <- token
		}
	})
	for round := range 2 {
		eventually(t, "it hears", d.Hears)
		if d.deaf.Load() {
			t.Error("it takes itself for deaf")
		}
		run(t, server, database, "SELECT pg_notify('"+channelOf("other")+"', 'of another prefix'); SELECT pg_notify('"+channelOf("cart")+"', 'one two')")
		for _, want := range []string{"one", "two"} {
			if got := <-woken; got != want {
				t.Fatalf("round %d: woken is %q, want %q", round, got, want)
			}
		}
		run(t, server, database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"' AND query = 'LISTEN "+channelOf("cart")+"'")
		eventually(t, "it is seen that the connection was lost", func() bool { return !d.Hears() })
	}
}

// A release tells the tokens of those whom it lets in, in the transaction that lets them in.
func TestNotifies(t *testing.T) {
	t.Parallel()
	url := testserver.SharedPostgres(t).NewDatabase(t)
	d := newDriver(t, url)
	s := cell.New(d)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), "LISTEN "+channelOf("cart")); err != nil {
		t.Fatal(err)
	}
	key, parts := cart.Key{Identifier: "u", Instance: "default"}, []cart.Part{cart.PartAll}
	claim := func(token string) storage.Claim {
		return storage.Claim{Token: token, Parts: parts, Duration: time.Minute}
	}
	if _, err := s.Acquire(t.Context(), key, claim("first"), false); err != nil {
		t.Fatal(err)
	}
	let := make(chan error, 1)
	go func() {
		_, err := s.Acquire(t.Context(), key, claim("second"), false)
		let <- err
	}()
	eventually(t, "the second waits", func() bool {
		r, _, err := d.Load(t.Context(), key, false)
		return err == nil && len(r.State.Queue) == 1
	})
	if err := s.Abandon(t.Context(), key, "first"); err != nil {
		t.Fatal(err)
	}
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		n, err := conn.WaitForNotification(ctx)
		cancel()
		if err != nil {
			t.Fatalf("no notification: %v", err)
		}
		if slices.Contains(strings.Fields(n.Payload), "second") {
			break
		}
	}
	if err := <-let; err != nil {
		t.Error(err)
	}
}

// Through a pooler in transaction mode a store knows that it hears nothing, says so, and lets waiters ask. No statement
// stays prepared, and no setting of a connection stays behind.
func TestDeafBehindPooler(t *testing.T) {
	t.Parallel()
	server := testserver.SharedPostgres(t)
	bouncer := testserver.StartPgBouncer(t, server)
	database := testserver.DatabaseOf(server.NewDatabase(t))
	d := newDriver(t, bouncer.URL("postgres", database))
	s := cell.New(d)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !d.pooled.Load() {
		t.Error("it does not see the pooler")
	}
	eventually(t, "it is seen that nothing arrives", d.deaf.Load)
	if d.Hears() {
		t.Error("it hears")
	}
	advice, err := s.Advice(t.Context())
	if err != nil || !slices.ContainsFunc(advice, func(a storage.Advice) bool { return a.Code == storage.AdviceNoWakeUps }) {
		t.Errorf("advice %v, %v", advice, err)
	}
	for _, q := range []string{"SELECT count(*) FROM pg_prepared_statements", "SELECT count(*) FROM pg_settings WHERE source = 'session' AND name LIKE 'idle%'"} {
		for range 8 { // of the connections that the pooler has
			if got := run(t, bouncer, database, q); got != "0" {
				t.Errorf("%s: %s", q, got)
			}
		}
	}
}

// A transaction that another program drew into a deadlock is made all the same.
func TestDeadlockIsTriedAgain(t *testing.T) {
	t.Parallel()
	server := testserver.SharedPostgres(t)
	url := server.NewDatabase(t)
	database := testserver.DatabaseOf(url)
	// The server looks for a deadlock once, that long after the store began to wait. The other program must wait by
	// then.
	run(t, server, database, "ALTER DATABASE "+database+" SET deadlock_timeout = '2s'")
	d := newDriver(t, url)
	a, b := cart.Key{Identifier: "a", Instance: "default"}, cart.Key{Identifier: "b", Instance: "default"}
	both := func(tries *int) error {
		return d.Update(t.Context(), []cart.Key{b, a}, func(now time.Time, records []*cell.Record) error {
			*tries++
			for _, r := range records {
				r.State.Cart.ID, r.State.Cart.Version, r.Save = "id", uint64(*tries), true
			}
			return nil
		})
	}
	tries := 0
	if err := both(&tries); err != nil {
		t.Fatal(err)
	}
	rogue, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rogue.Close(context.WithoutCancel(t.Context())) }()
	const lock = "SELECT 1 FROM sidecart_carts WHERE identifier = '%' FOR UPDATE"
	if _, err := rogue.Exec(t.Context(), "SET deadlock_timeout = '1min'; BEGIN; "+strings.Replace(lock, "%", "b", 1)); err != nil {
		t.Fatal(err)
	}
	watch, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Close(context.WithoutCancel(t.Context())) }()
	done := make(chan error, 1)
	tries = 0
	go func() { done <- both(&tries) }()
	eventually(t, "the store waits", func() (waits bool) {
		err := watch.QueryRow(t.Context(), "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waits)
		return err == nil && waits
	})
	if _, err := rogue.Exec(t.Context(), strings.Replace(lock, "%", "a", 1)+"; COMMIT"); err != nil {
		t.Fatalf("the other program: %v", err)
	}
	if err := <-done; err != nil || tries != 1 { // the first did not come to the change
		t.Errorf("%v after %d tries", err, tries)
	}
	eventually(t, "a deadlock is counted", func() bool {
		return run(t, server, "", "SELECT deadlocks FROM pg_stat_database WHERE datname = '"+database+"'") != "0"
	})
}

// A database that cannot keep every name is refused by name.
func TestEncoding(t *testing.T) {
	t.Parallel()
	server := testserver.SharedPostgres(t)
	run(t, server, "", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
	err := cell.New(newDriver(t, server.URL("postgres", "latin"))).Ping(t.Context())
	if words, _ := storage.RefusalOf(err); !strings.Contains(words, "the database has the encoding LATIN1") {
		t.Errorf("Ping: %v", err)
	}
}

func TestSilentHolder(t *testing.T) {
	t.Parallel()
	d := newDriver(t, testserver.SharedPostgres(t).NewDatabase(t))
	d.Write = 30 * time.Second
	sqltest.SilentHolder(t, d)
}
