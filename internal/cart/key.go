package cart

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxNameBytes is the longest identifier, instance, item id, condition name or metadata key, in bytes of UTF-8.
const MaxNameBytes = 255

// Key names one cart: its owner, and which of the owner's carts it is.
type Key struct {
	// Identifier names the owner: a user id, a session id.
	Identifier string
	// Instance names one of the owner's carts: "default", "wishlist".
	Instance string
}

// String is for logs and errors. It is not unique if names contain a slash.
func (k Key) String() string { return k.Identifier + "/" + k.Instance }

// Validate says what is wrong with the key, as an [*InvalidError] on the field "identifier" or "instance".
func (k Key) Validate() error {
	if err := ValidateName("identifier", k.Identifier); err != nil {
		return err
	}
	return ValidateName("instance", k.Instance)
}

// Reserved reports whether the instance is empty, so that no client can name this cart. Records of checkouts are stored
// as carts under such names. Code that lists or counts carts leaves them out. Code that moves or removes all carts
// includes them.
func (k Key) Reserved() bool { return k.Instance == "" }

// ValidateName checks a name against the rule for all names: UTF-8 without NUL, 1 to [MaxNameBytes] bytes. The error is
// an [*InvalidError] on field.
func ValidateName(field, name string) error {
	switch {
	case name == "":
		return Invalidf(field, "must not be empty")
	case len(name) > MaxNameBytes:
		return Invalidf(field, "is %d bytes long, at most %d are allowed", len(name), MaxNameBytes)
	case !utf8.ValidString(name):
		return Invalidf(field, "is not valid UTF-8")
	case strings.IndexByte(name, 0) >= 0:
		return Invalidf(field, "must not contain NUL")
	}
	return nil
}

// Part names a part of a cart. Each part has its own version, and a lock covers some parts.
type Part string

const (
	// PartItems is the items document.
	PartItems Part = "items"
	// PartConditions is the conditions document.
	PartConditions Part = "conditions"
	// PartAll stands for the whole cart in a set of parts: every part there is or could be, and the existence of the
	// cart.
	PartAll Part = "*"

	// PartTransfer holds the intent of a hand-over that did not fit into one atomic step. While a cart has it, no other
	// change is made until the hand-over is finished. It has no version and is never served.
	PartTransfer Part = "transfer"
	// PartReceived holds the id of the last hand-over into this cart. It has no version and is never served.
	PartReceived Part = "received"
	// PartLedger holds the records that the cart keeps beside its documents, such as the requests made under
	// idempotency keys: see ledger.go. It has its own version, which is independent of the cart's: see [Opaque]. It is
	// never served.
	PartLedger Part = "ledger"
)

const metadataPrefix = "metadata."

// PartMetadata is the part of one metadata key.
func PartMetadata(key string) Part { return Part(metadataPrefix + key) }

// MetadataKey returns the metadata key that p covers, and whether it covers one.
func (p Part) MetadataKey() (string, bool) {
	return strings.CutPrefix(string(p), metadataPrefix)
}

// ParsePart reads the name of a part as clients write it: "items", "conditions" or "metadata." and a key. The error is
// an [*InvalidError].
func ParsePart(field, s string) (Part, error) {
	p := Part(s)
	if p == PartItems || p == PartConditions {
		return p, nil
	}
	key, ok := p.MetadataKey()
	if !ok {
		return "", Invalidf(field, `%q is no part: write "items", "conditions" or "metadata.<key>"`, s)
	}
	return p, ValidateName(field, key)
}

// Overlaps reports whether a lock over p excludes a lock over q.
func (p Part) Overlaps(q Part) bool { return p == q || p == PartAll || q == PartAll }

var _ fmt.Stringer = Key{}
