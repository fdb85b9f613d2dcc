package lock_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/storage/middleware"
	"github.com/sidecart/sidecart/internal/storage/moving"
	"github.com/sidecart/sidecart/internal/storage/mysql"
	"github.com/sidecart/sidecart/internal/storage/postgres"
	"github.com/sidecart/sidecart/internal/storage/sql"
	"github.com/sidecart/sidecart/internal/testserver"
)

// auditing is a database whose stores keep an audit trail.
type auditing struct {
	t        *testing.T
	server   *testserver.DatabaseServer
	database string
	bare     func() *cell.Store
	seen     int
}

// audits are the databases that can.
var audits = map[string]func(t *testing.T) *auditing{
	"postgres": func(t *testing.T) *auditing { return auditingOn(t, testserver.SharedPostgres(t), postgres.Open) },
	"mariadb":  func(t *testing.T) *auditing { return auditingOn(t, testserver.SharedMariaDB(t), mysql.Open) },
}

func auditingOn(t *testing.T, server *testserver.DatabaseServer, open func(context.Context, sql.Config) (*cell.Store, error)) *auditing {
	url := server.NewDatabase(t)
	c := database(url)
	c.Audit = sql.Audit{Retention: time.Hour, Who: "pod-1"}
	return &auditing{t: t, server: server, database: testserver.DatabaseOf(url), bare: func() *cell.Store {
		s, err := open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}}
}

// open is a store within the decorators.
func (a *auditing) open() storage.Store { return middleware.Measure(a.bare()) }

// lines are those that were written since it was last asked: who, whose cart, call, kind, part, and the versions.
func (a *auditing) lines() []string {
	a.t.Helper()
	out, err := a.server.Query(a.database, "SELECT who, identifier, call_name, kind, part, from_version, to_version FROM sidecart_audit ORDER BY id")
	if err != nil {
		a.t.Fatal(err)
	}
	if out == "" {
		return nil
	}
	all := strings.Split(strings.ReplaceAll(out, "\t", " "), "\n")
	fresh := all[a.seen:]
	a.seen = len(all)
	return fresh
}

func (a *auditing) want(what string, want ...string) {
	a.t.Helper()
	if d := cmp.Diff(want, a.lines(), cmp.Transformer("some", func(lines []string) []string { return append([]string{}, lines...) })); d != "" {
		a.t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// auditedOptions name calls as contexts of these tests do.
func auditedOptions() lock.Options {
	o := options()
	o.CallOf = func(ctx context.Context) string { return fmt.Sprint(ctx.Value(callerKey{})) }
	return o
}

func object(t *testing.T, text string) cart.Object {
	t.Helper()
	o, err := cart.TrustedObject([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Each change of each kind has its lines, with the versions that the parts had and have, and what changes nothing has
// none.
func TestAuditTrail(t *testing.T) {
	for name, start := range audits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t)
			c := lock.New(a.open(), auditedOptions())
			items, conditions := object(t, `{"a":{"id":"a","quantity":1}}`), object(t, `{"vat":{"name":"vat"}}`)
			member := func(key, value string) cart.Member {
				if value == "" {
					return cart.Member{Key: key}
				}
				return cart.Member{Key: key, Value: []byte(value)}
			}
			for _, step := range []struct {
				call string
				verb cart.Verb
				want []string
			}{
				{"AddItem", item(t, "a", 1), []string{"items 0 1"}},
				{"AddItem", item(t, "a", 1), []string{"items 1 2"}},
				{"PutCondition", cart.PutCondition{Name: "vat", Condition: object(t, `{"name":"vat"}`)}, []string{"conditions 0 3"}},
				{"PutCart", cart.Put{Items: &items, Conditions: &conditions}, []string{"items 2 4"}}, // the conditions are as they were
				{"PutItems", cart.Put{Items: &items}, nil},
				{"PatchMetadata", cart.PatchMetadata{Values: []cart.Member{member("k", "1"), member("l", "2")}}, []string{"metadata.k 0 5", "metadata.l 0 5"}},
				{"RemoveMetadataValue", cart.PatchMetadata{Values: []cart.Member{member("k", "")}}, []string{"metadata.k 5 6"}},
				{"PutMetadataValue", cart.PatchMetadata{Values: []cart.Member{member("k", "3")}}, []string{"metadata.k 6 7"}},
				{"Batch", cart.Batch{Verbs: []cart.Verb{item(t, "b", 1), cart.RemoveCondition{Name: "vat"}, item(t, "b", 1)}}, []string{"items 4 8", "conditions 3 8"}},
				{"RemoveItem", cart.RemoveItem{ID: "none"}, nil},
				{"ClearMetadata", cart.ClearMetadata{}, []string{"metadata.k 7 9", "metadata.l 5 9"}},
				{"Clear", cart.Clear{}, []string{"items 8 10"}},
				{"AddItem", item(t, "a", 1), []string{"items 10 11"}},
			} {
				must(t)(c.Change(by(t.Context(), step.call), key, lock.Change{Verb: step.verb, Scope: cart.PartAll}))
				var want []string
				for _, line := range step.want {
					want = append(want, "pod-1 u1 "+step.call+" altered "+line)
				}
				slices.Sort(want)
				got := a.lines()
				slices.Sort(got)
				if d := cmp.Diff(want, got); len(want)+len(got) > 0 && d != "" {
					t.Errorf("%s (-want +got):\n%s", step.call, d)
				}
			}
			if _, err := c.Change(by(t.Context(), "UpdateItem"), key, lock.Change{Verb: cart.UpdateItem{ID: "none"}, Scope: cart.PartItems}); err == nil {
				t.Error("an item that is not there was updated")
			}
			a.want("a change that fails")

			other := cart.Key{Identifier: "U1", Instance: key.Instance}
			must(t)(c.Change(by(t.Context(), "AddItem"), other, lock.Change{Verb: item(t, "a", 1), Scope: cart.PartItems}))
			a.want("a name that differs in a capital", "pod-1 U1 AddItem altered items 0 1")
			must(t)(c.HandOver(by(t.Context(), "Merge"), other, key, cart.StrategyAddQuantities, lock.Change{}))
			a.want("a merge", "pod-1 U1 Merge merged * 1 0", "pod-1 u1 Merge merged items 11 12")
			must(t)(c.Change(by(t.Context(), "AddItem"), other, lock.Change{Verb: item(t, "b", 1), Scope: cart.PartItems}))
			a.want("a successor", "pod-1 U1 AddItem altered items 0 1")
			must(t)(c.HandOver(by(t.Context(), "Swap"), key, other, cart.StrategySwap, lock.Change{}))
			a.want("a swap", "pod-1 U1 Swap swapped * 1 0", "pod-1 U1 Swap swapped * 0 13", "pod-1 u1 Swap swapped * 12 0")

			l, err := c.AcquireLease(by(t.Context(), "AcquireLease"), other, lock.LeaseRequest{Parts: whole(), Wait: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			a.want("a lease")
			must(t)(c.Change(by(t.Context(), "AddItem"), other, lock.Change{Verb: item(t, "c", 1), Scope: cart.PartItems, Lease: l.Token, Release: true}))
			a.want("a change under a lease", "pod-1 U1 AddItem altered items 12 14")
			must(t)(c.Forget(by(t.Context(), "Forget"), other, lock.Change{}))
			a.want("a cart that is forgotten", "pod-1 U1 Forget forgotten * 14 0")
			must(t)(c.Forget(by(t.Context(), "Forget"), other, lock.Change{}))
			a.want("one that is not there")
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			a.want("a flush", "pod-1  Flush flushed * 0 0")
			if ids, err := a.server.Query(a.database, "SELECT COUNT(DISTINCT cart_id) FROM sidecart_audit WHERE cart_id <> ''"); err != nil || ids != "3" {
				t.Errorf("%s ids of carts, %v, want 3", ids, err)
			}
		})
	}
}

func whole() []cart.Part { return []cart.Part{cart.PartAll} }

// Changes of several clients that are one commit have their own lines each.
func TestAuditTrailOfAGroup(t *testing.T) {
	for name, start := range audits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t)
			store := a.open()
			c := lock.New(store, auditedOptions())
			must(t)(c.Change(by(t.Context(), "first"), key, lock.Change{Verb: item(t, "a", 1), Scope: cart.PartItems}))
			a.want("the first", "pod-1 u1 first altered items 0 1")
			turn := storage.Claim{Token: storage.NewToken(), Parts: whole(), Duration: time.Minute}
			if _, err := store.(storage.Locker).Acquire(t.Context(), key, turn, false); err != nil {
				t.Fatal(err)
			}
			var calls sync.WaitGroup
			names := []string{"ann", "bob", "cat", "dan", "eve"}
			for i, name := range names {
				calls.Go(func() {
					if _, err := c.Change(by(t.Context(), name), key, lock.Change{Verb: item(t, "a", 1), Scope: cart.PartItems}); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				})
				until(t, name+" waits", func() bool { return c.Status().Stats.Waiting == int64(i)+1 })
			}
			// Another part was changed meanwhile, so the versions are not those that the changes were computed from.
			outs, err := store.Commit(t.Context(), storage.Commit{
				Key: key, Expect: storage.Expect{ID: idOf(t, store)}, Locks: storage.Locks{Token: turn.Token, Parts: whole(), Release: true},
				Change: storage.Change{Steps: 1, TTL: time.Hour, Writes: []storage.Write{{Part: cart.PartMetadata("k"), Value: []byte("1"), Step: 1}}},
			})
			if err != nil || outs[0].Status != storage.Committed {
				t.Fatalf("%+v, %v", outs, err)
			}
			calls.Wait()
			var want []string
			from := 1
			for i, name := range names {
				to := i + 3
				want = append(want, fmt.Sprintf("pod-1 u1 %s altered items %d %d", name, from, to))
				from = to
			}
			a.want("those that waited", want...)
			if n, err := a.server.Query(a.database, "SELECT COUNT(DISTINCT at) FROM sidecart_audit"); err != nil || n != "2" {
				t.Errorf("%s commits, %v, want 2", n, err)
			}
		})
	}
}

func idOf(t *testing.T, s storage.Store) string {
	t.Helper()
	k, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return k.ID
}

// While carts move, both trails say so, and a merge that takes several steps has the lines of one that takes one.
func TestAuditTrailOfAMove(t *testing.T) {
	from, to := audits["postgres"](t), audits["mariadb"](t)
	old := lock.New(from.open(), auditedOptions())
	must(t)(old.Change(by(t.Context(), "AddItem"), key, lock.Change{Verb: item(t, "a", 1), Scope: cart.PartItems}))
	from.want("before the move", "pod-1 u1 AddItem altered items 0 1")
	s, err := moving.New(from.bare(), to.bare(), "a move")
	if err != nil {
		t.Fatal(err)
	}
	c := lock.New(s, auditedOptions())
	must(t)(c.Change(by(t.Context(), "AddItem"), key, lock.Change{Verb: item(t, "a", 1), Scope: cart.PartItems}))
	from.want("the old backend", "pod-1 u1 Move moved * 1 0")
	to.want("the new one", "pod-1 u1 Move moved * 0 1", "pod-1 u1 AddItem altered items 1 2")

	guest := cart.Key{Identifier: "guest", Instance: key.Instance}
	must(t)(c.Change(by(t.Context(), "AddItem"), guest, lock.Change{Verb: item(t, "b", 1), Scope: cart.PartItems}))
	to.want("a new cart", "pod-1 guest AddItem altered items 0 1")
	must(t)(c.HandOver(by(t.Context(), "Merge"), guest, key, cart.StrategyAddQuantities, lock.Change{}))
	to.want("a merge in steps", "pod-1 u1 Merge merged items 2 3", "pod-1 guest Merge merged * 1 0")
	must(t)(c.HandOver(by(t.Context(), "Swap"), key, guest, cart.StrategySwap, lock.Change{}))
	to.want("a swap in steps", "pod-1 guest Swap swapped * 0 4", "pod-1 u1 Swap swapped * 3 0")
	from.want("the old backend has no part in that")
}
