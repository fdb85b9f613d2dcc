package memcached

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

func advice(t *testing.T, s storage.Advisor) (codes []string, messages string) {
	t.Helper()
	all, err := s.Advice(t.Context())
	if err != nil {
		t.Fatalf("Advice: %v", err)
	}
	for _, a := range all {
		codes = append(codes, a.Code)
		messages += a.Message + "\n"
	}
	return codes, messages
}

// TestEviction: a cart that the server has evicted is not there, and all others are as they were acknowledged. Advice
// tells of it.
func TestEviction(t *testing.T) {
	m := testserver.StartMemcached(t, "-m", "8")
	s := open(t, []string{m.Addr}, "cart")
	if codes, _ := advice(t, s); !slices.Equal(codes, []string{storage.AdviceEvictionPolicy, storage.AdviceNotPersistent}) {
		t.Errorf("before: %q", codes)
	}
	carts := map[cart.Key]*cart.Cart{}
	padding := strings.Repeat("x", 50_000)
	for i := range 300 {
		key := cart.Key{Identifier: fmt.Sprint("u", i), Instance: "default"}
		carts[key] = mustPut(t, s, key, fmt.Sprintf(`{"n":%d,"x":%q}`, i, padding))
	}
	gone := 0
	for key, was := range carts {
		c := load(t, s, key)
		if !c.Exists() {
			gone++
			if out, err := put(t.Context(), s, key, was, `{}`); err != nil || out.Status != storage.Conflict || out.Cart.Exists() {
				t.Errorf("a change of %q, which is gone: %+v, %v", key, out, err)
			}
			continue
		}
		if c.ID != was.ID || c.Version != was.Version || string(c.Items.Object.Bytes()) != string(was.Items.Object.Bytes()) {
			t.Errorf("%q is another: %s version %d", key, c.ID, c.Version)
		}
	}
	if gone == 0 {
		t.Fatal("nothing was evicted: this test shows nothing")
	}
	codes, messages := advice(t, s)
	if !slices.Equal(codes, []string{storage.AdviceCartsEvicted, storage.AdviceEvictionPolicy, storage.AdviceNotPersistent}) || !strings.Contains(messages, m.Addr+" has evicted ") {
		t.Errorf("after: %q\n%s", codes, messages)
	}
}

// TestFullWithoutEviction: a server that may not evict refuses changes, and every cart stays as it was.
func TestFullWithoutEviction(t *testing.T) {
	m := testserver.StartMemcached(t, "-m", "8", "-M")
	s := open(t, []string{m.Addr}, "cart")
	if codes, _ := advice(t, s); !slices.Equal(codes, []string{storage.AdviceNotPersistent}) {
		t.Errorf("%q", codes)
	}
	carts := map[cart.Key]*cart.Cart{}
	padding := strings.Repeat("x", 50_000)
	var refused error
	for i := 0; refused == nil && i < 300; i++ {
		key := cart.Key{Identifier: fmt.Sprint("u", i), Instance: "default"}
		out, err := put(t.Context(), s, key, &cart.Cart{}, fmt.Sprintf(`{"n":%d,"x":%q}`, i, padding))
		if refused = err; err == nil && out.Status == storage.Committed {
			carts[key] = load(t, s, key)
		}
	}
	words, ok := storage.RefusalOf(refused)
	if !errors.Is(refused, storage.ErrUnavailable) || !ok || !strings.Contains(words, "out of memory") {
		t.Errorf("the server is full: %v", refused)
	}
	for key, was := range carts {
		_, err := put(t.Context(), s, key, was, fmt.Sprintf(`{"y":%q}`, padding+padding))
		if err == nil { // there was some room for this one
			continue
		}
		if c := load(t, s, key); c.ID != was.ID || c.Version != was.Version {
			t.Errorf("%q is version %d of %q after a change was refused (%v), was %d of %q", key, c.Version, c.ID, err, was.Version, was.ID)
		}
	}
}

// TestRestartIsTold: Advice tells of a server that has lost its items, whichever call notices it first.
func TestRestartIsTold(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, m *testserver.Memcached){
		"restart": func(_ *testing.T, m *testserver.Memcached) { m.Restart() },
		"flush": func(t *testing.T, m *testserver.Memcached) {
			// Flush_all hits what was stored before the present second.
			for deadline := time.Now().Add(patient); strings.Contains(do(t, m, "gets cart.#epoch"), "VALUE"); {
				if time.Now().After(deadline) {
					t.Fatal("the server does not forget")
				}
				do(t, m, "flush_all")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := testserver.StartMemcached(t)
			s := open(t, []string{m.Addr}, "cart")
			other := open(t, []string{m.Addr}, "cart")
			mustPut(t, s, key, `{"a":1}`)
			mustPut(t, other, key, `{"a":1}`)
			lose(t, m)
			for i, s := range []storage.Store{s, other} {
				if err := s.(storage.Beater).Beat(t.Context()); err != nil {
					t.Errorf("Beat of store %d: %v", i, err)
				}
				codes, messages := advice(t, s.(storage.Advisor))
				if len(codes) == 0 || codes[0] != storage.AdviceCartsEvicted || !strings.Contains(messages, m.Addr+" was found at ") {
					t.Errorf("store %d: %q\n%s", i, codes, messages)
				}
				mustPut(t, s, key, `{"a":1}`)
			}
		})
	}
}

// TestClockDiffers: a sidecar whose clock is away from that of a server is told so.
func TestClockDiffers(t *testing.T) {
	m := testserver.StartMemcached(t)
	d := newDriver(Config{Addresses: []string{m.Addr}, Prefix: "cart", Dial: patient, Read: patient, Write: patient})
	defer d.Close()
	for ahead, want := range map[time.Duration]bool{0: false, time.Minute: true, -time.Minute: true} {
		d.now = func() time.Time { return time.Now().Add(ahead) }
		codes, messages := advice(t, d)
		if slices.Contains(codes, storage.AdviceClockDiffers) != want || strings.Contains(messages, m.Addr+" differ by ") != want {
			t.Errorf("%v ahead: %q\n%s", ahead, codes, messages)
		}
	}
}

// TestWithoutCAS: a server that gives no uniques is refused, with the reason.
func TestWithoutCAS(t *testing.T) {
	m := testserver.StartMemcached(t, "-C")
	s := open(t, []string{m.Addr}, "cart")
	for call, err := range map[string]error{
		"Ping": s.Ping(t.Context()), "Load": second(s.Load(t.Context(), key)), "Commit": second(put(t.Context(), s, key, &cart.Cart{}, `{}`)),
	} {
		if words, ok := storage.RefusalOf(err); !errors.Is(err, storage.ErrUnavailable) || !ok || !strings.Contains(words, "without -C") {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// TestProbe: it works twice, and leaves nothing that stays.
func TestProbe(t *testing.T) {
	m := testserver.StartMemcached(t)
	s := open(t, []string{m.Addr}, "cart")
	for range 2 {
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("Ping: %v", err)
		}
	}
	m.Restart()
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping after a restart: %v", err)
	}
	m.Kill()
	if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Ping of nobody: %v", err)
	}
}
