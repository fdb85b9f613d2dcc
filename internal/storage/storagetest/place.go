package storagetest

import (
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// placed is the commit that puts c in the place of base.
func placed(key cart.Key, base, c *cart.Cart) storage.Commit {
	commit := check(key, base, cart.PartAll)
	commit.Change.Place = c
	return commit
}

// testPlace: a cart that is put under another name keeps all that it had, and nothing stays of the cart that was there.
func testPlace(s *subject) {
	from := cart.Key{Identifier: key.Identifier, Instance: "from"}
	s.put(from, items(`{"a":{"quantity":1.50}}`), metadata("z", `1`), metadata("gone", `1`))
	s.put(from, conditions(`{"c":1}`), metadata("a", `"é"`), removed("gone"))
	source := s.put(from, metadata("m.{}%", `[1]`))
	s.put(key, conditions(`{"old":1}`), metadata("old", `1`), storage.Write{Part: cart.PartReceived, Value: []byte("old")})
	target := s.put(key, items(`{"old":1}`), removed("old"))

	moved := source.Moved()
	moved.Received = []byte("\x00\xffr")
	stale := placed(key, target, moved)
	stale.Expect.Version++
	s.same("the conflict's cart", s.commit(storage.Conflict, stale).Cart, target)
	s.same("after a conflict", s.load(key), target)

	begun := time.Now().Truncate(time.Millisecond)
	out := s.commit(storage.Committed, placed(key, target, moved))
	got := s.load(key)
	if out.ID != source.ID || out.Base != target.Version || !out.CreatedAt.Equal(source.CreatedAt) || !out.UpdatedAt.Equal(got.UpdatedAt) || !out.ExpiresAt.Equal(got.ExpiresAt) {
		s.Errorf("outcome %+v of %+v", out, contentOf(got))
	}
	if got.UpdatedAt.Before(begun.Add(-time.Millisecond)) || got.ExpiresAt.Before(got.UpdatedAt.Add(longer)) {
		s.Errorf("updated at %v, expires at %v", got.UpdatedAt, got.ExpiresAt)
	}
	want := *moved
	want.UpdatedAt, want.ExpiresAt = got.UpdatedAt, got.ExpiresAt
	s.same("placed", got, &want)
	for _, p := range []cart.Part{cart.PartItems, cart.PartConditions, cart.PartMetadata("gone"), cart.PartMetadata("z"), cart.PartMetadata("old"), cart.PartMetadataAll} {
		if is, was := got.PartVersion(p), source.PartVersion(p); is != was || got.PartETag(p) != source.PartETag(p) {
			s.Errorf("%s has version %d, had %d", p, is, was)
		}
	}
	s.commit(storage.Conflict, change(key, target, items(`{"b":1}`)))

	// It goes on like any cart: a new key comes last, and the version of a removed key rises.
	after := s.put(key, metadata("gone", `2`), metadata("b", `2`))
	if n := len(after.Metadata); n != 5 || after.Metadata[0].Key != "z" || after.Metadata[4].Key == "z" || after.PartVersion(cart.PartMetadata("gone")) != moved.Version+1 {
		s.Errorf("changed since: %+v", contentOf(after))
	}

	// In place of nothing, without documents, for a short life and for ever.
	empty := cart.Key{Identifier: "nobody", Instance: "default"}
	bare := &cart.Cart{ID: storage.NewID(), Version: 9, CreatedAt: begun}
	c := placed(empty, &cart.Cart{}, bare)
	c.Change.TTL = 0
	if out := s.commit(storage.Committed, c); out.Base != 0 || out.ID != bare.ID || !out.ExpiresAt.IsZero() {
		s.Errorf("in place of nothing: %+v", out)
	}
	s.is("in place of nothing", s.load(empty), content{ID: bare.ID, Version: 9})
	s.instances([]string{"default"}, "nobody")
	c = placed(empty, s.load(empty), bare)
	c.Change.TTL = s.short()
	s.commit(storage.Committed, c)
	s.eventually("expiry", func() bool { return !s.load(empty).Exists() })
	s.instances(nil, "nobody")
}

// testPlaceUnderLocks: placing a cart waits for the locks of its new name, like every other change.
func testPlaceUnderLocks(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	moved := &cart.Cart{ID: storage.NewID(), Version: 3, CreatedAt: time.Now().Truncate(time.Millisecond)}
	if err := moved.StorePart(cart.PartItems, []byte(`{"a":1}`), 2); err != nil {
		s.Fatal(err)
	}
	token := storage.NewToken()
	g := s.lease(l, key, token, long, cart.PartItems)
	s.commit(storage.Locked, placed(key, &cart.Cart{}, moved))
	s.missing("held", s.load(key))
	c := under(token, placed(key, &cart.Cart{}, moved))
	c.Change.TTL = s.short()
	if out := s.commit(storage.Committed, c); out.ExpiresAt.Before(g.Expires) {
		s.Errorf("the cart expires at %v, the lease on it at %v", out.ExpiresAt, g.Expires)
	}
	s.wantHeld("locks are of names", l, key, token, g, cart.PartItems)
	s.commit(storage.Committed, under(token, change(key, s.load(key), items(`{"a":2}`))))
	if err := l.Release(s.ctx, key, token); err != nil {
		s.Fatal(err)
	}
	transfer := change(key, s.load(key), storage.Write{Part: cart.PartTransfer, Value: []byte("pending")})
	transfer.Change.Steps = 0
	s.commit(storage.Committed, transfer)
	s.commit(storage.Conflict, placed(key, s.load(key), moved))
}
