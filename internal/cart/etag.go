package cart

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"
)

// ETag is the etag of the whole cart; "" for a cart that does not exist.
func (c *Cart) ETag() string { return c.PartETag(PartAll) }

// PartETag is the etag of a part. For [PartAll] it is that of the whole cart. It
// is "" where the part's version is 0.
func (c *Cart) PartETag(p Part) string {
	t := c.tag(p)
	if !c.Exists() || t.version == 0 {
		return ""
	}
	return t.String()
}

// MetadataETag is the etag of the metadata as a whole.
func (c *Cart) MetadataETag() string { return c.PartETag(PartMetadataAll) }

// tag is what an etag says. Clients must not look into it.
type tag struct {
	kind    byte   // one of the kinds
	cart    uint64 // hash of the cart's id
	key     uint64 // hash of the metadata key, of kindKey
	version uint64
}

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
		key, _ := p.MetadataKey()
		t.kind, t.key = kindKey, hash(key)
	}
	return t
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// etagEncoding has no character that needs care in a header or a URL.
var etagEncoding = base64.RawURLEncoding.Strict()

// String is kind, hashes and version, and a checksum by which anything that is
// no etag is known.
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
		return t, n == len(rest) && t.version > 0 && t.String() == s
	}
	return tag{}, false
}
