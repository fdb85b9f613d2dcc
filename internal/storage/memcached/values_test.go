package memcached

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/testserver"
)

// TestLargest: a value that fits is stored, and one that does not is refused before it is sent, with the numbers.
func TestLargest(t *testing.T) {
	long := cart.Key{Identifier: strings.Repeat("x", 200), Instance: "default"}
	for size, bytes := range map[string]int{"512k": 512 << 10, "1m": 1 << 20, "4m": 4 << 20} {
		t.Run(size, func(t *testing.T) {
			m := testserver.StartMemcached(t, "-I", size)
			s := open(t, []string{m.Addr}, "cart")
			d := newDriver(Config{Addresses: []string{m.Addr}, Prefix: "cart", Dial: patient, Read: patient, Write: patient})
			defer d.Close()
			for _, key := range []cart.Key{key, long} {
				limit := bytes - itemOverhead - len(d.names.cart(key))
				name := len(cell.EncodeNamed(key, nil))
				for _, revision := range []string{"created", "changed"} {
					_, at, err := d.Get(t.Context(), key)
					if err != nil {
						t.Fatal(err)
					}
					if swapped, err := d.Swap(t.Context(), key, at, make([]byte, limit-name), time.Time{}); !swapped || err != nil {
						t.Errorf("%s, of %d bytes: %v, %v", revision, limit, swapped, err)
					}
					_, at, err = d.Get(t.Context(), key)
					if err != nil || at == 0 {
						t.Fatalf("%d, %v", at, err)
					}
					sent := do(t, m, "stats")
					_, err = d.Swap(t.Context(), key, at, make([]byte, limit-name+1), time.Time{})
					var large *cart.InvalidError
					if !errors.Is(err, storage.ErrTooLarge) || !errors.As(err, &large) || large.Limit != int64(limit) || large.Actual != int64(limit+1) {
						t.Errorf("%s, of %d bytes: %v", revision, limit+1, err)
					}
					if before, after := count(sent, "cmd_set"), count(do(t, m, "stats"), "cmd_set"); before != after {
						t.Error("it was sent")
					}
				}
				swapOut(t, d, key)
			}
			was := mustPut(t, s, key, `{"a":1}`)
			_, err := put(t.Context(), s, key, was, `{"a":"`+strings.Repeat("x", bytes)+`"}`)
			if !errors.Is(err, storage.ErrTooLarge) || errors.Is(err, cell.ErrOutcomeUnknown) {
				t.Errorf("Commit: %v", err)
			}
			if c := load(t, s, key); c.Version != was.Version {
				t.Errorf("version %d is there, %d was", c.Version, was.Version)
			}
		})
	}
}

func swapOut(t *testing.T, d *driver, key cart.Key) {
	t.Helper()
	_, at, err := d.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if swapped, err := d.Swap(t.Context(), key, at, nil, time.Time{}); !swapped || err != nil {
		t.Fatalf("deleted: %v, %v", swapped, err)
	}
	if value, at, err := d.Get(t.Context(), key); value != nil || at != 0 || err != nil {
		t.Errorf("after it was deleted there are %d bytes with %d, %v", len(value), at, err)
	}
	if swapped, err := d.Swap(t.Context(), key, at, nil, time.Time{}); swapped || err != nil {
		t.Errorf("deleted twice: %v, %v", swapped, err)
	}
}

func count(stats, name string) (n int) {
	for line := range strings.Lines(stats) {
		_, _ = fmt.Sscanf(line, "STAT "+name+" %d", &n)
	}
	return n
}

// TestForeignValues: a value that is not a cart of that name is refused by name and left alone, and other carts go on.
func TestForeignValues(t *testing.T) {
	m := testserver.StartMemcached(t)
	s := open(t, []string{m.Addr}, "cart")
	other := cart.Key{Identifier: "u2", Instance: "default"}
	state := storage.EncodeState(&storage.State{Cart: cart.Cart{ID: "id", Version: 1}}, []byte("{}"), []byte("{}"))
	newerState := append([]byte{2}, state[1:]...)
	newer := cell.EncodeNamed(key, state)
	newer[5] = 2
	for name, tc := range map[string]struct {
		value []byte
		want  error
		words string
	}{
		"of another program":  {[]byte("hello"), storage.ErrCorrupt, ""},
		"empty":               {nil, storage.ErrCorrupt, ""},
		"serialized by PHP":   {[]byte(`a:1:{s:1:"a";i:1;}`), storage.ErrCorrupt, ""},
		"of another cart":     {cell.EncodeNamed(other, state), storage.ErrCorrupt, ""},
		"cut off":             {cell.EncodeNamed(key, state)[:40], storage.ErrCorrupt, ""},
		"no state":            {cell.EncodeNamed(key, []byte{1, 200}), storage.ErrCorrupt, ""},
		"of a newer envelope": {newer, storage.ErrUnsupported, "format 2"},
		"of a newer state":    {cell.EncodeNamed(key, newerState), storage.ErrUnsupported, "format 2"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := do(t, m, fmt.Sprintf("set cart.u1.default 0 0 %d\r\n%s", len(tc.value), tc.value)); got != "STORED\n" {
				t.Fatal(got)
			}
			stored := do(t, m, "gets cart.u1.default")
			for call, err := range map[string]error{
				"Load":    second(s.Load(t.Context(), key)),
				"Commit":  second(put(t.Context(), s, key, &cart.Cart{}, `{"a":1}`)),
				"Abandon": s.Abandon(t.Context(), key, "token"),
			} {
				if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), `"u1/default"`) || !strings.Contains(err.Error(), tc.words) {
					t.Errorf("%s: %v", call, err)
				}
			}
			if now := do(t, m, "gets cart.u1.default"); now != stored {
				t.Errorf("it was changed from %q to %q", stored, now)
			}
			mustPut(t, s, other, `{"a":1}`)
		})
	}
}

func second[T any](_ T, err error) error { return err }

// TestLifeOnServer: an item lives for a second or two longer than its cart, and one over 30 days is not taken for a
// time in 1970.
func TestLifeOnServer(t *testing.T) {
	m := testserver.StartMemcached(t)
	s := open(t, []string{m.Addr}, "cart")
	const day = 24 * time.Hour
	for _, ttl := range []time.Duration{time.Second, time.Minute, 30*day - time.Second, 30 * day, 31 * day, 365 * day} {
		c := cart.Key{Identifier: "life", Instance: ttl.String()}
		outs, err := s.Commit(t.Context(), storage.Commit{Key: c, Change: storage.Change{NewID: newID(), Steps: 1, TTL: ttl}})
		if err != nil || outs[0].Status != storage.Committed {
			t.Fatalf("Commit: %+v, %v", outs, err)
		}
		var left int
		if _, err := fmt.Sscanf(meta(t, m, names{"cart"}.cart(c)), "HD t%d", &left); err != nil {
			t.Fatal(err)
		}
		// The server's answer may be a second old, and the machine slow.
		if d := time.Duration(left)*time.Second - ttl; d < -5*time.Second || d > 4*time.Second {
			t.Errorf("a cart of %v has %d s on the server", ttl, left)
		}
		if !load(t, s, c).Exists() {
			t.Errorf("a cart of %v is gone", ttl)
		}
	}
	for _, tc := range []struct {
		left time.Duration
		want int64
	}{
		{-time.Hour, 2}, {0, 2}, {time.Nanosecond, 3}, {time.Second, 3}, {1500 * time.Millisecond, 4},
		{30*day - 2*time.Second, 30 * 86400}, {30 * day, 1<<30 + 30*86400 + 3}, {60 * day, 1<<30 + 60*86400 + 3},
		{time.Duration(math.MaxInt64), 0},
	} {
		now := time.Unix(1<<30, 0)
		if got := expiration(now, now.Add(tc.left)); int64(got) != tc.want {
			t.Errorf("expiry in %v is %d, want %d", tc.left, got, tc.want)
		}
	}
	if got := expiration(time.Now(), time.Time{}); got != 0 {
		t.Errorf("expiry never is %d", got)
	}
}

// meta asks how long an item lives.
func meta(t *testing.T, m *testserver.Memcached, key string) string {
	t.Helper()
	return strings.SplitN(do(t, m, "mg "+key+" t\r\nget none"), "\n", 2)[0] // the answer of get is one that Do knows the end of
}

// TestKeys: keys are readable if they fit, and no two are the same.
func TestKeys(t *testing.T) {
	x := strings.Repeat("x", 255)
	for _, tc := range []struct{ prefix, identifier, instance, want string }{
		{"cart", "u1", "default", "cart.u1.default"},
		{"shop.cart", "u1", "default", "shop.cart.u1.default"},
		{"cart", "a.b", "c", "cart.a%2Eb.c"},
		{"cart", "a", "b.c", "cart.a.b%2Ec"},
		{"cart", "a b", "50%", "cart.a%20b.50%25"},
		{"cart", "é\r\n", "#", "cart.%C3%A9%0D%0A.%23"},
		{"cart", x, "default", "cart.#vBrCWtmdmxQyHEfFpxWUzhu-dPnMhLxzTp8Oe0ca6NI"},
		{"cart", x[:237], "default", "cart." + x[:237] + ".default"},
	} {
		got := names{tc.prefix}.cart(cart.Key{Identifier: tc.identifier, Instance: tc.instance})
		if strings.HasPrefix(tc.want, "cart.#") {
			if !strings.HasPrefix(got, "cart.#") || len(got) != len("cart.#")+43 {
				t.Errorf("a long name is %q", got)
			}
			continue
		}
		if got != tc.want {
			t.Errorf("%q, %q: %q, want %q", tc.identifier, tc.instance, got, tc.want)
		}
	}
	seen := map[string]string{}
	for _, prefix := range []string{"cart", "cart.a", "cart.a.b", "cart-a"} {
		all := []string{names{prefix}.epoch(), names{prefix}.probe("x")}
		for _, k := range []cart.Key{
			{Identifier: "a", Instance: "b"}, {Identifier: "a.b", Instance: "c"}, {Identifier: "a", Instance: "b.c"}, {Identifier: "b", Instance: "c"},
			{Identifier: "#epoch", Instance: "b"}, {Identifier: "a", Instance: "#epoch"}, {Identifier: "a", Instance: "%23epoch"},
			{Identifier: "b", Instance: "#epoch"}, {Identifier: x, Instance: "a"}, {Identifier: "a", Instance: x}, {Identifier: x, Instance: x},
			{Identifier: strings.Repeat("é", 127), Instance: "a"}, {Identifier: strings.Repeat(".", 255), Instance: "a"},
		} {
			all = append(all, names{prefix}.cart(k))
		}
		for _, name := range all {
			if len(name) > maxKeyBytes || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
				t.Errorf("%q is no key", name)
			}
			if by := seen[name]; by != "" {
				t.Errorf("%q is a key of %s and %s", name, by, prefix)
			}
			seen[name] = prefix
		}
	}
}
