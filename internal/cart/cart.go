package cart

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Cart is the state of one cart as a backend stores it. The zero value is a
// cart that does not exist: no ID, version 0, empty documents. A Cart that is
// shared is never written to.
type Cart struct {
	// ID is the UUID made when the cart was created; "" means no such cart.
	ID string
	// Version starts at 1 and rises by one with each acknowledged change.
	Version uint64
	// Items and Conditions are the documents. A nil Object is served as {}.
	Items, Conditions Document
	// Metadata are the keys that are there, in the order in which they came.
	Metadata []Entry
	// Removed are versions of metadata keys that were removed, so that the
	// version of a key only rises, also when it is set again. Bounded by
	// [MaxTombstones].
	Removed map[string]uint64
	// Floor is the version of every metadata key that is neither in Metadata
	// nor in Removed: where tombstones were dropped, it is at least the highest
	// of them.
	Floor uint64
	// CreatedAt, UpdatedAt and ExpiresAt are by the backend's clock, to the
	// millisecond. A zero ExpiresAt means that the cart does not expire.
	CreatedAt, UpdatedAt, ExpiresAt time.Time
	// Transfer and Received are the values of [PartTransfer] and [PartReceived];
	// nil where not set.
	Transfer, Received []byte
}

// MaxTombstones is how many removed metadata keys keep a version of their own.
const MaxTombstones = 64

// Document is a versioned JSON object.
type Document struct {
	Object Object
	// Version is the cart's version at the last change of this document; 0 means
	// never set.
	Version uint64
}

// Entry is one metadata key.
type Entry struct {
	Key string
	// Value is compact JSON, never null.
	Value []byte
	// Version is the cart's version at the last change of this key.
	Version uint64
}

// Exists reports whether there is such a cart.
func (c *Cart) Exists() bool { return c.ID != "" }

// Empty reports whether the cart holds nothing: no items, conditions or
// metadata. A cart that does not exist is empty.
func (c *Cart) Empty() bool {
	return c.Items.Object.Len() == 0 && c.Conditions.Object.Len() == 0 && len(c.Metadata) == 0
}

// MetadataValue is the value of a metadata key and its version; a nil value
// means that the key is not there.
func (c *Cart) MetadataValue(key string) (value []byte, version uint64) {
	for i := range c.Metadata {
		if c.Metadata[i].Key == key {
			return c.Metadata[i].Value, c.Metadata[i].Version
		}
	}
	if v, ok := c.Removed[key]; ok {
		return nil, v
	}
	return nil, c.Floor
}

// MetadataVersion is the version of the metadata as a whole: the cart's version
// at the last change of any key.
func (c *Cart) MetadataVersion() uint64 {
	v := c.Floor
	for i := range c.Metadata {
		v = max(v, c.Metadata[i].Version)
	}
	for _, r := range c.Removed {
		v = max(v, r)
	}
	return v
}

// PartVersion is the version of a part; of [PartAll], the cart's.
func (c *Cart) PartVersion(p Part) uint64 {
	switch p {
	case PartItems:
		return c.Items.Version
	case PartConditions:
		return c.Conditions.Version
	case PartAll:
		return c.Version
	case PartMetadataAll:
		return c.MetadataVersion()
	}
	key, ok := p.MetadataKey()
	if !ok {
		return 0 // an internal part
	}
	_, v := c.MetadataValue(key)
	return v
}

// StorePart sets what a backend stores of one part: compact JSON for items,
// conditions and metadata keys, opaque bytes for the internal parts. A nil value
// removes a metadata key, leaving a tombstone, or clears an internal part. It is
// meant for backends, which hand it values that went through a [Draft] once; a value that is no JSON
// object where one belongs makes the document's [Object] damaged: see
// [TrustedObject]. Slices and maps of c are copied, not written to: a shallow
// copy of a Cart stays as it was.
func (c *Cart) StorePart(p Part, value []byte, version uint64) error {
	switch p {
	case PartItems, PartConditions:
		o, err := TrustedObject(value)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if p == PartItems {
			c.Items = Document{o, version}
		} else {
			c.Conditions = Document{o, version}
		}
		return nil
	case PartTransfer:
		c.Transfer = bytes.Clone(value)
		return nil
	case PartReceived:
		c.Received = bytes.Clone(value)
		return nil
	}
	key, ok := p.MetadataKey()
	if !ok {
		return fmt.Errorf("%q is no part that can be stored", string(p))
	}
	if value == nil {
		c.Metadata = slices.Clone(c.Metadata)
		c.Metadata = slices.DeleteFunc(c.Metadata, func(e Entry) bool { return e.Key == key })
		c.Removed = maps.Clone(c.Removed)
		c.bury(key, version)
		return nil
	}
	text, err := trusted(value)
	if err != nil || string(text) == "null" {
		return fmt.Errorf("%s: %w", p, errDamagedValue)
	}
	if _, ok := c.Removed[key]; ok {
		c.Removed = maps.Clone(c.Removed)
		delete(c.Removed, key)
	}
	entry := Entry{key, text, version}
	if i := slices.IndexFunc(c.Metadata, func(e Entry) bool { return e.Key == key }); i >= 0 {
		c.Metadata = slices.Clone(c.Metadata)
		c.Metadata[i] = entry
	} else {
		c.Metadata = append(slices.Clip(c.Metadata), entry)
	}
	return nil
}

var errDamagedValue = errors.New("stored value is no JSON, or null")

// bury leaves a tombstone in Removed, which must be c's own. When there are more
// than [MaxTombstones], the older half goes, by version and then by key, so that
// every backend and every draft is left with the same ones.
func (c *Cart) bury(key string, version uint64) {
	if c.Removed == nil {
		c.Removed = make(map[string]uint64)
	}
	c.Removed[key] = version
	if len(c.Removed) <= MaxTombstones {
		return
	}
	keys := slices.SortedFunc(maps.Keys(c.Removed), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.Removed[a], c.Removed[b]), cmp.Compare(a, b))
	})
	for _, k := range keys[:len(keys)/2] {
		c.Floor = max(c.Floor, c.Removed[k])
		delete(c.Removed, k)
	}
}
