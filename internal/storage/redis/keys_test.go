package redis

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sidecart/sidecart/internal/cart"
)

func TestKeys(t *testing.T) {
	plain := space{prefix: "cart"}
	for _, test := range []struct {
		space space
		key   cart.Key
		part  cart.Part
		want  []string // cart, index, queue, lock of the part, and then fence
	}{
		{plain, cart.Key{Identifier: "u1", Instance: "default"}, cart.PartItems,
			[]string{"cart.u1.default", "index.cart.u1", "queue.cart.u1.default", "lock.cart.u1.default.items", "fence.cart.u1.default"}},
		{plain, cart.Key{Identifier: "u1", Instance: "default"}, cart.PartAll,
			[]string{"cart.u1.default", "index.cart.u1", "queue.cart.u1.default", "lock.cart.u1.default", "fence.cart.u1.default"}},
		{plain, cart.Key{Identifier: "a.b", Instance: "50% {x}"}, cart.PartMetadata("gift.wrap"),
			[]string{"cart.a%2Eb.50%25 %7Bx%7D", "index.cart.a%2Eb", "queue.cart.a%2Eb.50%25 %7Bx%7D",
				"lock.cart.a%2Eb.50%25 %7Bx%7D.metadata.gift%2Ewrap", "fence.cart.a%2Eb.50%25 %7Bx%7D"}},
		{plain, cart.Key{Identifier: "metadata", Instance: "items"}, cart.PartMetadata("conditions"),
			[]string{"cart.metadata.items", "index.cart.metadata", "queue.cart.metadata.items",
				"lock.cart.%6Detadata.%69tems.metadata.%63onditions", "fence.cart.metadata.items"}},
		{space{prefix: "shop:1.cart", cluster: true}, cart.Key{Identifier: "ü-1", Instance: "default"}, cart.PartConditions,
			[]string{"shop:1.cart.{ü-1}.default", "index.shop:1.cart.{ü-1}", "queue.shop:1.cart.{ü-1}.default",
				"lock.shop:1.cart.{ü-1}.default.conditions", "fence.shop:1.cart.{ü-1}.default"}},
		{space{prefix: "cart", cluster: true}, cart.Key{Identifier: "metadata", Instance: "}{"}, cart.PartAll,
			[]string{"cart.{metadata}.%7D%7B", "index.cart.{metadata}", "queue.cart.{metadata}.%7D%7B", "lock.cart.{metadata}.%7D%7B", "fence.cart.{metadata}.%7D%7B"}},
		{plain, cart.Key{Identifier: "u1"}, cart.PartItems, // a reserved name
			[]string{"cart.u1.%reserved", "index.cart.u1", "queue.cart.u1.%reserved", "lock.cart.u1.%reserved.items", "fence.cart.u1.%reserved"}},
		{space{prefix: "cart", cluster: true}, cart.Key{Identifier: "u1"}, cart.PartAll,
			[]string{"cart.{u1}.%reserved", "index.cart.{u1}", "queue.cart.{u1}.%reserved", "lock.cart.{u1}.%reserved", "fence.cart.{u1}.%reserved"}},
		{space{namespace: "shop_cache_", prefix: "cart"}, cart.Key{Identifier: "u1", Instance: "default"}, cart.PartItems,
			[]string{"shop_cache_cart.u1.default", "shop_cache_index.cart.u1", "shop_cache_queue.cart.u1.default",
				"shop_cache_lock.cart.u1.default.items", "shop_cache_fence.cart.u1.default"}},
	} {
		n := test.space.names(test.key)
		got := []string{n.cart, n.index, n.queue, n.lockKey(test.part), n.fence}
		for i := range got {
			if got[i] != test.want[i] {
				t.Errorf("%v of %+v: key %q, want %q", test.key, test.space, got[i], test.want[i])
			}
			if !test.space.owns(got[i]) {
				t.Errorf("%+v does not own %q", test.space, got[i])
			}
		}
	}
}

func TestOwnsNothingElse(t *testing.T) {
	s := space{prefix: "a"}
	for _, key := range []string{
		"a", "a.", "a.u", "a..", "a.u.", "a.u.i.x", "b.u.i", "aa.u.i", "a.b.u.i", "lock.a", "lock.a.u", "lock.a.u.i.other",
		"lock.a.u.i.metadata.k.x", "lock.a.b.u.i", "lock.a.b.u.%69tems", "queue.a.u", "queue.a.u.i.x", "index.a.u.x", "index.a", "fence.a.ping", "fence.a.u.i.x", "fence.b.u.i",
		"a.u%2.i", "a.u%41.i", "a.{u}.i", "lock.a.metadata.i", "user:1",
	} {
		if s.owns(key) {
			t.Errorf("prefix a owns %q", key)
		}
	}
	for _, key := range []string{"a.u.i", "lock.a.u.i", "nlock.n:a.u.i", "lock.n:a.u.i", "n:b.u.i"} {
		if (space{namespace: "n:", prefix: "a"}).owns(key) {
			t.Errorf("namespace n: and prefix a own %q", key)
		}
	}
	if (space{prefix: "a", cluster: true}).owns("a.u.i") {
		t.Error("a Cluster owns a key without hash tag")
	}
}

// FuzzKeys: no two names have the same key, whatever their prefixes, and each key is recognised as what it is.
func FuzzKeys(f *testing.F) {
	f.Add("a", "b", "c", "d", "a.b", "c", "d", "e")
	f.Add("a", "b", "items", "k", "a.b", "items", "items", "metadata")
	f.Add("a.b.c", "metadata", "items", "k", "a", "b", "c", "items")
	f.Add("cart", "%2E", ".", "{}", "cart", ".", "%2E", "%7B%7D")
	f.Fuzz(func(t *testing.T, p1, id1, in1, m1, p2, id2, in2, m2 string) {
		for _, cluster := range []bool{false, true} {
			one, ok1 := fuzzKeys(t, space{"", p1, cluster}, id1, in1, m1)
			two, ok2 := fuzzKeys(t, space{"", p2, cluster}, id2, in2, m2)
			if !ok1 || !ok2 {
				return
			}
			for key, what := range one {
				if other, ok := two[key]; ok && other != what {
					t.Fatalf("%q is %q and %q", key, what, other)
				}
			}
		}
	})
}

// fuzzKeys are all keys of a cart, each with its meaning.
func fuzzKeys(t *testing.T, s space, identifier, instance, metadata string) (map[string]string, bool) {
	k := cart.Key{Identifier: identifier, Instance: instance}
	if ValidatePrefix("p", s.prefix) != nil || k.Validate() != nil || cart.ValidateName("m", metadata) != nil {
		return nil, false
	}
	n := s.names(k)
	whose := s.prefix + "\x00" + identifier
	cartOf := whose + "\x00" + instance
	keys := map[string]string{
		n.cart: "cart\x00" + cartOf, n.queue: "queue\x00" + cartOf, n.index: "index\x00" + whose,
		n.fence: "fence\x00" + cartOf,
	}
	for _, p := range []cart.Part{cart.PartAll, cart.PartItems, cart.PartConditions, cart.PartMetadata(metadata)} {
		keys[n.lockKey(p)] = "lock\x00" + cartOf + "\x00" + string(p)
	}
	if len(keys) != 8 {
		t.Fatalf("keys of one cart coincide: %v", keys)
	}
	for key := range keys {
		if !utf8.ValidString(key) || !s.owns(key) {
			t.Fatalf("%+v does not own its key %q", s, key)
		}
	}
	for _, name := range []string{identifier, instance, metadata} {
		for _, write := range []func(string) string{escape, escapeLock} {
			if back, err := unescape(write(name)); err != nil || back != name {
				t.Fatalf("%q is written %q and read %q, %v", name, write(name), back, err)
			}
		}
	}
	return keys, true
}

func TestValidatePrefix(t *testing.T) {
	for _, good := range []string{"a", "cart", "shop:1.cart-2_x", "locks", "cart.lock", strings.Repeat("x", 64)} {
		if err := ValidatePrefix("keyPrefix", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "lock", "lock.x", "queue", "index.a", "fence", "a b", "a*", "{a}", "ü", "a%", strings.Repeat("x", 65)} {
		var invalid *cart.InvalidError
		if err := ValidatePrefix("keyPrefix", bad); !errors.As(err, &invalid) || invalid.Field != "keyPrefix" {
			t.Errorf("%q: %v, want an InvalidError on keyPrefix", bad, err)
		}
	}
}

func TestValidateNamespace(t *testing.T) {
	for _, good := range []string{"", "laravel_database_laravel_cache_", "shop:", "lock", "a.lock.", strings.Repeat("x", 128)} {
		if err := ValidateNamespace("namespace", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"lock.", "fence.a.", "a b", "a*", "{a}", "ü", "a%", "a'", strings.Repeat("x", 129)} {
		var invalid *cart.InvalidError
		if err := ValidateNamespace("namespace", bad); !errors.As(err, &invalid) || invalid.Field != "namespace" {
			t.Errorf("%q: %v, want an InvalidError on namespace", bad, err)
		}
	}
}

func TestSlot(t *testing.T) {
	// From the specification of Redis Cluster, and the server's CLUSTER KEYSLOT.
	for tag, want := range map[string]uint16{"123456789": 12739, "foo": 12182, "": 0} {
		if got := slot(tag); got != want {
			t.Errorf("slot(%q) = %d, want %d", tag, got, want)
		}
	}
}
