package redis

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sidecart/sidecart/internal/cart"
)

// MaxPrefixBytes is the longest prefix, MaxNamespaceBytes the longest namespace.
const (
	MaxPrefixBytes    = 64
	MaxNamespaceBytes = 128
)

// kinds are the first components of keys that are not those of carts. "fence" is also the first component of Ping's
// key, which has no further name.
var kinds = []string{"lock", "queue", "index", "fence"}

// ValidatePrefix checks a prefix of keys: 1 to [MaxPrefixBytes] of the characters A-Z a-z 0-9 _ : . - of which the part
// before the first dot is none of lock, queue, index and fence. The error is an [*cart.InvalidError] on field.
func ValidatePrefix(field, prefix string) error {
	if prefix == "" || len(prefix) > MaxPrefixBytes {
		return cart.Invalidf(field, "is %d bytes long, must be 1 to %d", len(prefix), MaxPrefixBytes)
	}
	if err := validateCharacters(field, prefix); err != nil {
		return err
	}
	first, _, _ := strings.Cut(prefix, ".")
	for _, k := range kinds {
		if first == k {
			return cart.Invalidf(field, "%q begins with %q, which names keys of another kind: write another word", prefix, k)
		}
	}
	return nil
}

// ValidateNamespace checks what stands before every key: up to [MaxNamespaceBytes] of the characters of a prefix. Its
// part before the first dot must be none of lock, queue, index and fence either: carts would have the keys of locks of
// another store. The error is an [*cart.InvalidError] on field.
func ValidateNamespace(field, namespace string) error {
	if len(namespace) > MaxNamespaceBytes {
		return cart.Invalidf(field, "is %d bytes long, must be at most %d", len(namespace), MaxNamespaceBytes)
	}
	if err := validateCharacters(field, namespace); err != nil {
		return err
	}
	first, _, dotted := strings.Cut(namespace, ".")
	if dotted && slices.Contains(kinds, first) {
		return cart.Invalidf(field, "%q begins with %q, which names keys of another kind: write another word", namespace, first)
	}
	return nil
}

func validateCharacters(field, text string) error {
	for _, r := range text {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_:.-", r) {
			return cart.Invalidf(field, "%q contains %q, allowed are A-Z a-z 0-9 _ : . -", text, r)
		}
	}
	return nil
}

// watchComponent is the last component of the key and of the channel of those who watch a cart. No name of a cart
// becomes it.
const watchComponent = ".%watch"

// space makes and reads the keys of one prefix. Components are separated by dots and names are escaped, so that by
// their number and their first word no two keys of any two prefixes are the same.
type space struct {
	namespace string // stands before every key
	prefix    string
	cluster   bool // the identifier is the hash tag
}

// names are the keys of one cart.
type names struct {
	cart, queue, lock, index, fence string
	watch, channel                  string // what tells who watches it, and where they hear of it
	instance                        string // as in the key
}

func (s space) names(k cart.Key) names {
	id, instance := s.tag(escape(k.Identifier)), escape(k.Instance)
	owner := s.prefix + "." + id
	key := owner + "." + instance
	ns := s.namespace
	n := names{cart: ns + key, queue: ns + "queue." + key, index: ns + "index." + owner, fence: ns + "fence." + key, instance: instance}
	if !s.cluster { // a hash tag needs no further escape, and must be the same in all keys of a cart
		id = escapeLock(k.Identifier)
	}
	n.watch, n.channel = n.queue+watchComponent, ns+"wake."+key+watchComponent
	n.lock = ns + "lock." + s.prefix + "." + id + "." + escapeLock(k.Instance)
	return n
}

// cart is the key of a cart's hash, for who needs no other key.
func (s space) cart(k cart.Key) string {
	if s.cluster {
		return s.names(k).cart
	}
	return s.namespace + s.prefix + "." + escape(k.Identifier) + "." + escape(k.Instance)
}

func (s space) tag(id string) string {
	if s.cluster {
		return "{" + id + "}"
	}
	return id
}

// owner returns the key of the index of an identifier's instances, and what stands before an instance in a cart's key.
func (s space) owner(identifier string) (index, before string) {
	owner := s.prefix + "." + s.tag(escape(identifier))
	return s.namespace + "index." + owner, s.namespace + owner + "."
}

// lockKey returns the key of the lock over a part.
func (n names) lockKey(p cart.Part) string {
	if p == cart.PartAll {
		return n.lock
	}
	if key, ok := p.MetadataKey(); ok {
		return n.lock + ".metadata." + escapeLock(key)
	}
	return n.lock + "." + string(p)
}

// owns reports whether a key belongs to this prefix.
func (s space) owns(key string) bool {
	key, ok := strings.CutPrefix(key, s.namespace)
	if !ok {
		return false
	}
	for _, kind := range kinds {
		if rest, ok := strings.CutPrefix(key, kind+"."+s.prefix+"."); ok && s.reads(kind, rest) {
			return true
		}
	}
	rest, ok := strings.CutPrefix(key, s.prefix+".")
	return ok && s.reads("cart", rest)
}

// reads reports whether rest, which follows kind and prefix, is a valid name: it must have as many components as that
// kind has, and each must be one that the escape functions write.
func (s space) reads(kind, rest string) bool {
	c := strings.Split(rest, ".")
	write, want := escape, 2
	switch kind {
	case "index":
		want = 1
	case "lock":
		write = escapeLock
		switch n := len(c); {
		case n == 4 && c[2] == "metadata":
			c = []string{c[0], c[1], c[3]}
			want = 3
		case n == 3 && (c[2] == string(cart.PartItems) || c[2] == string(cart.PartConditions)):
			c = c[:2]
		}
	}
	if len(c) != want {
		return false
	}
	for i, name := range c {
		write := write
		if s.cluster && i == 0 {
			inner, ok := strings.CutPrefix(name, "{")
			if !ok || !strings.HasSuffix(inner, "}") {
				return false
			}
			name, write = strings.TrimSuffix(inner, "}"), escape
		}
		if i == 1 && name == reservedComponent {
			continue
		}
		plain, err := unescape(name)
		if err != nil || plain == "" || write(plain) != name {
			return false
		}
	}
	return true
}

// probeName begins the names of probes. It has a NUL, which no name of a cart has.
const (
	probeName      = "\x00probe"
	probeComponent = "%probe"
)

// probes reports whether a key is one of a probe of this prefix.
func (s space) probes(key string) bool {
	key, ok := strings.CutPrefix(key, s.namespace)
	if !ok {
		return false
	}
	for _, kind := range kinds {
		if rest, ok := strings.CutPrefix(key, kind+"."); ok {
			key = rest
			break
		}
	}
	rest, ok := strings.CutPrefix(key, s.prefix+".")
	return ok && strings.HasPrefix(strings.TrimPrefix(rest, "{"), probeComponent)
}

// reservedComponent is the empty instance of a reserved name ([cart.Key.Reserved]).
const reservedComponent = "%reserved"

const hexDigits = "0123456789ABCDEF"

// escape writes a name as one component. It writes in percent form the separator of components, the delimiters of a
// hash tag, and the percent sign itself. The names of probes and the empty name become components that no name of a
// cart becomes.
func escape(name string) string {
	if name == "" {
		return reservedComponent
	}
	if strings.HasPrefix(name, probeName) {
		return probeComponent + name[len(probeName):]
	}
	if !strings.ContainsAny(name, "%.{}") {
		return name
	}
	var b strings.Builder
	b.Grow(len(name) + 8)
	for i := range len(name) {
		switch c := name[i]; c {
		case '%', '.', '{', '}':
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// escapeLock is escape for keys of locks. Such a key may end with the name of a part. So with a prefix that has a dot,
// a cart could have the same key as a part of another cart. To prevent that, a name that equals the name of a part has
// its first letter in percent form.
func escapeLock(name string) string {
	switch name {
	case "items", "conditions", "metadata":
		return fmt.Sprintf("%%%02X%s", name[0], name[1:])
	}
	return escape(name)
}

func unescape(component string) (string, error) {
	switch {
	case component == reservedComponent:
		return "", nil
	case strings.IndexByte(component, '%') < 0:
		return component, nil
	}
	var b strings.Builder
	for i := 0; i < len(component); i++ {
		c := component[i]
		if c == '%' {
			if i+2 >= len(component) {
				return "", fmt.Errorf("%q ends within an escape", component)
			}
			hi, lo := strings.IndexByte(hexDigits, component[i+1]), strings.IndexByte(hexDigits, component[i+2])
			if hi < 0 || lo < 0 {
				return "", fmt.Errorf("%q holds no escape at %d", component, i)
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// slot returns the slot of a hash tag in a Cluster: CRC16 (XMODEM) modulo the number of slots.
func slot(tag string) uint16 {
	var crc uint16
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % 16384
}
