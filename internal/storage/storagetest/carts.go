package storagetest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

func testMissingCart(s *subject) {
	s.missing("Load", s.load(key))
	s.instances(nil, key.Identifier)
	out := s.commit(storage.Committed, check(key, &cart.Cart{}, cart.PartAll))
	if out.ID != "" || out.Base != 0 || out.Cart != nil || !out.ExpiresAt.IsZero() {
		s.Errorf("outcome of a check of a missing cart: %+v", out)
	}
	s.missing("Load after a check", s.load(key))
	out = s.commit(storage.Conflict, change(key, &cart.Cart{ID: storage.NewID(), Version: 1}, items(`{"a":1}`)))
	s.missing("Cart of the conflict", out.Cart)
	s.missing("Load after a conflict", s.load(key))
	forget := check(key, &cart.Cart{}, cart.PartAll)
	forget.Change.Forget = true
	s.commit(storage.Committed, forget)
	s.missing("Load after Forget", s.load(key))
	s.instances(nil, key.Identifier)
}

func testVersions(s *subject) {
	create := change(key, &cart.Cart{}, items(`{"a":1}`))
	out := s.commit(storage.Committed, create)
	if out.ID != create.Change.NewID || out.Base != 0 || out.Cart != nil {
		s.Errorf("outcome of the creation: %+v", out)
	}
	if out.CreatedAt.IsZero() || !out.CreatedAt.Equal(out.UpdatedAt) || !out.ExpiresAt.Equal(out.UpdatedAt.Add(longer)) {
		s.Errorf("times of the creation: %v, %v, %v", out.CreatedAt, out.UpdatedAt, out.ExpiresAt)
	}
	first := s.load(key)
	s.is("created", first, content{ID: create.Change.NewID, Version: 1, Items: `{"a":1}`, ItemsVersion: 1})
	if !first.CreatedAt.Equal(out.CreatedAt) || !first.UpdatedAt.Equal(out.UpdatedAt) || !first.ExpiresAt.Equal(out.ExpiresAt) {
		s.Errorf("the outcome's times are not the cart's: %+v, %+v", out, first)
	}

	out = s.commit(storage.Committed, change(key, first, conditions(`{"vat":{}}`), metadata("notes", `"x"`)))
	if out.ID != first.ID || out.Base != 1 || !out.CreatedAt.Equal(first.CreatedAt) || out.UpdatedAt.Before(first.UpdatedAt) {
		s.Errorf("outcome of the second change: %+v", out)
	}
	second := s.load(key)
	want := content{
		ID: first.ID, Version: 2, Items: `{"a":1}`, ItemsVersion: 1, Conditions: `{"vat":{}}`, ConditionsVersion: 2,
		Metadata: []entry{{"notes", `"x"`, 2}},
	}
	s.is("second change", second, want)

	third := s.put(key, items(`{}`))
	want.Version, want.Items, want.ItemsVersion = 3, `{}`, 3
	s.is("emptied", third, want)
}

func testSteps(s *subject) {
	s.put(key, items(`{"a":1}`))
	c := change(key, s.load(key), items(`{"a":5}`), conditions(`{"c":1}`), metadata("m", `1`), metadata("n", `2`))
	c.Change.Steps = 5
	for i, step := range []uint64{5, 2, 1, 4} {
		c.Change.Writes[i].Step = step
	}
	if out := s.commit(storage.Committed, c); out.Base != 1 {
		s.Errorf("Base = %d, want 1", out.Base)
	}
	s.is("after five steps", s.load(key), content{
		Version: 6, Items: `{"a":5}`, ItemsVersion: 6, Conditions: `{"c":1}`, ConditionsVersion: 3,
		Metadata: []entry{{"m", `1`, 2}, {"n", `2`, 5}},
	})
	// Changes that cancel each other out raise the version and write nothing.
	c = check(key, s.load(key), cart.PartItems)
	c.Change.Steps = 2
	s.commit(storage.Committed, c)
	s.is("after two steps without writes", s.load(key), content{
		Version: 8, Items: `{"a":5}`, ItemsVersion: 6, Conditions: `{"c":1}`, ConditionsVersion: 3,
		Metadata: []entry{{"m", `1`, 2}, {"n", `2`, 5}},
	})
}

func testExpect(s *subject) {
	s.put(key, items(`{"a":1}`))
	s.put(key, metadata("kept", `1`), metadata("gone", `1`))
	s.put(key, removed("gone"))
	was := s.load(key)
	type parts = map[cart.Part]uint64
	kept, gone, never := cart.PartMetadata("kept"), cart.PartMetadata("gone"), cart.PartMetadata("never")

	for what, e := range map[string]storage.Expect{
		"no cart":                  {},
		"another id":               {ID: storage.NewID()},
		"another id, same version": {ID: storage.NewID(), Version: 3},
		"an older version":         {ID: was.ID, Version: 2},
		"a later version":          {ID: was.ID, Version: 4},
		"items older":              {ID: was.ID, Parts: parts{cart.PartItems: 0}},
		"items later":              {ID: was.ID, Parts: parts{cart.PartItems: 3}},
		"conditions set":           {ID: was.ID, Parts: parts{cart.PartConditions: 1}},
		"metadata older":           {ID: was.ID, Parts: parts{kept: 1}},
		"metadata never set":       {ID: was.ID, Parts: parts{kept: 0}},
		"removed metadata":         {ID: was.ID, Parts: parts{gone: 2}},
		"removed metadata not set": {ID: was.ID, Parts: parts{gone: 0}},
		"unknown metadata":         {ID: was.ID, Parts: parts{never: 1}},
		"one part of several":      {ID: was.ID, Version: 3, Parts: parts{cart.PartItems: 1, kept: 2, gone: 3, cart.PartConditions: 2}},
		"version but not the part": {ID: was.ID, Version: 3, Parts: parts{cart.PartItems: 2}},
		"part but not the version": {ID: was.ID, Version: 2, Parts: parts{cart.PartItems: 1}},
	} {
		c := change(key, was, items(`{"b":2}`), conditions(`{"b":2}`), metadata("kept", `2`))
		c.Expect = e
		out := s.commit(storage.Conflict, c)
		s.same("the conflict's cart: "+what, out.Cart, was)
		s.same("after the conflict: "+what, s.load(key), was)
		c = check(key, was)
		c.Expect, c.Change.Touch = e, true
		s.same("the check's cart: "+what, s.commit(storage.Conflict, c).Cart, was)
		c.Change.Touch, c.Change.Forget = false, true
		s.commit(storage.Conflict, c)
		s.same("after the check: "+what, s.load(key), was)
	}
	for what, e := range map[string]storage.Expect{
		"any version":    {ID: was.ID},
		"the version":    {ID: was.ID, Version: 3},
		"parts":          {ID: was.ID, Parts: parts{cart.PartItems: 1, cart.PartConditions: 0, kept: 2, gone: 3, never: 0}},
		"parts, version": {ID: was.ID, Version: 3, Parts: parts{cart.PartItems: 1}},
		"the whole cart": {ID: was.ID, Parts: parts{cart.PartAll: 3}},
	} {
		c := check(key, was)
		c.Expect = e
		if out := s.try(c)[0]; out.Status != storage.Committed {
			s.Errorf("expecting %s: %s", what, name(out.Status))
		}
	}
}

func testExpectAfterForget(s *subject) {
	old := s.put(key, items(`{"a":1}`), metadata("m", `1`))
	forget := check(key, old, cart.PartAll)
	forget.Change.Forget = true
	s.commit(storage.Committed, forget)
	stale := change(key, old, items(`{"old":1}`))
	s.missing("conflict after Forget", s.commit(storage.Conflict, stale).Cart)
	// The successor has the same versions, so that only the id tells them apart.
	now := s.put(key, items(`{"b":1}`), metadata("m", `2`))
	if now.ID == old.ID || now.Version != old.Version {
		s.Fatalf("successor is %s at %d, was %s at %d", now.ID, now.Version, old.ID, old.Version)
	}
	s.same("conflict with the successor", s.commit(storage.Conflict, stale).Cart, now)
	stale.Expect.Version, stale.Expect.Parts = 0, map[cart.Part]uint64{cart.PartItems: 1}
	s.same("conflict on parts", s.commit(storage.Conflict, stale).Cart, now)
	s.same("afterwards", s.load(key), now)
}

// Text that a number type, a sorted map, or a careless JSON encoder would alter.
var texts = []string{
	`{}`,
	`{"b":1.90,"a":1e400,"c":-0.0,"big":123456789012345678901234567890,"z":[1.0,2.50,[]],"m":{"y":1,"x":2}}`,
	`{"é":"\u00e9","<&>":"<script>\u2028` + "\u2028" + `","🛒":"🛒\ud83d\uded2","nul":"\u0000","quote":"\"'\\ $1 ? :a @b %s"}`,
	`{"":"","a.b":{"":null},"long":"` + strings.Repeat("x", 10_000) + `"}`,
}

func testText(s *subject) {
	for i, text := range texts {
		key := cart.Key{Identifier: "u1", Instance: fmt.Sprint(i)}
		got := s.put(key, items(text), conditions(text), metadata("m", text), metadata("🛒.\"<&>\"", text))
		s.is("object", got, content{
			Version: 1, Items: text, ItemsVersion: 1, Conditions: text, ConditionsVersion: 1,
			Metadata: []entry{{"m", text, 1}, {"🛒.\"<&>\"", text, 1}},
		})
	}
	for _, text := range []string{`19.90`, `1e-7`, `"x"`, `""`, `true`, `false`, `[]`, `[null,1.0]`, `"\u0000"`, `"null"`} {
		got := s.put(key, metadata("m", text))
		if v, _ := got.MetadataValue("m"); string(v) != text {
			s.Errorf("metadata value %s came back as %s", text, v)
		}
	}
}

func testInternalParts(s *subject) {
	s.put(key, items(`{"a":1}`))
	blob := "not JSON: \x00\xff\xfe'\"\n" + strings.Repeat("\x00", 100)
	received := storage.Write{Part: cart.PartReceived, Value: []byte(blob)}
	got := s.put(key, items(`{"a":2}`), received)
	want := content{Version: 2, Items: `{"a":2}`, ItemsVersion: 2, Received: blob}
	s.is("received", got, want)

	// Internal parts change without a step of their own.
	c := check(key, got, cart.PartAll)
	c.Change.Writes = []storage.Write{{Part: cart.PartTransfer, Value: []byte(blob + "!")}}
	s.commit(storage.Committed, c)
	want.Transfer = blob + "!"
	s.is("transfer", s.load(key), want)

	c.Change.Writes = []storage.Write{{Part: cart.PartTransfer}, {Part: cart.PartReceived}}
	s.commit(storage.Committed, c)
	want.Transfer, want.Received = "", ""
	s.is("cleared", s.load(key), want)
	if c := s.load(key); c.Transfer != nil || c.Received != nil {
		s.Errorf("cleared parts are %q and %q, want nil", c.Transfer, c.Received)
	}
}

// testLedger: the ledger has a version of its own, which is stored as it is given and can be expected, with changes of
// the cart and without.
func testLedger(s *subject) {
	was := s.put(key, items(`{"a":1}`))
	blob := "not JSON: \x00\xff\xfe'\"\n" + strings.Repeat("\x00", 20_000)
	first := check(key, was, cart.PartItems)
	first.Expect.Parts = map[cart.Part]uint64{cart.PartLedger: 0}
	first.Change.Writes = []storage.Write{{Part: cart.PartLedger, Value: []byte(blob), Step: 1}}
	s.commit(storage.Committed, first)
	want := content{Version: 1, Items: `{"a":1}`, ItemsVersion: 1, Ledger: blob, LedgerVersion: 1}
	s.is("set without a change", s.load(key), want)
	s.is("conflict's cart", s.commit(storage.Conflict, first).Cart, want)

	c := change(key, s.load(key), items(`{"a":2}`), storage.Write{Part: cart.PartLedger, Value: []byte("b"), Step: 2})
	c.Expect.Parts = map[cart.Part]uint64{cart.PartLedger: 1}
	s.commit(storage.Committed, c)
	want = content{Version: 2, Items: `{"a":2}`, ItemsVersion: 2, Ledger: "b", LedgerVersion: 2}
	s.is("set with a change", s.load(key), want)
	s.is("after a change of another part", s.put(key, conditions(`{"c":1}`)), content{
		Version: 3, Items: `{"a":2}`, ItemsVersion: 2, Conditions: `{"c":1}`, ConditionsVersion: 3, Ledger: "b", LedgerVersion: 2,
	})

	// A cart that moves takes its ledger along, and the cart that it replaces leaves none.
	to := cart.Key{Identifier: "u2", Instance: "default"}
	target := s.put(to, items(`{"t":1}`), storage.Write{Part: cart.PartLedger, Value: []byte("t"), Step: 9})
	moved := s.load(key).Moved()
	s.commit(storage.Committed, placed(to, target, moved))
	if got := s.load(to); string(got.Ledger.Value) != "b" || got.Ledger.Version != 2 {
		s.Errorf("placed: %+v", contentOf(got))
	}
	moved = &cart.Cart{ID: storage.NewID(), Version: 1, CreatedAt: moved.CreatedAt}
	s.commit(storage.Committed, placed(to, s.load(to), moved))
	s.is("placed without", s.load(to), content{ID: moved.ID, Version: 1})

	c = check(key, s.load(key), cart.PartItems)
	c.Change.Writes = []storage.Write{{Part: cart.PartLedger}}
	s.commit(storage.Committed, c)
	if got := s.load(key); got.Ledger.Value != nil || got.Ledger.Version != 0 {
		s.Errorf("cleared: %+v", contentOf(got))
	}

	// A successor has no ledger.
	s.put(key, storage.Write{Part: cart.PartLedger, Value: []byte("old"), Step: 4}, items(`{"b":1}`))
	forget := check(key, s.load(key), cart.PartAll)
	forget.Change.Forget = true
	s.commit(storage.Committed, forget)
	s.is("successor", s.put(key, items(`{"n":1}`)), content{Version: 1, Items: `{"n":1}`, ItemsVersion: 1})
}

func testPendingTransfer(s *subject) {
	base := s.put(key, items(`{"a":1}`))
	open := check(key, base, cart.PartAll)
	open.Change.Writes = []storage.Write{{Part: cart.PartTransfer, Value: []byte("to u2")}}
	s.commit(storage.Committed, open)
	was := s.load(key)

	s.same("conflict of a change", s.commit(storage.Conflict, change(key, was, items(`{"b":1}`))).Cart, was)
	s.same("conflict of a check", s.commit(storage.Conflict, check(key, was, cart.PartItems)).Cart, was)
	s.same("afterwards", s.load(key), was)

	closing := change(key, was, items(`{"b":1}`), storage.Write{Part: cart.PartTransfer})
	s.commit(storage.Committed, closing)
	now := s.load(key)
	s.is("closed", now, content{Version: 2, Items: `{"b":1}`, ItemsVersion: 2})

	// Forget must say that it knows of the transfer.
	open.Expect.Version = now.Version
	s.commit(storage.Committed, open)
	forget := check(key, now, cart.PartAll)
	forget.Change.Forget = true
	s.is("conflict of Forget", s.commit(storage.Conflict, forget).Cart, content{
		ID: now.ID, Version: 2, Items: `{"b":1}`, ItemsVersion: 2, Transfer: "to u2",
	})
	forget.Change.Writes = []storage.Write{{Part: cart.PartTransfer, Value: []byte("not stored")}}
	s.commit(storage.Committed, forget)
	s.missing("forgotten", s.load(key))
	s.put(key, items(`{"c":1}`))
}

func testForget(s *subject) {
	was := s.put(key, items(`{"a":1}`), conditions(`{"c":1}`), metadata("m", `1`), storage.Write{Part: cart.PartReceived, Value: []byte("x")})
	other := s.put(cart.Key{Identifier: key.Identifier, Instance: "other"}, items(`{"o":1}`))
	s.put(key, removed("m"))
	forget := check(key, s.load(key), cart.PartAll)
	forget.Change.Forget = true
	if out := s.commit(storage.Committed, forget); out.ID != was.ID || out.Base != 2 {
		s.Errorf("outcome of Forget: %+v", out)
	}
	s.missing("forgotten", s.load(key))
	s.instances([]string{"other"}, key.Identifier)
	s.same("another instance", s.load(cart.Key{Identifier: key.Identifier, Instance: "other"}), other)
	// Nothing of the old cart shows in the new one: versions and metadata start anew.
	s.is("successor", s.put(key, metadata("n", `1`)), content{Version: 1, Metadata: []entry{{"n", `1`, 1}}})
	if now := s.load(key); now.PartVersion(cart.PartMetadata("m")) != 0 {
		s.Errorf("the successor knows the version of its predecessor's metadata")
	}
}

func testCheck(s *subject) {
	was := s.put(key, items(`{"a":1}`))
	out := s.commit(storage.Committed, check(key, was, cart.PartAll))
	if out.ID != was.ID || out.Base != was.Version || !out.ExpiresAt.Equal(was.ExpiresAt) || !out.CreatedAt.Equal(was.CreatedAt) {
		s.Errorf("outcome of a check: %+v", out)
	}
	s.same("after a check", s.load(key), was)

	touch := check(key, was, cart.PartAll)
	touch.Change.Touch, touch.Change.TTL = true, 2*longer
	out = s.commit(storage.Committed, touch)
	now := s.load(key)
	if !now.ExpiresAt.After(was.ExpiresAt) || !now.ExpiresAt.Equal(out.ExpiresAt) {
		s.Errorf("Touch left the expiry at %v, told %v", now.ExpiresAt, out.ExpiresAt)
	}
	want := *was
	want.ExpiresAt = now.ExpiresAt
	s.same("after Touch", now, &want)

	touch = check(cart.Key{Identifier: "nobody", Instance: "default"}, &cart.Cart{})
	touch.Change.Touch = true
	s.commit(storage.Committed, touch)
	s.missing("after Touch of a missing cart", s.load(touch.Key))
	s.instances(nil, "nobody")
}

// document is a compact object of exactly size bytes.
func document(size int, fill string) string {
	const frame = len(`{"x":""}`)
	return `{"x":"` + strings.Repeat(fill, size-frame) + `"}`
}

func testLargeDocuments(s *subject) {
	size := 1 << 20
	if s.caps.MaxCartBytes > 0 {
		size = s.caps.MaxCartBytes / 8
	}
	got := s.put(key, items(document(size, "i")), conditions(document(size, "c")), metadata("m", document(size, "m")))
	want := content{
		Version: 1, Items: document(size, "i"), ItemsVersion: 1, Conditions: document(size, "c"), ConditionsVersion: 1,
		Metadata: []entry{{"m", document(size, "m"), 1}},
	}
	s.is("large", got, want)
	stale := change(key, &cart.Cart{}, items(`{}`))
	s.is("conflict with a large cart", s.commit(storage.Conflict, stale).Cart, want)
	s.is("small again", s.put(key, items(`{}`), conditions(`{}`), removed("m")), content{
		Version: 2, ItemsVersion: 2, ConditionsVersion: 2,
	})
}

func testTooLarge(s *subject) {
	if s.caps.MaxCartBytes == 0 {
		// What testLargeDocuments stored in three parts goes into one as well.
		text := document(3<<20, "x")
		s.is("large", s.put(key, items(text)), content{Version: 1, Items: text, ItemsVersion: 1})
		return
	}
	was := s.put(key, items(`{"a":1}`))
	_, err := s.store.Commit(s.ctx, change(key, was, items(document(s.caps.MaxCartBytes+1, "x")), metadata("m", `1`)))
	if !errors.Is(err, storage.ErrTooLarge) {
		s.Errorf("Commit of a large cart: %v, want ErrTooLarge", err)
	}
	s.same("afterwards", s.load(key), was)
}
