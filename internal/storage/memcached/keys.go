package memcached

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/sidecart/sidecart/internal/cart"
)

// maxKeyBytes is the protocol's.
const maxKeyBytes = 250

// names makes the keys of one prefix, which is of letters, digits, and _ : . -.
//
// A cart's key is <prefix>.<identifier>.<instance>. Its names have no dot, so the last two dots tell where the prefix
// ends, and no two carts of any two prefixes have the same key. A key that would be too long is <prefix>.# and a hash.
// The sign # is in no other key but the epoch's.
type names struct{ prefix string }

func (n names) cart(k cart.Key) string {
	key := n.prefix + "." + escape(k.Identifier) + "." + escape(k.Instance)
	if len(key) <= maxKeyBytes {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return n.prefix + ".#" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// epoch is the key of the word that distinguishes one process of a server from the next.
func (n names) epoch() string { return n.prefix + ".#epoch" }

// probe is the key of a probe, which has a name of its own each time.
func (n names) probe(name string) string { return n.prefix + ".#probe." + name }

// escape writes what a key cannot have, or what has a meaning in ours, as % and two digits.
func escape(name string) string {
	if strings.IndexFunc(name, special) < 0 {
		return name
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; special(rune(c)) {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func special(r rune) bool {
	return r <= ' ' || r >= 0x7f || r == '%' || r == '.' || r == '#'
}
