package storage_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

const (
	items      = cart.PartItems
	conditions = cart.PartConditions
	all        = cart.PartAll
	notes      = cart.Part("metadata.notes")
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.FixedZone("CET", 3600))

func claim(token string, parts ...cart.Part) storage.Claim {
	return storage.Claim{Token: token, Parts: parts, Duration: 10 * time.Second}
}

// queue is the tokens that hold and those that wait, in order.
func queue(s *storage.State) (held, waiting []string) {
	for _, h := range s.Held {
		held = append(held, h.Token)
	}
	for _, w := range s.Queue {
		waiting = append(waiting, w.Token)
	}
	return held, waiting
}

func wantQueue(t *testing.T, what string, s *storage.State, held, waiting []string) {
	t.Helper()
	h, w := queue(s)
	if !slices.Equal(h, held) || !slices.Equal(w, waiting) {
		t.Errorf("%s: %q hold and %q wait, want %q and %q", what, h, w, held, waiting)
	}
}

func TestAcquire(t *testing.T) {
	for _, test := range []struct {
		name          string
		claims        []storage.Claim
		held, waiting []string
	}{
		{"free", []storage.Claim{claim("a", items)}, []string{"a"}, nil},
		{"disjoint", []storage.Claim{claim("a", items), claim("b", conditions), claim("c", notes)}, []string{"a", "b", "c"}, nil},
		{"same part", []storage.Claim{claim("a", items), claim("b", items)}, []string{"a"}, []string{"b"}},
		{"one part of several", []storage.Claim{claim("a", items, notes), claim("b", conditions, notes)}, []string{"a"}, []string{"b"}},
		{"whole cart behind a part", []storage.Claim{claim("a", notes), claim("b", all)}, []string{"a"}, []string{"b"}},
		{"part behind the whole cart", []storage.Claim{claim("a", all), claim("b", notes)}, []string{"a"}, []string{"b"}},
		{
			"a free part that somebody before waits for",
			[]storage.Claim{claim("a", items), claim("b", items, conditions), claim("c", conditions), claim("d", notes)},
			[]string{"a", "d"}, []string{"b", "c"},
		},
		{"waits already", []storage.Claim{claim("a", items), claim("b", items), claim("c", items), claim("b", items)}, []string{"a"}, []string{"b", "c"}},
		{"holds already", []storage.Claim{claim("a", items), claim("b", items), claim("a", items)}, []string{"a"}, []string{"b"}},
		{"holds the whole cart", []storage.Claim{claim("a", all), claim("b", items), claim("a", items)}, []string{"a", "a"}, []string{"b"}},
		{"holds all of them by two claims", []storage.Claim{claim("a", items), claim("a", conditions), claim("b", all), claim("a", items, conditions)}, []string{"a"}, []string{"b"}},
		{"wants more", []storage.Claim{claim("a", items), claim("b", conditions), claim("a", items, conditions)}, []string{"a", "b"}, []string{"a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s storage.State
			for i, c := range test.claims {
				got := s.Acquire(c, start)
				if got.Granted == got.Queued {
					t.Fatalf("claim %d: %+v", i, got)
				}
				if got.Granted != s.Holds(c.Token, c.Parts) {
					t.Errorf("claim %d: %+v, but Holds says %v", i, got, !got.Granted)
				}
			}
			wantQueue(t, "afterwards", &s, test.held, test.waiting)
		})
	}
}

func TestRenew(t *testing.T) {
	var s storage.State
	wide := claim("a", items, conditions)
	s.Acquire(wide, start)
	if got := s.Acquire(claim("a", items), start.Add(5*time.Second)); !got.Granted {
		t.Fatalf("renewal: %+v", got)
	}
	if !slices.Equal(wide.Parts, []cart.Part{items, conditions}) {
		t.Errorf("the caller's claim was written to: %v", wide.Parts)
	}
	s.Acquire(claim("b", conditions), start)
	// What was not renewed ends at its time, and what was lives on.
	s.Settle(start.Add(9 * time.Second))
	if !s.Holds("a", []cart.Part{items, conditions}) {
		t.Errorf("a part that was not renewed was lost before its time: %+v", s.Held)
	}
	s.Settle(start.Add(10 * time.Second))
	if s.Holds("a", []cart.Part{conditions}) || !s.Holds("a", []cart.Part{items}) {
		t.Errorf("at the end of the first lease: %+v", s.Held)
	}
	s.Settle(start.Add(15 * time.Second))
	wantQueue(t, "at the end of the second lease", &s, nil, nil)
}

func TestSettle(t *testing.T) {
	var s storage.State
	s.Acquire(claim("a", items), start)
	s.Acquire(claim("b", items), start)
	s.Acquire(claim("c", items), start.Add(storage.Heartbeat))
	s.Acquire(claim("d", conditions), start)
	s.Cart = cart.Cart{ID: "id", Version: 1, ExpiresAt: start.Add(time.Second)}

	if granted := s.Settle(start.Add(storage.WaiterTTL - 1)); granted != nil {
		t.Errorf("granted %q while the lock was held", granted)
	}
	wantQueue(t, "while all live", &s, []string{"a", "d"}, []string{"b", "c"})
	s.Settle(start.Add(storage.WaiterTTL))
	wantQueue(t, "b has died", &s, []string{"a", "d"}, []string{"c"})

	s.Acquire(claim("c", items), start.Add(9*time.Second)) // alive, whatever went before
	if s.Settle(start.Add(time.Second - 1)); !s.Cart.Exists() {
		t.Error("the cart expired before its time")
	}
	if s.Settle(start.Add(time.Second)); s.Cart.Exists() {
		t.Error("the cart outlived its time")
	}
	s.Acquire(claim("c", items), start.Add(9*time.Second+500*time.Millisecond))
	granted := s.Settle(start.Add(10 * time.Second))
	if !slices.Equal(granted, []string{"c"}) {
		t.Errorf("granted %q when the locks had ended", granted)
	}
	if len(s.Held) != 1 || !s.Held[0].Expires.Equal(start.Add(10*time.Second+storage.WaiterTTL)) {
		t.Errorf("the lock of c does not begin when it is granted, or is not for as long as a waiter lives: %+v", s.Held)
	}
	if got := s.Acquire(claim("c", items), start.Add(10*time.Second+storage.WaiterTTL-1)); !got.Granted || !s.Held[0].Expires.Equal(start.Add(20*time.Second+storage.WaiterTTL-1)) {
		t.Errorf("c has claimed again: %+v, %+v", got, s.Held)
	}
}

func TestAbandon(t *testing.T) {
	fill := func() *storage.State {
		var s storage.State
		for _, c := range []storage.Claim{claim("a", all), claim("b", items, conditions), claim("c", conditions), claim("d", items), claim("e", notes)} {
			s.Acquire(c, start)
		}
		return &s
	}
	for _, test := range []struct {
		token                  string
		granted, held, waiting []string
	}{
		{"nobody", nil, []string{"a"}, []string{"b", "c", "d", "e"}},
		{"a", []string{"b", "e"}, []string{"b", "e"}, []string{"c", "d"}},
		{"b", nil, []string{"a"}, []string{"c", "d", "e"}},
	} {
		s := fill()
		if granted := s.Abandon(test.token, start); !slices.Equal(granted, test.granted) {
			t.Errorf("Abandon(%s) granted %q, want %q", test.token, granted, test.granted)
		}
		wantQueue(t, "Abandon("+test.token+")", s, test.held, test.waiting)
	}
	s := fill()
	s.Abandon("b", start)
	if granted := s.Abandon("a", start); !slices.Equal(granted, []string{"c", "d", "e"}) {
		t.Errorf("granted %q, want all that share no part", granted)
	}
}

func one(s *storage.State, c storage.Commit) storage.Outcome {
	outs, _ := storage.Apply([]*storage.State{s}, []storage.Commit{c}, start)
	return outs[0]
}

func TestApplyTimes(t *testing.T) {
	var s storage.State
	out := one(&s, storage.Commit{Change: storage.Change{NewID: "id", Steps: 1, TTL: time.Minute}})
	now := time.Date(2026, 3, 1, 11, 0, 0, 123_000_000, time.UTC)
	want := storage.Outcome{Status: storage.Committed, ID: "id", CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(time.Minute)}
	if d := cmp.Diff(want, out); d != "" {
		t.Errorf("outcome (-want +got):\n%s", d)
	}
	if out := one(&s, storage.Commit{Expect: storage.Expect{ID: "id"}, Change: storage.Change{Touch: true}}); !out.ExpiresAt.IsZero() || !s.Cart.ExpiresAt.IsZero() {
		t.Errorf("TTL 0 expires at %v", out.ExpiresAt)
	}
}

func TestApplyStatus(t *testing.T) {
	lock := func(s *storage.State) { s.Acquire(claim("a", items), start) }
	lost := func(s *storage.State) { s.Lost = []storage.Lost{{Token: "b", Expired: start}} }
	transfer := func(s *storage.State) { s.Cart.Transfer = []byte("x") }
	for _, test := range []struct {
		name   string
		given  func(*storage.State)
		commit storage.Commit
		want   storage.Status
	}{
		{"current", nil, storage.Commit{Expect: storage.Expect{ID: "id", Version: 3}}, storage.Committed},
		{"no cart expected", nil, storage.Commit{}, storage.Conflict},
		{"stale", nil, storage.Commit{Expect: storage.Expect{ID: "id", Version: 2}}, storage.Conflict},
		{"stale part", nil, storage.Commit{Expect: storage.Expect{ID: "id", Parts: map[cart.Part]uint64{conditions: 1}}}, storage.Conflict},
		{"locked", lock, storage.Commit{Expect: storage.Expect{ID: "id"}, Locks: storage.Locks{Parts: []cart.Part{items}}}, storage.Locked},
		{"locked and stale", lock, storage.Commit{Locks: storage.Locks{Parts: []cart.Part{items}}}, storage.Locked},
		{"own lock", lock, storage.Commit{Expect: storage.Expect{ID: "id"}, Locks: storage.Locks{Parts: []cart.Part{items}, Token: "a", MustHold: true}}, storage.Committed},
		{"another part's lock", lock, storage.Commit{Expect: storage.Expect{ID: "id"}, Locks: storage.Locks{Parts: []cart.Part{conditions}}}, storage.Committed},
		{"no lease", lock, storage.Commit{Expect: storage.Expect{ID: "id"}, Locks: storage.Locks{Parts: []cart.Part{items}, Token: "b", MustHold: true}}, storage.LockUnknown},
		{"lease lost", lost, storage.Commit{Expect: storage.Expect{ID: "id"}, Locks: storage.Locks{Parts: []cart.Part{items}, Token: "b", MustHold: true}}, storage.LockLost},
		{"no lease, nothing demanded", nil, storage.Commit{Expect: storage.Expect{ID: "id"}, Locks: storage.Locks{Parts: []cart.Part{items}, Token: "b"}}, storage.Committed},
		{"transfer", transfer, storage.Commit{Expect: storage.Expect{ID: "id"}}, storage.Conflict},
		{"transfer, forgotten blindly", transfer, storage.Commit{Expect: storage.Expect{ID: "id"}, Change: storage.Change{Forget: true}}, storage.Conflict},
		{"transfer, known", transfer, storage.Commit{Expect: storage.Expect{ID: "id"}, Change: storage.Change{Writes: []storage.Write{{Part: cart.PartTransfer}}}}, storage.Committed},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := storage.State{Cart: cart.Cart{ID: "id", Version: 3}}
			if test.given != nil {
				test.given(&s)
			}
			out := one(&s, test.commit)
			if out.Status != test.want {
				t.Fatalf("status %d, want %d", out.Status, test.want)
			}
			if out.Status == storage.Conflict && (out.Cart == nil || out.Cart.Version != 3) {
				t.Errorf("the conflict's cart is %+v", out.Cart)
			}
		})
	}
}

// TestApplyAllOrNone: one failure leaves the other cart alone, and only the failed one claims.
func TestApplyAllOrNone(t *testing.T) {
	ask := claim("x", items)
	good := storage.Commit{Expect: storage.Expect{ID: "id", Version: 1}, Change: storage.Change{Steps: 1}, Locks: storage.Locks{Parts: []cart.Part{items}, Token: "t", Release: true, Claim: &ask}}
	bad := good
	bad.Expect.Version = 9
	newStates := func() []*storage.State {
		var states []*storage.State
		for range 2 {
			s := &storage.State{Cart: cart.Cart{ID: "id", Version: 1}}
			s.Acquire(claim("t", conditions), start)
			states = append(states, s)
		}
		return states
	}
	for _, test := range []struct {
		name     string
		commits  []storage.Commit
		status   []storage.Status
		claimed  []bool
		versions []uint64
		held     [][]string
	}{
		{"both", []storage.Commit{good, good}, []storage.Status{storage.Committed, storage.Committed}, []bool{false, false}, []uint64{2, 2}, [][]string{nil, nil}},
		{"first fails", []storage.Commit{bad, good}, []storage.Status{storage.Conflict, storage.NotTried}, []bool{true, false}, []uint64{1, 1}, [][]string{{"t", "x"}, {"t"}}},
		{"second fails", []storage.Commit{good, bad}, []storage.Status{storage.NotTried, storage.Conflict}, []bool{false, true}, []uint64{1, 1}, [][]string{{"t"}, {"t", "x"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			states := newStates()
			outs, _ := storage.Apply(states, test.commits, start)
			for i, s := range states {
				if outs[i].Status != test.status[i] || outs[i].Claimed.Granted != test.claimed[i] || s.Cart.Version != test.versions[i] {
					t.Errorf("commit %d: %+v at version %d", i, outs[i], s.Cart.Version)
				}
				if held, _ := queue(s); !cmp.Equal(held, test.held[i], cmpopts.EquateEmpty()) {
					t.Errorf("commit %d leaves %q holding, want %q", i, held, test.held[i])
				}
			}
		})
	}
}

// TestApplyAgain: a claim for the next turn stands behind those who wait, and is not made where nobody does.
func TestApplyAgain(t *testing.T) {
	again := claim("x", items)
	commit := storage.Commit{Expect: storage.Expect{ID: "id"}, Change: storage.Change{Steps: 1}, Locks: storage.Locks{Parts: []cart.Part{items}, Token: "a", Release: true, Again: &again}}
	for _, test := range []struct {
		name          string
		waiting       []storage.Claim
		want          storage.Claimed
		held, waiters []string
	}{
		{"alone", nil, storage.Claimed{}, nil, nil},
		{"before others", []storage.Claim{claim("b", items), claim("c", all)}, storage.Claimed{Queued: true}, []string{"b"}, []string{"c", "x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := storage.State{Cart: cart.Cart{ID: "id", Version: 1}}
			s.Acquire(claim("a", items), start)
			for _, c := range test.waiting {
				s.Acquire(c, start)
			}
			if out := one(&s, commit); out.Status != storage.Committed || out.Claimed != test.want {
				t.Errorf("outcome %+v, want claimed %+v", out, test.want)
			}
			wantQueue(t, "afterwards", &s, test.held, test.waiters)
		})
	}
}
