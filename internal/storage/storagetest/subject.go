package storagetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

const (
	// patience is how long the suite waits for what must happen: long enough for a loaded machine, since a healthy
	// store never needs it.
	patience = 30 * time.Second
	// long is a life that does not end during a test. longer is that of a cart, so that it outlives every lease of a
	// test.
	long   = 10 * time.Minute
	longer = time.Hour
	// brief is a life whose end a test waits for.
	brief = 300 * time.Millisecond
)

var key = cart.Key{Identifier: "u1", Instance: "default"}

// subject is the store under test with what the tests do to it. Its methods fail the test on any error.
type subject struct {
	*testing.T
	ctx     context.Context // ends only where something hangs
	harness Harness
	store   storage.Store
	caps    Caps
}

// on is the same test on another store.
func (s *subject) on(store storage.Store) *subject {
	other := *s
	other.store = store
	return &other
}

// second is the same test on a second store with the same data, or on the same store if there can be only one.
func (s *subject) second() *subject {
	if s.harness.Second == nil {
		return s
	}
	return s.on(s.harness.Second(s.T))
}

func (s *subject) load(key cart.Key) *cart.Cart {
	s.Helper()
	c, err := s.store.Load(s.ctx, key)
	if err != nil {
		s.Fatalf("Load(%q): %v", key, err)
	}
	if c == nil {
		s.Fatalf("Load(%q) = nil", key)
	}
	return c
}

func (s *subject) try(commits ...storage.Commit) []storage.Outcome {
	s.Helper()
	outs, err := s.store.Commit(s.ctx, commits...)
	if err != nil {
		s.Fatalf("Commit(%q): %v", commits[0].Key, err)
	}
	if len(outs) != len(commits) {
		s.Fatalf("Commit of %d gave %d outcomes", len(commits), len(outs))
	}
	return outs
}

// commit makes one commit, which must end with status want.
func (s *subject) commit(want storage.Status, c storage.Commit) storage.Outcome {
	s.Helper()
	out := s.try(c)[0]
	if out.Status != want {
		s.Fatalf("Commit(%q, %v) = %s, want %s", c.Key, c.Locks.Parts, name(out.Status), name(want))
	}
	return out
}

// put makes a commit of writes on the cart as it is now and returns what it became.
func (s *subject) put(key cart.Key, writes ...storage.Write) *cart.Cart {
	s.Helper()
	s.commit(storage.Committed, change(key, s.load(key), writes...))
	return s.load(key)
}

// change is one change of base, by one step, under no lock.
func change(key cart.Key, base *cart.Cart, writes ...storage.Write) storage.Commit {
	c := storage.Commit{
		Key: key, Expect: storage.Expect{ID: base.ID, Version: base.Version},
		Change: storage.Change{Writes: writes, Steps: 1, NewID: storage.NewID(), TTL: longer},
	}
	for i := range c.Change.Writes {
		c.Locks.Parts = append(c.Locks.Parts, c.Change.Writes[i].Part)
		if c.Change.Writes[i].Step == 0 {
			c.Change.Writes[i].Step = 1
		}
	}
	return c
}

// check is a commit that changes nothing.
func check(key cart.Key, base *cart.Cart, parts ...cart.Part) storage.Commit {
	return storage.Commit{
		Key: key, Expect: storage.Expect{ID: base.ID, Version: base.Version},
		Change: storage.Change{NewID: storage.NewID(), TTL: longer},
		Locks:  storage.Locks{Parts: parts},
	}
}

func items(json string) storage.Write {
	return storage.Write{Part: cart.PartItems, Value: []byte(json)}
}

func conditions(json string) storage.Write {
	return storage.Write{Part: cart.PartConditions, Value: []byte(json)}
}

func metadata(key, json string) storage.Write {
	return storage.Write{Part: cart.PartMetadata(key), Value: []byte(json)}
}

func removed(key string) storage.Write {
	return storage.Write{Part: cart.PartMetadata(key)}
}

// content is what a cart holds, as text.
type content struct {
	ID                              string
	Version                         uint64
	Items, Conditions               string
	ItemsVersion, ConditionsVersion uint64
	Metadata                        []entry
	Transfer, Received              string
	Ledger                          string
	LedgerVersion                   uint64
}

type entry struct {
	Key, Value string
	Version    uint64
}

func contentOf(c *cart.Cart) content {
	out := content{
		ID: c.ID, Version: c.Version,
		Items: string(c.Items.Object.Bytes()), ItemsVersion: c.Items.Version,
		Conditions: string(c.Conditions.Object.Bytes()), ConditionsVersion: c.Conditions.Version,
		Transfer: string(c.Transfer), Received: string(c.Received),
		Ledger: string(c.Ledger.Value), LedgerVersion: c.Ledger.Version,
	}
	for _, e := range c.Metadata {
		out.Metadata = append(out.Metadata, entry{e.Key, string(e.Value), e.Version})
	}
	return out
}

// same fails unless both carts are alike in all that a backend stores.
func (s *subject) same(what string, got, want *cart.Cart) {
	s.Helper()
	if got == nil {
		s.Fatalf("%s: no cart", what)
	}
	if d := cmp.Diff(contentOf(want), contentOf(got)); d != "" {
		s.Errorf("%s (-want +got):\n%s", what, d)
	}
	if !got.CreatedAt.Equal(want.CreatedAt) || !got.UpdatedAt.Equal(want.UpdatedAt) || !got.ExpiresAt.Equal(want.ExpiresAt) {
		s.Errorf("%s: times are %v, %v, %v; want %v, %v, %v", what,
			got.CreatedAt, got.UpdatedAt, got.ExpiresAt, want.CreatedAt, want.UpdatedAt, want.ExpiresAt)
	}
}

// is fails unless the cart holds want; the id is taken from the cart where want has none.
func (s *subject) is(what string, got *cart.Cart, want content) {
	s.Helper()
	if got == nil {
		s.Fatalf("%s: no cart", what)
	}
	if want.ID == "" && want.Version > 0 {
		want.ID = got.ID
	}
	if want.Items == "" {
		want.Items = "{}"
	}
	if want.Conditions == "" {
		want.Conditions = "{}"
	}
	if d := cmp.Diff(want, contentOf(got)); d != "" {
		s.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// missing fails unless there is no trace of the cart.
func (s *subject) missing(what string, got *cart.Cart) {
	s.Helper()
	s.is(what, got, content{})
	if !got.CreatedAt.IsZero() || !got.UpdatedAt.IsZero() || !got.ExpiresAt.IsZero() || got.Floor != 0 || len(got.Removed) != 0 {
		s.Errorf("%s: not the zero cart: %+v", what, got)
	}
}

// instances lists the instances of an identifier, or nothing if the backend cannot.
func (s *subject) instances(want []string, identifier string) {
	s.Helper()
	got, err := s.store.Instances(s.ctx, identifier)
	if s.caps.NoInstances != "" {
		if !errors.Is(err, storage.ErrUnsupported) {
			s.Errorf("Instances(%q): %v, want ErrUnsupported, since %s", identifier, err, s.caps.NoInstances)
		}
		return
	}
	if err != nil {
		s.Fatalf("Instances(%q): %v", identifier, err)
	}
	if !slices.Equal(got, want) {
		s.Errorf("Instances(%q) = %q, want %q", identifier, got, want)
	}
}

// eventually polls until done says so. It polls, instead of sleeping once, since what it waits for happens by the
// backend's clock.
func (s *subject) eventually(what string, done func() bool) {
	s.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// together runs f(0) to f(n-1) at once and fails the test on the first error.
func (s *subject) together(n int, f func(i int) error) {
	s.Helper()
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	var first error
	for range n {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	if first != nil {
		s.Fatal(first)
	}
}

func name(s storage.Status) string {
	return [...]string{"NotTried", "Committed", "Conflict", "Locked", "LockLost", "LockUnknown"}[s]
}
