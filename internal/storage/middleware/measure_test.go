package middleware

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
	"github.com/sidecart/sidecart/internal/storage/redis"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
	"github.com/sidecart/sidecart/internal/testserver"
)

var key = cart.Key{Identifier: "u1", Instance: "default"}

func TestMemoryConforms(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		s := Measure(memory.New())
		t.Cleanup(func() { _ = s.Close() })
		return storagetest.Harness{Store: s}
	}, storagetest.Caps{
		NoSecond: "the carts are in the memory of one store",
		NoPrefix: "a store has all of its map to itself",
	})
}

func TestRedisConforms(t *testing.T) {
	server := testserver.StartRedis(t)
	open := func(t *testing.T, prefix string) storage.Store {
		const patient = 20 * time.Second
		s, err := redis.New(t.Context(), redis.Config{
			Addresses: []string{server.Addr}, Prefix: prefix, DialTimeout: patient, ReadTimeout: patient, WriteTimeout: patient,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return Measure(s)
	}
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		prefix := filepath.Base(t.Name())
		return storagetest.Harness{
			Store:  open(t, prefix),
			Second: func(t *testing.T) storage.Store { return open(t, prefix) },
			Other:  func(t *testing.T) storage.Store { return open(t, prefix+".b") },
		}
	}, storagetest.Caps{})
}

// bare is a store with no power at all.
type bare struct{ storage.Store }

// The stores of one power.
type (
	withBeat struct {
		storage.Store
		storage.Beater
	}
	withAdvice struct {
		storage.Store
		storage.Advisor
	}
	withCount struct {
		storage.Store
		storage.Counter
	}
	withMemory struct{ storage.Store }
)

func (withMemory) OutsideHeap() int64 { return 7 }

// powers are the optional powers of a store; each function finds its own.
var powers = map[string]func(storage.Store) (any, bool){
	"Locker":      func(s storage.Store) (any, bool) { l, ok := s.(storage.Locker); return l, ok },
	"Beater":      func(s storage.Store) (any, bool) { return storage.As[storage.Beater](s) },
	"Advisor":     func(s storage.Store) (any, bool) { return storage.As[storage.Advisor](s) },
	"Counter":     func(s storage.Store) (any, bool) { return storage.As[storage.Counter](s) },
	"OutsideHeap": func(s storage.Store) (any, bool) { return storage.As[storage.OutsideHeap](s) },
	"Walker":      func(s storage.Store) (any, bool) { return storage.As[storage.Walker](s) },
	"Fencer":      func(s storage.Store) (any, bool) { return storage.As[storage.Fencer](s) },
	"Loner":       func(s storage.Store) (any, bool) { return storage.As[storage.Loner](s) },
	"Mover":       func(s storage.Store) (any, bool) { return storage.As[storage.Mover](s) },
	"Auditor":     func(s storage.Store) (any, bool) { return storage.As[storage.Auditor](s) },
	"Watcher":     func(s storage.Store) (any, bool) { return storage.As[storage.Watcher](s) },
}

// TestPowers: a decorated store offers what the bare one offers, and in addition only the count of its commits.
func TestPowers(t *testing.T) {
	whole := memory.New()
	t.Cleanup(func() { _ = whole.Close() })
	for name, test := range map[string]struct {
		store storage.Store
		want  []string
	}{
		"memory":      {whole, []string{"Advisor", "Auditor", "Beater", "Counter", "Fencer", "Locker", "OutsideHeap", "Walker", "Watcher"}},
		"bare":        {bare{whole}, nil},
		"beat":        {withBeat{whole, whole}, []string{"Beater"}},
		"advice":      {withAdvice{whole, whole}, []string{"Advisor"}},
		"count":       {withCount{whole, whole}, []string{"Counter"}},
		"memory only": {withMemory{whole}, []string{"OutsideHeap"}},
	} {
		t.Run(name, func(t *testing.T) {
			for what, s := range map[string]storage.Store{"bare": test.store, "decorated": Measure(test.store), "twice": Measure(Measure(test.store))} {
				var got []string
				for _, power := range slices.Sorted(maps.Keys(powers)) {
					if _, ok := powers[power](s); ok {
						got = append(got, power)
					}
				}
				if d := cmp.Diff(test.want, got); d != "" {
					t.Errorf("%s (-want +got):\n%s", what, d)
				}
			}
		})
	}
	if _, ok := storage.As[storage.Meter](whole); ok {
		t.Error("a bare store counts its commits")
	}
}

// TestEveryPowerIsKnown: each interface that package storage declares belongs to the contract or to decorators, or is
// in powers.
func TestEveryPowerIsKnown(t *testing.T) {
	paths, err := filepath.Glob("../*.go")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	var got []string
	for _, path := range paths {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.TypeSpec); ok && s.Name.IsExported() {
				if _, ok := s.Type.(*ast.InterfaceType); ok {
					got = append(got, s.Name.Name)
				}
			}
			return true
		})
	}
	want := slices.AppendSeq([]string{"Store", "Decorator", "Meter"}, maps.Keys(powers))
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("interfaces of package storage (-known +declared):\n%s", d)
	}
}

// TestMeasure: each commit counts once, by how it ended.
func TestMeasure(t *testing.T) {
	s := Measure(memory.New())
	t.Cleanup(func() { _ = s.Close() })
	l, meter := s.(storage.Locker), s.(storage.Meter)
	other := cart.Key{Identifier: "u2", Instance: "default"}
	items := []cart.Part{cart.PartItems}
	create := storage.Commit{Key: key, Change: storage.Change{NewID: "id", Steps: 1}, Locks: storage.Locks{Parts: items}}
	pair := create
	pair.Key = other
	commit := func(commits ...storage.Commit) error {
		_, err := s.Commit(t.Context(), commits...)
		return err
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, step := range []struct {
		name string
		do   func() error
		want storage.CommitCounts
	}{
		{"a read", func() error { _, err := s.Load(t.Context(), key); return err }, storage.CommitCounts{}},
		{"a commit", func() error { return commit(create) }, storage.CommitCounts{Commits: 1}},
		{"a conflict", func() error { return commit(create) }, storage.CommitCounts{Commits: 2, Conflicts: 1}},
		{"a pair, of which one conflicts", func() error { return commit(pair, create) }, storage.CommitCounts{Commits: 3, Conflicts: 2}},
		{"a lock", func() error {
			_, err := l.Acquire(t.Context(), key, storage.Claim{Token: "t", Parts: items, Duration: time.Hour}, false)
			return err
		}, storage.CommitCounts{Commits: 3, Conflicts: 2}},
		{"a commit that meets it", func() error { return commit(create) }, storage.CommitCounts{Commits: 4, Conflicts: 2, Locked: 1}},
		{"a commit that fails", func() error {
			if _, err := s.Commit(cancelled, create); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}, storage.CommitCounts{Commits: 5, Conflicts: 2, Locked: 1}},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if d := cmp.Diff(step.want, meter.CommitCounts()); d != "" {
			t.Errorf("after %s (-want +got):\n%s", step.name, d)
		}
	}
}
