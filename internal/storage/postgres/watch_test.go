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
	"github.com/sidecart/sidecart/internal/testserver"
)

func store(t *testing.T, url string) (*cell.Store, *driver) {
	t.Helper()
	d := newDriver(t, url)
	s := cell.New(d)
	eventually(t, "it hears", d.Hears)
	return s, d
}

// knows reports whether a driver knows that another store watches a cart.
func (d *driver) knows(key cart.Key) func() bool {
	return func() bool {
		d.watches.mu.Lock()
		defer d.watches.mu.Unlock()
		return d.watches.others[cartHash(key)].After(time.Now())
	}
}

func change(t *testing.T, s *cell.Store, key cart.Key, forget bool) {
	t.Helper()
	k, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	c := storage.Commit{Key: key, Expect: storage.Expect{ID: k.ID, Version: k.Version}, Change: storage.Change{Forget: forget}}
	if !forget {
		c.Change = storage.Change{NewID: "4f0c", Steps: 1, TTL: time.Hour, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(`{"a":1}`), Step: 1}}}
	}
	outs, err := s.Commit(t.Context(), c)
	if err != nil || outs[0].Status != storage.Committed {
		t.Fatalf("%+v, %v", outs, err)
	}
}

func hear(t *testing.T, news <-chan struct{}) {
	t.Helper()
	select {
	case <-news:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is told")
	}
}

// watched watches a cart, and returns what is told of it when writers know of it.
func watched(t *testing.T, s *cell.Store, key cart.Key) <-chan struct{} {
	t.Helper()
	news := make(chan struct{}, 100)
	t.Cleanup(s.Watch(key, func() { news <- struct{}{} }))
	eventually(t, "others are told", func() bool { return s.Hears(key) })
	hear(t, news)
	return news
}

// A store is told of what another commits to a cart that it watches, and goes on to be when its connection was lost, or
// when the other came later. Nobody notifies of a cart that nobody watches.
func TestWatch(t *testing.T) {
	t.Parallel()
	server := testserver.SharedPostgres(t)
	url := server.NewDatabase(t)
	database := testserver.DatabaseOf(url)
	writer, d := store(t, url)
	reader, _ := store(t, url)
	key, other := cart.Key{Identifier: "u", Instance: "default"}, cart.Key{Identifier: "alone", Instance: "default"}
	ear, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ear.Close(context.WithoutCancel(t.Context())) }()
	if _, err := ear.Exec(t.Context(), "LISTEN "+d.channel); err != nil {
		t.Fatal(err)
	}

	change(t, writer, key, false) // before anybody watches
	news := watched(t, reader, key)
	eventually(t, "the writer knows", d.knows(key))
	change(t, writer, key, false)
	hear(t, news)
	change(t, writer, key, true)
	hear(t, news)
	change(t, writer, other, false)
	change(t, reader, key, false) // its own
	hear(t, news)
	if len(news) > 0 {
		t.Errorf("told %d times too often", len(news))
	}
	run(t, server, database, "SELECT pg_notify('"+d.channel+"', 'that is all')")
	var changes []string
	for {
		n, err := ear.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n.Payload == "that is all" {
			break
		}
		if strings.HasPrefix(n.Payload, changedWord) {
			changes = append(changes, n.Payload)
		}
	}
	if want := changedWord + cartHash(key); !slices.Equal(changes, []string{want, want}) {
		t.Errorf("notified is %q, want %q twice", changes, want)
	}

	run(t, server, database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"' AND query = 'LISTEN "+d.channel+"'")
	hear(t, news)                             // it hears again, and may have missed something
	for _, more := range []string{"v", "w"} { // further carts and readers need no further connection
		key := cart.Key{Identifier: more, Instance: "default"}
		watched(t, reader, key)
		t.Cleanup(reader.Watch(key, func() {}))
	}
	listening, err := server.Query(database, "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '"+database+"' AND query = 'LISTEN "+d.channel+"'")
	if err != nil || listening != "2" {
		t.Errorf("two stores have %s connections that listen: %v", listening, err)
	}
	late, d := store(t, url)
	eventually(t, "one that came late knows", d.knows(key))
	for len(news) > 0 {
		<-news
	}
	change(t, late, key, true)
	hear(t, news)
}
