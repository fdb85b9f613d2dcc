package mysql

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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

// put stores a cart whose items are so many bytes long.
func put(t *testing.T, s *cell.Store, key cart.Key, version uint64, size int) error {
	t.Helper()
	id := ""
	if version > 0 {
		id = "id"
	}
	outs, err := s.Commit(t.Context(), storage.Commit{
		Key: key, Expect: storage.Expect{ID: id, Version: version},
		Change: storage.Change{
			NewID: "id", Steps: 1,
			Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(`{"a":"` + strings.Repeat("'", size) + `"}`), Step: 1}},
		},
	})
	if err == nil && outs[0].Status != storage.Committed {
		t.Fatalf("%+v", outs[0])
	}
	return err
}

// What the server takes in no packet is refused, nothing is changed, and the connection is as good as before.
func TestTooLongForAPacket(t *testing.T) {
	t.Parallel()
	server := testserver.StartMariaDB(t, testserver.WithServerArgs("--max-allowed-packet=1M"))
	s := cell.New(newDriver(t, server.NewDatabase(t)))
	key := cart.Key{Identifier: "u", Instance: "default"}
	if err := put(t, s, key, 0, 100_000); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{600_000, 1 << 20, 3 << 20} { // each quote is two bytes on its way
		if err := put(t, s, key, 1, size); !errors.Is(err, storage.ErrTooLarge) || errors.Is(err, cell.ErrOutcomeUnknown) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if err := put(t, s, key, 1, 200_000); err != nil {
		t.Error(err)
	}
}

// A connection has the settings that the statements rest on, whatever the server's are.
func TestSettings(t *testing.T) {
	t.Parallel()
	d := newDriver(t, testserver.SharedMariaDB(t).NewDatabase(t))
	err := d.Call(t.Context(), 0, func(ctx context.Context, conn sql.Conn) error {
		for setting, want := range map[string]string{
			"time_zone": "+00:00", "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION", "tx_isolation": "READ-COMMITTED", "autocommit": "1",
			"completion_type": "NO_CHAIN", "character_set_client": "utf8mb4", "innodb_lock_wait_timeout": "5", "idle_transaction_timeout": "5",
		} {
			var got string
			if err := conn.Query(ctx, func(scan func(into ...any) error) error { return scan(&got) }, "SELECT @@"+setting); err != nil {
				return err
			}
			if got != want {
				t.Errorf("%s = %q, want %q", setting, got, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A transaction that another program drew into a deadlock is made all the same.
func TestDeadlockIsTriedAgain(t *testing.T) {
	t.Parallel()
	server := testserver.SharedMariaDB(t)
	url := server.NewDatabase(t)
	database := testserver.DatabaseOf(url)
	d := newDriver(t, url)
	a, b := cart.Key{Identifier: "a", Instance: "default"}, cart.Key{Identifier: "b", Instance: "default"}
	both := func() error {
		return d.Update(t.Context(), []cart.Key{b, a}, func(now time.Time, records []*cell.Record) error {
			for _, r := range records {
				r.State.Cart.ID, r.State.Cart.Version, r.Save = "id", r.State.Cart.Version+1, true
			}
			return nil
		})
	}
	if err := both(); err != nil {
		t.Fatal(err)
	}
	rogue, err := d.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { rogue.Release() }()
	const lock = "SELECT 1 FROM sidecart_carts WHERE prefix = 'cart' AND identifier = '%' AND instance = 'default' FOR UPDATE"
	// Of two transactions the server ends the one that has changed less.
	heavy := strings.Repeat("; INSERT INTO other VALUES (1)", 20)
	if _, err := server.Query(database, "CREATE TABLE other (a int)"); err != nil {
		t.Fatal(err)
	}
	if _, err := rogue.Exec(t.Context(), "BEGIN"+heavy+"; "+strings.Replace(lock, "%", "b", 1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- both() }()
	waits := "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id " +
		"WHERE p.db = '" + database + "' AND t.trx_state = 'LOCK WAIT'"
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if out, err := server.Query("", waits); err != nil || time.Now().After(deadline) {
			t.Fatalf("the store does not wait: %q, %v", out, err)
		} else if out == "1" {
			break
		}
	}
	if _, err := rogue.Exec(t.Context(), strings.Replace(lock, "%", "a", 1)+"; COMMIT"); err != nil {
		t.Fatalf("the other program: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if out, err := server.Query("", "SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'"); err != nil || strings.HasSuffix(out, "\t0") {
		t.Errorf("no deadlock was met: %q, %v", out, err)
	}
	r, _, err := d.Load(t.Context(), a, false)
	if err != nil || r.State.Cart.Version != 2 {
		t.Errorf("version %d, %v, want 2", r.State.Cart.Version, err)
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"mysql://me:s3cret@db/shop":            "",
		"mysql://db:3307/shop?tls=skip-verify": "",
		"mysql://[::1]/shop":                   "",
		"mysql://db/":                          "it names no database",
		"mysql://db/a/b":                       "it names no database",
		"mysql:///shop":                        "it names no host",
		"mysql://me:s3cret@db:port/shop":       "it cannot be read",
		"postgres://db/shop":                   "its scheme is not mysql",
		"mysql://db/shop?tls=maybe":            "its parameter tls is not true, false, skip-verify or preferred",
		"mysql://me:s3cret@db/shop?timeout=1s": `it has the parameter "timeout", and the only one there is, is tls`,
	} {
		d, err := openDriver(sql.Config{URL: url, Prefix: "cart"})
		if err == nil {
			_ = d.Close()
		}
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, storage.ErrUnsupported) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the password is told: %v", url, err)
		}
	}
}

func TestSilentHolder(t *testing.T) {
	t.Parallel()
	d := newDriver(t, testserver.SharedMariaDB(t).NewDatabase(t))
	d.Write = 30 * time.Second
	sqltest.SilentHolder(t, d)
}
