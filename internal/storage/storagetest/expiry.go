package storagetest

import (
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// short is a life that the backend can keep and a test can wait for.
func (s *subject) short() time.Duration {
	return time.Duration(max(1, s.caps.Slow))*brief + 2*s.caps.Tick
}

// passed waits until t is over by this process's clock, and a bit more.
func (s *subject) passed(t time.Time) {
	s.Helper()
	t = t.Add(20 * time.Millisecond)
	s.eventually("the clock", func() bool { return time.Now().After(t) })
}

// inTime repeats f until it was done before the end that it returns. A test that was held up beyond a short life proves
// nothing.
func (s *subject) inTime(f func() (end time.Time)) {
	s.Helper()
	s.eventually("a round that is not held up", func() bool {
		end := f() // first: the clock counts when it is done
		return time.Now().Before(end)
	})
}

func testExpiryIsRenewed(s *subject) {
	for what, renew := range map[string]func() storage.Outcome{
		"a write": func() storage.Outcome {
			return s.try(change(key, s.load(key), conditions(`{"b":1}`)))[0]
		},
		"a step without writes": func() storage.Outcome {
			c := check(key, s.load(key))
			c.Change.Steps = 1
			return s.try(c)[0]
		},
		"Touch": func() storage.Outcome {
			c := check(key, s.load(key))
			c.Change.Touch = true
			return s.try(c)[0]
		},
	} {
		var first, next storage.Outcome
		var was *cart.Cart
		s.inTime(func() time.Time {
			was = s.put(key, items(`{"a":1}`), metadata("m", `1`))
			c := change(key, was, metadata("m", `2`))
			c.Change.TTL = s.short()
			first = s.commit(storage.Committed, c)
			next = renew()
			return first.ExpiresAt
		})
		if !next.ExpiresAt.After(first.ExpiresAt) {
			s.Errorf("%s left the expiry at %v", what, next.ExpiresAt)
		}
		s.passed(first.ExpiresAt)
		// All parts live on, also those that were not written.
		now := s.load(key)
		if now.ID != was.ID || string(now.Items.Object.Bytes()) != `{"a":1}` || len(now.Metadata) != 1 {
			s.Errorf("after %s the cart did not outlive its first expiry: %+v", what, contentOf(now))
		}
	}
}

func testExpiredIsGone(s *subject) {
	c := change(key, s.load(key), items(`{"a":1}`), conditions(`{"c":1}`), metadata("m", `1`), storage.Write{Part: cart.PartReceived, Value: []byte("x")})
	c.Change.TTL = s.short()
	out := s.commit(storage.Committed, c)
	was := s.load(key)
	if s.caps.NoInstances == "" && time.Now().Before(out.ExpiresAt) {
		s.instances([]string{key.Instance}, key.Identifier)
	}
	// Load and check do not renew: the cart goes although it is read all the time. It goes in time, whenever the
	// backend deletes it.
	const grace = 100 * time.Millisecond
	late := out.ExpiresAt.Add(s.caps.Tick + grace)
	s.eventually("expiry", func() bool {
		begun := time.Now()
		now := s.load(key)
		if !now.Exists() {
			return true
		}
		if begun.After(late) {
			s.Fatalf("expired at %v, and was read at %v", out.ExpiresAt, begun)
		}
		s.same("while it lives", now, was)
		s.try(check(key, was))
		return s.Failed()
	})
	if early := time.Until(out.ExpiresAt); early > time.Millisecond {
		s.Errorf("expired %v early", early)
	}
	s.missing("Load", s.load(key))
	s.instances(nil, key.Identifier)
	s.missing("conflict", s.commit(storage.Conflict, change(key, was, items(`{"b":1}`))).Cart)
	touch := check(key, was)
	touch.Change.Touch = true
	s.missing("Touch", s.commit(storage.Conflict, touch).Cart)

	// A new cart has nothing of the old one.
	create := change(key, &cart.Cart{}, conditions(`{"d":1}`))
	s.commit(storage.Committed, create)
	s.is("created again", s.load(key), content{ID: create.Change.NewID, Version: 1, Conditions: `{"d":1}`, ConditionsVersion: 1})
	s.instances([]string{key.Instance}, key.Identifier)
	if s.load(key).PartVersion(cart.PartMetadata("m")) != 0 {
		s.Errorf("the new cart knows the old one's metadata")
	}
}

func testNoExpiry(s *subject) {
	var first storage.Outcome
	var was *cart.Cart
	s.inTime(func() time.Time {
		was = s.put(key, items(`{"a":1}`))
		c := change(key, was, items(`{"a":2}`))
		c.Change.TTL = s.short()
		first = s.commit(storage.Committed, c)
		c = change(key, s.load(key), items(`{"a":3}`))
		c.Change.TTL = 0
		if out := s.try(c)[0]; !out.ExpiresAt.IsZero() {
			s.Fatalf("TTL 0 expires at %v", out.ExpiresAt)
		}
		return first.ExpiresAt
	})
	s.passed(first.ExpiresAt)
	now := s.load(key)
	s.is("after the first expiry", now, content{
		ID: was.ID, Version: was.Version + 2, Items: `{"a":3}`, ItemsVersion: was.Version + 2,
	})
	if !now.ExpiresAt.IsZero() {
		s.Errorf("ExpiresAt = %v, want none", now.ExpiresAt)
	}
	s.instances([]string{key.Instance}, key.Identifier)
}
