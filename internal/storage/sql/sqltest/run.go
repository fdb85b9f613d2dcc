package sqltest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/testserver"
)

// Product is a kind of database server.
type Product struct {
	// Start starts a server for one test, and Shared gives that of all tests of the program.
	Start  func(tb testserver.TB, opts ...testserver.DatabaseOption) *testserver.DatabaseServer
	Shared func(tb testserver.TB) *testserver.DatabaseServer
	// Open makes a store.
	Open func(ctx context.Context, c sql.Config) (*cell.Store, error)
	// Sweep opens a store and lets it sweep once, and SweepAudit remove lines of the audit trail once.
	Sweep, SweepAudit func(ctx context.Context, c sql.Config) error
	// EndConnections ends all connections to a database.
	EndConnections func(server *testserver.DatabaseServer, database string) error
	// MakeUser makes a user "least" without a password who may connect to a database, and Grant gives the rights to use
	// the tables.
	MakeUser, Grant func(database string) string
	// Revoke takes one of the rights to the table of carts.
	Revoke func(database, right string) string
	// GrantAudit gives the rights to keep an audit trail.
	GrantAudit func(database string) string
	// ReadOnly makes a database, or its server, refuse to write.
	ReadOnly func(database string) string
	// Plain is what a URL has behind it to speak no TLS, over one connection.
	Plain string
	// Abandons says that a server may not carry out a commit that it has received, where its client has gone: it looks
	// for the client between two statements of one message.
	Abandons bool
}

// Run tests a product.
func Run(t *testing.T, p Product) {
	for name, test := range map[string]func(*testing.T, Product){
		"ManyStart":        testManyStart,
		"NewerSchema":      testNewerSchema,
		"Killed":           testKilled,
		"EndedConnections": testEndedConnections,
		"OppositePairs":    testOppositePairs,
		"Frozen":           testFrozen,
		"ReadOnly":         testReadOnly,
		"LostAnswers":      testLostAnswers,
		"Sweep":            testSweep,
		"NotThere":         testNotThere,
		"TablesRemoved":    testTablesRemoved,
		"RestoredFences":   testRestoredFences,
		"LeastRights":      testLeastRights,
		"EachRight":        testEachRight,
		"AuditRights":      testAuditRights,
		"AuditLater":       testAuditLater,
		"AuditOfACrash":    testAuditOfACrash,
		"AuditLostAnswers": testAuditLostAnswers,
		"AuditRemoval":     testAuditRemoval,
		"TLS":              testTLS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func config(url string) sql.Config {
	return sql.Config{URL: url, Prefix: "cart", Dial: 5 * time.Second, Read: 5 * time.Second, Write: 5 * time.Second}
}

func (p Product) open(t *testing.T, c sql.Config) *cell.Store {
	t.Helper()
	s, err := p.Open(t.Context(), c)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func query(t *testing.T, s *testserver.DatabaseServer, database, statements string) string {
	t.Helper()
	out, err := s.Query(database, statements)
	if err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
	return out
}

// raise makes one change of a cart, whatever it is now, and reports whether it was made. An error leaves that open
// where it is cell.ErrOutcomeUnknown.
func raise(ctx context.Context, s storage.Store, key cart.Key) (bool, error) {
	c, err := s.Load(ctx, key)
	if err != nil {
		return false, err
	}
	outs, err := s.Commit(ctx, change(key, c))
	return err == nil && outs[0].Status == storage.Committed, err
}

// change is one change of base.
func change(key cart.Key, base *cart.Cart) storage.Commit {
	return storage.Commit{
		Key: key, Expect: storage.Expect{ID: base.ID, Version: base.Version},
		Change: storage.Change{
			NewID: storage.NewID(), Steps: 1, TTL: time.Hour,
			Trail:  []storage.Trace{{Call: "Raise", Kind: storage.ChangeAltered, Parts: []cart.Part{cart.PartItems}, Step: 1}},
			Writes: []storage.Write{{Part: cart.PartItems, Value: fmt.Appendf(nil, `{"n":%d}`, base.Version), Step: 1}},
		},
	}
}

// must makes one change.
func must(t *testing.T, s storage.Store, key cart.Key) {
	t.Helper()
	if made, err := raise(t.Context(), s, key); err != nil || !made {
		t.Fatalf("change %q: made %t, %v", key, made, err)
	}
}

func version(t *testing.T, s storage.Store, key cart.Key) uint64 {
	t.Helper()
	c, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("load %q: %v", key, err)
	}
	return c.Version
}

// eventually polls until done says so.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// tally counts what became of changes.
type tally struct {
	made, unknown uint64
	failed        error // of a change that was not made
}

// writers raise carts until stop is closed, and each counts for its cart. One that fails pauses a moment.
func writers(ctx context.Context, s storage.Store, keys []cart.Key, stop <-chan struct{}) func() []tally {
	results := make(chan struct {
		i int
		tally
	})
	for i, key := range keys {
		go func() {
			var n tally
			for {
				select {
				case <-stop:
					results <- struct {
						i int
						tally
					}{i, n}
					return
				default:
				}
				made, err := raise(ctx, s, key)
				switch {
				case made:
					n.made++
				case errors.Is(err, cell.ErrOutcomeUnknown):
					n.unknown++
				case err != nil:
					n.failed = err
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
	return func() []tally {
		all := make([]tally, len(keys))
		for range keys {
			r := <-results
			all[r.i] = r.tally
		}
		return all
	}
}

func keysOf(n int) []cart.Key {
	keys := make([]cart.Key, n)
	for i := range keys {
		keys[i] = cart.Key{Identifier: fmt.Sprint("u", i), Instance: "default"}
	}
	return keys
}

// counted fails unless each cart has all the changes that were acknowledged, and none twice.
func counted(t *testing.T, s storage.Store, keys []cart.Key, tallies []tally) {
	t.Helper()
	for i, key := range keys {
		if v, n := version(t, s, key), tallies[i]; v < n.made || v > n.made+n.unknown {
			t.Errorf("%q has version %d after %d changes that were acknowledged, and %d of which nobody knows", key, v, n.made, n.unknown)
		}
	}
}
