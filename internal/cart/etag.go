package cart

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
)

// ETag is the etag of the whole cart, and never "".
func (c *Cart) ETag() string { return c.PartETag(PartAll) }

// PartETag is the etag of a part. For [PartAll] it is the etag of the whole cart. It is "" only for the internal parts,
// which are not served.
//
// A cart or part that does not exist has an etag too, of version 0. As If-Match it holds:
//
//   - for a cart that does not exist, until it is created;
//   - for a part that was read while there was no cart, until the part is set, even in a cart
//     created since;
//   - for a part that was never set in a cart, until it is set in that same cart; not in its
//     successor.
//
// One etag may end early. When the floor of a cart's tombstones rises, the version of a metadata key that was never set
// rises with it (see [Cart.Floor]).
func (c *Cart) PartETag(p Part) string {
	t := c.tag(p)
	if t.kind == 0 {
		return ""
	}
	return t.String()
}

// MetadataETag is the etag of the metadata as a whole.
func (c *Cart) MetadataETag() string { return c.PartETag(PartMetadataAll) }

// tag is a decoded etag. To clients an etag is opaque.
type tag struct {
	kind    byte   // one of the kinds
	cart    uint64 // hash of the cart's id; noCart if there was no cart
	key     uint64 // hash of the metadata key, of kindKey
	version uint64 // 0 if the part did not exist
}

// noCart stands for the id of a cart that does not exist.
var noCart = hash("")

const (
	kindCart       = 'c'
	kindItems      = 'i'
	kindConditions = 'o'
	kindMetadata   = 'm'
	kindKey        = 'k'
)

// tag is the tag of a part as it is now.
func (c *Cart) tag(p Part) tag {
	t := tag{cart: hash(c.ID), version: c.PartVersion(p)}
	switch p {
	case PartAll:
		t.kind = kindCart
	case PartItems:
		t.kind = kindItems
	case PartConditions:
		t.kind = kindConditions
	case PartMetadataAll:
		t.kind = kindMetadata
	default:
		if key, ok := p.MetadataKey(); ok {
			t.kind, t.key = kindKey, hash(key)
		}
	}
	return t
}

// isOf reports whether both are etags of the same part.
func (t tag) isOf(u tag) bool { return t.kind == u.kind && t.key == u.key }

// holds reports whether t is current for a request on p.
func (t tag) holds(c *Cart, p Part) bool {
	now := c.tag(p)
	if t == now || t == c.tag(PartAll) {
		return true
	}
	return t.cart == noCart && t.version == 0 && now.version == 0 && t.isOf(now)
}

// hash is FNV-1a of 64 bits, as in hash/fnv. That package allocates twice for each hash, and an answer has several
// etags.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// etagEncoding has no character that must be escaped in a header or a URL.
var etagEncoding = base64.RawURLEncoding.Strict()

// String writes kind, hashes and version, then a checksum, so that parseTag recognizes text that is no etag.
func (t tag) String() string {
	var buf [1 + 8 + 8 + binary.MaxVarintLen64 + crc32.Size]byte
	b := append(buf[:0], t.kind)
	b = binary.BigEndian.AppendUint64(b, t.cart)
	if t.kind == kindKey {
		b = binary.BigEndian.AppendUint64(b, t.key)
	}
	b = binary.AppendUvarint(b, t.version)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	var text [2 * len(buf)]byte
	return string(etagEncoding.AppendEncode(text[:0], b))
}

// parseTag reads what String wrote, and nothing else.
func parseTag(s string) (t tag, ok bool) {
	b, err := etagEncoding.DecodeString(s)
	if err != nil || len(b) < 1+8+1+crc32.Size {
		return tag{}, false
	}
	t.kind, t.cart = b[0], binary.BigEndian.Uint64(b[1:])
	rest := b[9 : len(b)-crc32.Size]
	if t.kind == kindKey && len(rest) > 8 {
		t.key, rest = binary.BigEndian.Uint64(rest), rest[8:]
	}
	var n int
	t.version, n = binary.Uvarint(rest)
	switch t.kind {
	case kindCart, kindItems, kindConditions, kindMetadata, kindKey:
		return t, n == len(rest) && t.String() == s
	}
	return tag{}, false
}
