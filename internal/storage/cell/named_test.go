package cell

import (
	"errors"
	"strings"
	"testing"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// TestNamed: a named value is read back as it was, and by its own name only.
func TestNamed(t *testing.T) {
	long := cart.Key{Identifier: strings.Repeat("x", 255), Instance: strings.Repeat("é", 127)}
	for _, k := range []cart.Key{key, {Identifier: "a", Instance: ""}, {Identifier: "a.b", Instance: "c"}, {Identifier: "a", Instance: "b.c"}, long} {
		stored := EncodeNamed(k, []byte("value"))
		if value, err := DecodeNamed(k, stored); string(value) != "value" || err != nil {
			t.Errorf("%q: %q, %v", k, value, err)
		}
		other := cart.Key{Identifier: k.Identifier + "x", Instance: k.Instance}
		if value, err := DecodeNamed(other, stored); !errors.Is(err, storage.ErrCorrupt) || value != nil {
			t.Errorf("%q of %q: %q, %v", other, k, value, err)
		}
		if found, value, err := ReadNamed(stored); found != k || string(value) != "value" || err != nil {
			t.Errorf("%q: read as %q, %q, %v", k, found, value, err)
		}
	}
}

// FuzzReadNamed: whatever is stored, it is read as it was written, or refused.
func FuzzReadNamed(f *testing.F) {
	f.Add(EncodeNamed(key, []byte("value")))
	f.Add(EncodeNamed(cart.Key{}, nil))
	f.Add([]byte(namedMark + "\x01\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		found, value, err := ReadNamed(stored)
		switch {
		case err == nil:
			if again, err := DecodeNamed(found, EncodeNamed(found, value)); string(again) != string(value) || err != nil {
				t.Errorf("%q: %q, %v", found, again, err)
			}
		case !errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, storage.ErrUnsupported):
			t.Errorf("%q: %v", stored, err)
		}
	})
}

// TestNamedDamage: every damage is noticed, and a format that is not known is named.
func TestNamedDamage(t *testing.T) {
	stored := EncodeNamed(key, []byte("value"))
	for i := range stored {
		for n := range 8 {
			damaged := []byte(string(stored))
			damaged[i] ^= 1 << n
			_, err := DecodeNamed(key, damaged)
			if want := i == len(namedMark); errors.Is(err, storage.ErrUnsupported) != want || errors.Is(err, storage.ErrCorrupt) == want {
				t.Errorf("bit %d of byte %d: %v", n, i, err)
			}
		}
		if _, err := DecodeNamed(key, stored[:i]); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	stored[len(namedMark)] = 2
	if _, err := DecodeNamed(key, stored); err == nil || !strings.Contains(err.Error(), "format 2, which another release wrote: this one reads format 1") {
		t.Errorf("format 2: %v", err)
	}
	for _, foreign := range []string{"", "x", "hello world, this is not a cart", "a:1:{}"} {
		if _, err := DecodeNamed(key, []byte(foreign)); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%q: %v", foreign, err)
		}
	}
}
