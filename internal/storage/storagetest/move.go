package storagetest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Tests of what a move between two backends needs: see package moving.

// testPlaceKeeps: a cart that is placed with its times has not changed, and ends when it would have ended.
func testPlaceKeeps(s *subject) {
	s.put(key, items(`{"a":1}`), metadata("m", `1`))
	was := *s.load(key)
	for what, ends := range map[string]time.Time{
		"later": time.Now().Add(2 * longer), "never": {}, "soon": time.Now().Add(s.short()),
	} {
		moved := was
		moved.ID, moved.UpdatedAt = storage.NewID(), time.Now().Add(-longer).UTC().Truncate(time.Millisecond)
		if moved.ExpiresAt = ends; !ends.IsZero() {
			moved.ExpiresAt = ends.UTC().Truncate(time.Millisecond)
		}
		c := placed(key, s.load(key), &moved)
		c.Change.Keep, c.Change.TTL = true, long
		out := s.commit(storage.Committed, c)
		if !out.UpdatedAt.Equal(moved.UpdatedAt) || !out.ExpiresAt.Equal(moved.ExpiresAt) {
			s.Errorf("%s: outcome has times %v, %v, want %v, %v", what, out.UpdatedAt, out.ExpiresAt, moved.UpdatedAt, moved.ExpiresAt)
		}
		if what != "soon" {
			s.same(what, s.load(key), &moved)
			continue
		}
		s.eventually("expiry", func() bool { return !s.load(key).Exists() })
	}
}

// testMarker: PartTransfer can close a cart, and takes away its expiry. It can also close a name without a cart, by a
// cart that is nothing but PartTransfer and does not expire. Both need a lock that is held at that instant. A commit
// that cannot succeed is granted the lock that it claims, with the cart.
func testMarker(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	marker := storage.Write{Part: cart.PartTransfer, Value: []byte("marker")}
	for what, k := range map[string]cart.Key{"absent": {Identifier: "nobody", Instance: "default"}, "there": key} {
		if what == "there" {
			s.put(k, items(`{"a":1}`), metadata("m", `1`))
		}
		was := s.load(k)
		turn := claim(storage.NewToken(), cart.PartAll)
		take := storage.Commit{Key: k, Expect: storage.Expect{ID: "none"}, Locks: storage.Locks{Parts: turn.Parts, Claim: &turn}}
		out := s.commit(storage.Conflict, take)
		if !out.Claimed.Granted {
			s.Fatalf("%s: a free lock was not granted: %+v", what, out.Claimed)
		}
		s.same(what+": the cart that comes with the lock", out.Cart, was)

		second := claim(storage.NewToken(), cart.PartAll)
		other := take
		other.Locks.Claim = &second
		if out := s.commit(storage.Locked, other); !out.Claimed.Queued {
			s.Errorf("%s: a held lock was claimed as %+v", what, out.Claimed)
		}
		s.abandon(l, k, second.Token)

		c := storage.Commit{
			Key: k, Expect: storage.Expect{ID: was.ID, Version: was.Version},
			Change: storage.Change{Writes: []storage.Write{marker}},
			Locks:  storage.Locks{Parts: turn.Parts, Token: storage.NewToken(), MustHold: true, Release: true},
		}
		if what == "absent" {
			c.Change.Steps, c.Change.NewID = 1, storage.NewID()
		}
		s.commit(storage.LockUnknown, c)
		c.Locks.Token = turn.Token
		s.commit(storage.Committed, c)
		now := s.load(k)
		if string(now.Transfer) != "marker" || !now.ExpiresAt.IsZero() || now.Items.Version != was.Items.Version {
			s.Errorf("%s: marked %+v", what, contentOf(now))
		}
		if out := s.commit(storage.Conflict, change(k, now, items(`{"b":1}`))); string(out.Cart.Transfer) != "marker" {
			s.Errorf("%s: the conflict does not show the marker: %+v", what, contentOf(out.Cart))
		}

		// The step that writes another marker also removes the cart's contents.
		empty := change(k, now, storage.Write{Part: cart.PartTransfer, Value: []byte("done")}, items(`{}`), conditions(`{}`), removed("m"))
		empty.Change.TTL, empty.Locks.Parts = 0, []cart.Part{cart.PartAll}
		s.commit(storage.Committed, empty)
		if after := s.load(k); string(after.Transfer) != "done" || !after.Empty() || !after.ExpiresAt.IsZero() {
			s.Errorf("%s: emptied %+v", what, contentOf(after))
		}
	}
}

// testFencesRaised: the fences of a store can go on where those of another end.
func testFencesRaised(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	f, ok := storage.As[storage.Fencer](l)
	if !ok {
		if s.caps.NoFences == "" {
			s.Fatal("the store cannot go on with the fences of another, and Caps.NoFences names no reason")
		}
		return
	}
	last := func() uint64 {
		s.Helper()
		n, err := f.LastFence(s.ctx, key)
		if err != nil {
			s.Fatalf("LastFence: %v", err)
		}
		return n
	}
	take := func() uint64 {
		s.Helper()
		token := storage.NewToken()
		g := s.lease(l, key, token, long, cart.PartItems)
		if n := last(); n < g.Fence {
			s.Errorf("the last fence is %d, that of a lease %d", n, g.Fence)
		}
		if err := l.Release(s.ctx, key, token); err != nil {
			s.Fatalf("Release: %v", err)
		}
		return g.Fence
	}
	given := take()
	for _, ahead := range []uint64{1_000_000, 3_600_000_000, 1} { // a second, an hour, a microsecond
		raised := last() + ahead
		if err := f.RaiseFence(s.ctx, key, raised); err != nil {
			s.Fatalf("RaiseFence: %v", err)
		}
		if err := f.RaiseFence(s.ctx, key, given); err != nil {
			s.Fatalf("RaiseFence to less: %v", err)
		}
		if n := last(); n < raised {
			s.Errorf("raised to %d, the last is %d", raised, n)
		}
		if given = take(); given <= raised {
			s.Errorf("fence %d after %d", given, raised)
		}
	}
}

// testWalk: a walk finds each cart that exists during the whole walk, whatever else comes and goes.
func testWalk(s *subject) {
	w, ok := storage.As[storage.Walker](s.store)
	if s.caps.NoWalk != "" {
		if _, _, err := walkPage(s.ctx, w); !errors.Is(err, storage.ErrUnsupported) {
			s.Errorf("Page: %v, want ErrUnsupported, since %s", err, s.caps.NoWalk)
		}
		return
	}
	if !ok {
		s.Fatal("the store is no Walker, and Caps.NoWalk names no reason")
	}
	want := map[cart.Key]bool{}
	for _, identifier := range []string{"u1", "a.b", "{x}", "%", "🛒", "z"} {
		for _, instance := range []string{"default", "b.c", "items"} {
			k := cart.Key{Identifier: identifier, Instance: instance}
			want[k] = true
			s.put(k, items(`{}`))
		}
	}
	foreign := map[cart.Key]bool{}
	if s.harness.Other != nil {
		k := cart.Key{Identifier: "other", Instance: "prefix"}
		foreign[k] = true
		s.on(s.harness.Other(s.T)).put(k, items(`{}`))
	}
	var seen []cart.Key
	for after, page := "", 0; ; page++ {
		keys, next, err := w.Page(s.ctx, after, 4)
		if err != nil {
			s.Fatalf("Page: %v", err)
		}
		seen = append(seen, keys...)
		if page < 5 { // others come before, between and after these
			for _, identifier := range []string{"A", "m", "zz"} {
				s.put(cart.Key{Identifier: identifier, Instance: storage.NewID()}, items(`{}`))
			}
		}
		if after = next; next == "" {
			break
		}
	}
	for k := range want {
		if !slices.Contains(seen, k) {
			s.Errorf("the walk did not meet %q", k)
		}
	}
	for _, k := range seen {
		if foreign[k] {
			s.Errorf("the walk met %q of another prefix", k)
		}
	}
}

func walkPage(ctx context.Context, w storage.Walker) (keys []cart.Key, next string, err error) {
	if w == nil {
		return nil, "", storage.ErrUnsupported
	}
	return w.Page(ctx, "", 1)
}
