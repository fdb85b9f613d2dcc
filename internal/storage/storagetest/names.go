package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Names that some backend could take for other names, for patterns, for paths, or for the end of its input.
var names = []string{
	"a", "A", "a ", " a", "aa", "a.b", "b.c", "c", "a/b", "b/c", "/", "//", "..", ".", "../a", `a\b`, "a:b", "b:c",
	"é", "e\u0301", "É", "ß", "ss", "ı", "i", "I", "🛒", "🛒🛒", "日本語", "%", "%2E", "%2e", "a%2Eb", "%25", "_", "*", "?", "[a]", "[^b]",
	"{a}", "{}", "}{", "a{b}c", "\n", "a\nb", "\r\n", "\t", "\x01", "\x7f", `"`, "'", "''", "`", "$1", "a\u200bb", "\ufeffa", "null", "0", "00", "-1", "1.0", "~", "+", "=", "&", "#", "a#b",
	strings.Repeat("x", cart.MaxNameBytes), strings.Repeat("x", cart.MaxNameBytes-1) + "y", strings.Repeat("é", cart.MaxNameBytes/2),
	strings.Repeat("%", cart.MaxNameBytes), strings.Repeat("/", cart.MaxNameBytes), strings.Repeat("🛒", cart.MaxNameBytes/4),
}

func testNames(s *subject) {
	var keys []cart.Key
	for _, n := range names {
		keys = append(keys, cart.Key{Identifier: n, Instance: "c"}, cart.Key{Identifier: "a", Instance: n})
	}
	keys = append(keys,
		cart.Key{Identifier: "a.b", Instance: "c"}, cart.Key{Identifier: "a", Instance: "b.c"},
		cart.Key{Identifier: "a/b", Instance: "c"}, cart.Key{Identifier: "a", Instance: "b/c"},
		cart.Key{Identifier: "a:b", Instance: "c"}, cart.Key{Identifier: "a", Instance: "b:c"},
		cart.Key{Identifier: names[len(names)-1], Instance: names[len(names)-2]},
		cart.Key{Identifier: names[len(names)-2], Instance: names[len(names)-1]},
		cart.Key{Identifier: "u1", Instance: "default.items"}, cart.Key{Identifier: "u1.default", Instance: "items"},
	)
	slices.SortFunc(keys, func(a, b cart.Key) int {
		return strings.Compare(a.Identifier+"\x00"+a.Instance, b.Identifier+"\x00"+b.Instance)
	})
	keys = slices.Compact(keys)

	instances := map[string][]string{}
	for i, key := range keys {
		if c := s.load(key); c.Exists() {
			s.Fatalf("%q reads another key's cart %s", key, c.Items.Object.Bytes())
		}
		s.commit(storage.Committed, change(key, &cart.Cart{}, items(fmt.Sprintf(`{"n":%d}`, i))))
		instances[key.Identifier] = append(instances[key.Identifier], key.Instance)
	}
	for i, key := range keys {
		s.is(fmt.Sprintf("%q", key), s.load(key), content{Version: 1, Items: fmt.Sprintf(`{"n":%d}`, i), ItemsVersion: 1})
	}
	for identifier, want := range instances {
		slices.Sort(want)
		s.instances(want, identifier)
	}

	// The same for metadata keys within one cart.
	var writes []storage.Write
	want := content{Version: 1}
	for i, n := range names {
		writes = append(writes, metadata(n, fmt.Sprint(i)))
		want.Metadata = append(want.Metadata, entry{n, fmt.Sprint(i), 1})
	}
	s.is("metadata", s.put(cart.Key{Identifier: "metadata", Instance: "names"}, writes...), want)
	internal := s.put(cart.Key{Identifier: "metadata", Instance: "parts"},
		metadata("items", `1`), metadata("conditions", `2`), metadata("transfer", `3`), metadata("received", `4`), metadata("*", `5`), metadata("id", `6`), metadata("version", `7`))
	s.is("metadata named like parts", internal, content{Version: 1, Metadata: []entry{
		{"items", `1`, 1}, {"conditions", `2`, 1}, {"transfer", `3`, 1}, {"received", `4`, 1}, {"*", `5`, 1}, {"id", `6`, 1}, {"version", `7`, 1},
	}})
}

func testInstances(s *subject) {
	s.instances(nil, "u1")
	for _, instance := range []string{"wishlist", "Default", "default", "a", "é", "z"} {
		s.put(cart.Key{Identifier: "u1", Instance: instance}, items(`{"a":1}`))
	}
	for _, identifier := range []string{"u", "u11", "U1", "u1.a", "u1*"} {
		s.put(cart.Key{Identifier: identifier, Instance: "foreign"}, items(`{"a":1}`))
	}
	s.instances([]string{"Default", "a", "default", "wishlist", "z", "é"}, "u1")
	s.instances(nil, "u?")
	s.instances(nil, "%")
	s.instances([]string{"foreign"}, "u1*")
	s.second().instances([]string{"Default", "a", "default", "wishlist", "z", "é"}, "u1")

	forget := check(cart.Key{Identifier: "u1", Instance: "default"}, s.load(cart.Key{Identifier: "u1", Instance: "default"}), cart.PartAll)
	forget.Change.Forget = true
	s.commit(storage.Committed, forget)
	s.put(cart.Key{Identifier: "u1", Instance: "z"}, items(`{}`)) // empty but there
	s.instances([]string{"Default", "a", "wishlist", "z", "é"}, "u1")
}

func testFlush(s *subject) {
	if s.caps.NoFlush != "" {
		s.put(key, items(`{"a":1}`))
		if err := s.store.Flush(s.ctx); !errors.Is(err, storage.ErrUnsupported) {
			s.Errorf("Flush: %v, want ErrUnsupported, since %s", err, s.caps.NoFlush)
		}
		return
	}
	if err := s.store.Flush(s.ctx); err != nil {
		s.Fatalf("Flush of nothing: %v", err)
	}
	other := s
	var theirs *cart.Cart
	if s.harness.Other != nil {
		other = s.on(s.harness.Other(s.T))
		other.missing("the same key under another prefix", other.load(key))
		theirs = other.put(key, items(`{"theirs":1}`))
		s.missing("the same key under this prefix", s.load(key))
	}
	token := storage.NewToken()
	for i := range 300 {
		s.put(cart.Key{Identifier: fmt.Sprint("u", i%100), Instance: fmt.Sprint(i)}, items(`{"a":1}`))
	}
	s.put(key, items(`{"ours":1}`))
	if l, ok := s.locker(); ok {
		s.acquire(l, key, token, cart.PartAll)
	}
	if err := s.second().store.Flush(s.ctx); err != nil {
		s.Fatalf("Flush: %v", err)
	}
	for i := range 300 {
		if key := (cart.Key{Identifier: fmt.Sprint("u", i%100), Instance: fmt.Sprint(i)}); s.load(key).Exists() {
			s.Fatalf("%q outlived Flush", key)
		}
	}
	for i := range 100 {
		s.instances(nil, fmt.Sprint("u", i))
	}
	s.missing("flushed", s.load(key))
	if theirs != nil {
		other.same("another prefix after Flush", other.load(key), theirs)
		other.instances([]string{key.Instance}, key.Identifier)
	}
	s.is("created after Flush, its lock gone", s.put(key, items(`{"new":1}`)), content{Version: 1, Items: `{"new":1}`, ItemsVersion: 1})
}
