package cell

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
)

var key = cart.Key{Identifier: "u1", Instance: "default"}

func newToy() *toy { return &toy{values: map[cart.Key]toyValue{}} }

// able is a toy with every power that a Swapper can have. Its stores tell each other of releases.
type able struct {
	toyStore
	hub *hub
}

type hub struct {
	mu        sync.Mutex
	listeners []func(tokens []string)
	told      []string
}

func (d able) Listen(wake func(tokens []string)) {
	d.hub.mu.Lock()
	defer d.hub.mu.Unlock()
	d.hub.listeners = append(d.hub.listeners, wake)
}

func (d able) Notify(_ cart.Key, tokens []string) {
	d.hub.mu.Lock()
	listeners := slices.Clone(d.hub.listeners)
	d.hub.told = append(d.hub.told, tokens...)
	d.hub.mu.Unlock()
	for _, wake := range listeners {
		wake(tokens)
	}
}

func (d able) Instances(ctx context.Context, identifier string) (instances []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, v := range d.values {
		s, _, _, err := storage.DecodeState(v.value)
		if err != nil {
			return nil, err
		}
		if key.Identifier == identifier && s.Exists(time.Now()) {
			instances = append(instances, key.Instance)
		}
	}
	return instances, d.usable(ctx)
}

func (d able) Flush(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.values)
	return d.usable(ctx)
}

func (d able) OutsideHeap() int64 { return 7 }
func (d able) Advice(context.Context) ([]storage.Advice, error) {
	return []storage.Advice{{Code: "x"}}, nil
}
func (d able) Pairs(_, _ cart.Key) bool    { return true }
func (d able) Probe(context.Context) error { return errors.New("probed") }
func (d able) Beat(context.Context) error  { return errors.New("beaten") }
func (d able) Now() time.Time              { return time.Now().Add(-time.Hour) }

func openAble(t *testing.T, d *toy, h *hub) *Store {
	s := New(Swapping(able{toyStore{d, make(chan struct{})}, h}))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// quick is able with the process's clock and probe, so that the suite can run on it.
type quick struct {
	toyStore
	Lister
	Flusher
	Notifier
}

// TestPowersConform: with all optional powers of a Swapper, the suite passes as well.
func TestPowersConform(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Harness {
		d, h := newToy(), new(hub)
		open := func(t *testing.T) storage.Store {
			a := able{toyStore{d, make(chan struct{})}, h}
			s := New(Swapping(quick{a.toyStore, a, a, a}))
			t.Cleanup(func() { _ = s.Close() })
			return s
		}
		return storagetest.Harness{Store: open(t), Second: open}
	}, storagetest.Caps{NoCount: "it cannot find all of its values", NoWalk: "it cannot find all of its values", NoPairs: "one value is swapped at a time", NoPrefix: "a map per prefix"})
}

// TestPowers: each power is used if it is there, also below the adapter, except for pairs.
func TestPowers(t *testing.T) {
	d := newToy()
	s := openAble(t, d, new(hub))
	if n := s.OutsideHeap(); n != 7 {
		t.Errorf("OutsideHeap = %d", n)
	}
	if a, err := s.Advice(t.Context()); err != nil || len(a) != 1 {
		t.Errorf("Advice = %v, %v", a, err)
	}
	if err := s.Ping(t.Context()); err == nil || err.Error() != "ping: probed" {
		t.Errorf("Ping: %v", err)
	}
	if err := s.Beat(t.Context()); err == nil || err.Error() != "ping: beaten" {
		t.Errorf("Beat: %v", err)
	}
	if s.Atomic(key, cart.Key{Identifier: "u2", Instance: "default"}) || !s.Atomic(key, key) {
		t.Error("a compare-and-swap of one value pairs two")
	}
	// The clock is the Swapper's.
	if _, err := commit(t.Context(), s, key, &cart.Cart{}); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Load(t.Context(), key); err != nil || time.Since(c.UpdatedAt) < 59*time.Minute {
		t.Errorf("changed at %v, %v", c.UpdatedAt, err)
	}
}

// TestFallbacks: without a power, a call is unsupported, its answer unknown, or the fallback is used.
func TestFallbacks(t *testing.T) {
	d := newToy()
	s := d.open(t)
	if _, err := s.Instances(t.Context(), "u1"); !errors.Is(err, storage.ErrUnsupported) {
		t.Errorf("Instances: %v", err)
	}
	if err := s.Flush(t.Context()); !errors.Is(err, storage.ErrUnsupported) {
		t.Errorf("Flush: %v", err)
	}
	if a, err := s.Advice(t.Context()); a != nil || err != nil {
		t.Errorf("Advice = %v, %v", a, err)
	}
	if n := s.OutsideHeap(); n != 0 {
		t.Errorf("OutsideHeap = %d", n)
	}
	for name, probe := range map[string]func(context.Context) error{"Ping": s.Ping, "Beat": s.Beat} {
		before := d.revision
		if err := probe(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d.revision != before+2 || len(d.values) != 0 {
			t.Errorf("%s made %d swaps and left %d values, want one that stores and one that takes it back", name, d.revision-before, len(d.values))
		}
	}
}

// commit changes a cart by one step, of at.
func commit(ctx context.Context, s storage.Store, key cart.Key, at *cart.Cart) (storage.Outcome, error) {
	outs, err := s.Commit(ctx, storage.Commit{
		Key: key, Expect: storage.Expect{ID: at.ID, Version: at.Version},
		Change: storage.Change{NewID: "id", Steps: 1, TTL: time.Hour, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(`{"a":1}`), Step: 1}}},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartItems}},
	})
	if err == nil && outs[0].Status != storage.Committed {
		err = errors.New("not committed")
	}
	if err != nil {
		return storage.Outcome{}, err
	}
	return outs[0], nil
}

// queueUp lets holder hold the whole cart, and next wait for it, by a commit.
func queueUp(t *testing.T, s storage.Locker, key cart.Key, leased bool) storage.Claim {
	t.Helper()
	claim := storage.Claim{Token: "holder", Parts: []cart.Part{cart.PartAll}, Duration: time.Minute}
	if _, err := s.Acquire(t.Context(), key, claim, false); err != nil {
		t.Fatal(err)
	}
	claim.Token, claim.Leased = "next", leased
	outs, err := s.Commit(t.Context(), storage.Commit{Key: key, Locks: storage.Locks{Parts: claim.Parts, Claim: &claim}})
	if err != nil || !outs[0].Claimed.Queued {
		t.Fatalf("Commit: %+v, %v", outs, err)
	}
	return claim
}

// TestReleaseWakes: a release by any call wakes the next at once, and tells the other stores.
func TestReleaseWakes(t *testing.T) {
	h, d := new(hub), newToy()
	s, other := openAble(t, d, h), openAble(t, d, h)
	for name, release := range map[string]func(key cart.Key) error{
		"Abandon": func(key cart.Key) error { return s.Abandon(t.Context(), key, "holder") },
		"Commit": func(key cart.Key) error {
			_, err := s.Commit(t.Context(), storage.Commit{Key: key, Locks: storage.Locks{Token: "holder", MustHold: true, Release: true}})
			return err
		},
	} {
		key := cart.Key{Identifier: "u1", Instance: name}
		queueUp(t, s, key, false)
		h.told = nil
		here, there := s.listen("next"), other.listen("next")
		if err := release(key); err != nil {
			t.Fatal(err)
		}
		for where, woken := range map[string]<-chan struct{}{"here": here, "there": there} {
			select {
			case <-woken:
			default:
				t.Errorf("%s did not wake the next %s", name, where)
			}
		}
		if !slices.Equal(h.told, []string{"next"}) {
			t.Errorf("%s told %q", name, h.told)
		}
	}
}

// TestFlushWakes: a waiter finds at once that the lock is gone.
func TestFlushWakes(t *testing.T) {
	s := openAble(t, newToy(), new(hub))
	queueUp(t, s, key, false)
	woken := s.listen("next")
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-woken:
	default:
		t.Error("nobody is woken")
	}
}

// hostile is a toy whose swaps do as they are told, once.
type hostile struct {
	toyStore
	before func() // is called before a swap
	often  int    // before how many swaps, where that is more than one
	after  error  // a swap is made, and this is what is said of it
}

func (d *hostile) Swap(ctx context.Context, key cart.Key, revision uint64, value []byte, ends time.Time) (bool, error) {
	if f := d.before; f != nil {
		if d.often--; d.often <= 0 {
			d.before = nil
		}
		f()
	}
	swapped, err := d.toyStore.Swap(ctx, key, revision, value, ends)
	if d.after != nil && err == nil {
		err, d.after = d.after, nil
		return false, err
	}
	return swapped, err
}

func openHostile(t *testing.T, d *toy) (*Store, *hostile) {
	h := &hostile{toyStore: toyStore{d, make(chan struct{})}}
	s := New(Swapping(h))
	t.Cleanup(func() { _ = s.Close() })
	return s, h
}

// TestUpdateStartsOver: an update that met another one starts from the state that is there then, and reports nothing of
// what it had computed before.
func TestUpdateStartsOver(t *testing.T) {
	d := newToy()
	s, h := openHostile(t, d)
	other := d.open(t)
	h.before = func() {
		if _, err := commit(t.Context(), other, key, &cart.Cart{}); err != nil {
			t.Error(err)
		}
	}
	if _, err := commit(t.Context(), s, key, &cart.Cart{}); err == nil || err.Error() != "not committed" {
		t.Errorf("a commit that came second: %v", err)
	}
	// A claim that was granted the first time is queued the second time.
	h.before = func() {
		claim := storage.Claim{Token: "first", Parts: []cart.Part{cart.PartAll}, Duration: time.Minute, Leased: true}
		if _, err := other.Acquire(t.Context(), key, claim, false); err != nil {
			t.Error(err)
		}
	}
	w := waiter{store: s, key: key, claim: storage.Claim{Token: "second", Parts: []cart.Part{cart.PartItems}, Duration: time.Minute, Leased: true}}
	if g, granted, err := w.ask(t.Context()); granted || err != nil || g.Cart != nil || g.Fence != 0 {
		t.Errorf("%+v, granted %v, %v", g, granted, err)
	}
	if c, err := s.Load(t.Context(), key); err != nil || c.Version != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestUnknownClaimIsAbandoned: a claim that may have been granted does not hold up others for its whole life.
func TestUnknownClaimIsAbandoned(t *testing.T) {
	d := newToy()
	s, h := openHostile(t, d)
	h.after = storage.ErrUnavailable
	claim := storage.Claim{Token: "lost", Parts: []cart.Part{cart.PartAll}, Duration: time.Hour}
	if _, err := s.Acquire(t.Context(), key, claim, false); !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatalf("Acquire: %v", err)
	}
	if len(d.values) != 0 {
		t.Error("the lock is still held")
	}
	h.after = storage.ErrTooLarge
	if _, err := commit(t.Context(), s, key, &cart.Cart{}); !errors.Is(err, storage.ErrTooLarge) || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("Commit of what is too large: %v", err)
	}
}

// TestDocumentsStay: a change of a lock alone neither parses the documents nor alters them. A call that asks for them
// is told that they are damaged.
func TestDocumentsStay(t *testing.T) {
	d := newToy()
	s := d.open(t)
	if _, err := commit(t.Context(), s, key, &cart.Cart{}); err != nil {
		t.Fatal(err)
	}
	state, _, _, err := storage.DecodeState(d.values[key].value)
	if err != nil {
		t.Fatal(err)
	}
	d.values[key] = toyValue{storage.EncodeState(&state, []byte(`{"a": `), []byte(`{ "b":1.0}`)), 1000}
	d.revision = 1000
	claim := queueUpDamaged(t, s)
	if err := s.Release(t.Context(), key, claim.Token); err != nil {
		t.Fatalf("Release: %v", err)
	}
	_, items, conditions, err := storage.DecodeState(d.values[key].value)
	if string(items) != `{"a": ` || string(conditions) != `{ "b":1.0}` || err != nil {
		t.Errorf("documents became %s, %s, %v", items, conditions, err)
	}
	if _, err := s.Load(t.Context(), key); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("Load: %v", err)
	}
	if _, err := s.Commit(t.Context(), storage.Commit{Key: key, Expect: storage.Expect{ID: "other"}}); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("a conflict, which carries the cart: %v", err)
	}
	d.values[key] = toyValue{[]byte{99}, 1001}
	if _, err := s.Load(t.Context(), key); !errors.Is(err, storage.ErrUnsupported) {
		t.Errorf("an unknown format: %v", err)
	}
	if _, err := commit(t.Context(), s, key, &cart.Cart{}); !errors.Is(err, storage.ErrUnsupported) || d.values[key].revision != 1001 {
		t.Errorf("a commit on an unknown format: %v", err)
	}
}

// queueUpDamaged puts a lease into the record of key without reading its documents, as a renewal or a turn of the queue
// does.
func queueUpDamaged(t *testing.T, s *Store) storage.Claim {
	t.Helper()
	claim := storage.Claim{Token: "client", Parts: []cart.Part{cart.PartItems}, Duration: time.Minute, Leased: true}
	err := s.change(t.Context(), key, func(state *storage.State, now time.Time) ([]string, error) {
		state.Acquire(claim, now)
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if lease, err := s.Renew(t.Context(), key, claim.Token, time.Hour); err != nil || lease.Fence == 0 {
		t.Fatalf("Renew: %+v, %v", lease, err)
	}
	return claim
}

// TestExpiredIsNotRevived: no document of an expired cart stays, also if its successor has the same id.
func TestExpiredIsNotRevived(t *testing.T) {
	r := Record{State: storage.State{Cart: cart.Cart{ID: "id", Version: 3, ExpiresAt: time.Now().Add(-time.Hour)}}}
	now := time.Now()
	r.begin(now)
	if _, _, err := apply([]*Record{&r}, []storage.Commit{{Change: storage.Change{NewID: "id", Steps: 1, Writes: []storage.Write{
		{Part: cart.PartItems, Value: []byte(`{"a":1}`), Step: 1},
	}}}}, now); err != nil {
		t.Fatal(err)
	}
	if err := r.finish(now); err != nil || string(r.Items) != `{"a":1}` || string(r.Conditions) != "{}" {
		t.Errorf("stored %s and %s, %v", r.Items, r.Conditions, err)
	}
}

// TestExpiredLeavesNoText: a lock that is taken under the name of an expired cart does not keep its documents.
func TestExpiredLeavesNoText(t *testing.T) {
	r := Record{State: storage.State{Cart: cart.Cart{ID: "id", Version: 3, ExpiresAt: time.Now().Add(-time.Hour)}}}
	now := time.Now()
	r.begin(now)
	r.State.Acquire(storage.Claim{Token: "t", Parts: []cart.Part{cart.PartAll}, Duration: time.Hour}, now)
	r.Save = true
	if err := r.finish(now); err != nil || string(r.Items) != "{}" || string(r.Conditions) != "{}" {
		t.Errorf("stored %s and %s, %v", r.Items, r.Conditions, err)
	}
}

// TestStoredLeaseHasItsFence: a lease that a release lets in is stored with its fence, before its waiter asks for it.
func TestStoredLeaseHasItsFence(t *testing.T) {
	d := newToy()
	s := d.open(t)
	queueUp(t, s, key, true)
	if err := s.Abandon(t.Context(), key, "holder"); err != nil {
		t.Fatal(err)
	}
	state, _, _, err := storage.DecodeState(d.values[key].value)
	if err != nil || len(state.Held) != 1 || state.Held[0].Token != "next" || state.Held[0].Fence == 0 || state.Fence != state.Held[0].Fence {
		t.Errorf("stored %+v, %v", state, err)
	}
}

// TestTwoCartsInOneStep: two carts that the driver does not pair are refused, before anything is changed.
func TestTwoCartsInOneStep(t *testing.T) {
	d := newToy()
	s := d.open(t)
	one := storage.Commit{Key: key, Change: storage.Change{NewID: "id", Steps: 1}}
	for name, other := range map[string]cart.Key{"two carts": {Identifier: "u2", Instance: "default"}, "one cart twice": key} {
		two := one
		two.Key = other
		if _, err := s.Commit(t.Context(), one, two); !errors.Is(err, storage.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d.revision != 0 {
		t.Error("something was stored")
	}
}

// recalling is a toy that recalls what it is told to, right or wrong.
type recalling struct {
	toyStore
	known map[cart.Key]toyValue
	gets  int
}

func (d *recalling) Get(ctx context.Context, key cart.Key) ([]byte, uint64, error) {
	d.gets++
	return d.toyStore.Get(ctx, key)
}

func (d *recalling) Recall(key cart.Key) ([]byte, uint64, bool) {
	v, ok := d.known[key]
	return v.value, v.revision, ok
}

// TestRecall: a recalled value saves a read if it is right, and misleads nobody if it is wrong.
func TestRecall(t *testing.T) {
	d := newToy()
	r := &recalling{toyStore: toyStore{d, make(chan struct{})}, known: map[cart.Key]toyValue{}}
	s := New(Swapping(r))
	t.Cleanup(func() { _ = s.Close() })
	r.known[key] = toyValue{}
	if _, err := commit(t.Context(), s, key, &cart.Cart{}); err != nil || r.gets != 0 {
		t.Errorf("a cart that is not there was made with %d reads, %v", r.gets, err)
	}
	old := d.values[key]
	r.known[key] = old
	if _, err := commit(t.Context(), s, key, &cart.Cart{ID: "id", Version: 1}); err != nil || r.gets != 0 {
		t.Errorf("a cart that is kept in mind was changed with %d reads, %v", r.gets, err)
	}
	for name, wrong := range map[string]toyValue{"of before": old, "nothing": {}, "damaged": {value: []byte{99}, revision: 1}} {
		now, err := s.Load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		r.known[key] = wrong
		outs, err := s.Commit(t.Context(), storage.Commit{Key: key, Expect: storage.Expect{ID: "id", Version: 1}})
		if err != nil || outs[0].Status != storage.Conflict || outs[0].Cart.Version != now.Version {
			t.Errorf("%s: a stale commit: %+v, %v", name, outs, err)
		}
		if _, err := commit(t.Context(), s, key, now); err != nil {
			t.Errorf("%s: a commit: %v", name, err)
		}
		if after, err := s.Load(t.Context(), key); err != nil || after.Version != now.Version+1 {
			t.Errorf("%s: version %d after %d, %v", name, after.Version, now.Version, err)
		}
	}
	// A lease that is recalled but was released since is not there.
	claim := storage.Claim{Token: "t", Parts: []cart.Part{cart.PartAll}, Duration: time.Minute, Leased: true}
	delete(r.known, key)
	if _, err := s.Acquire(t.Context(), key, claim, false); err != nil {
		t.Fatal(err)
	}
	r.known[key] = d.values[key]
	if err := d.open(t).Release(t.Context(), key, claim.Token); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Renew(t.Context(), key, claim.Token, time.Hour); !errors.Is(err, storage.ErrLockUnknown) {
		t.Errorf("Renew: %v", err)
	}
}
