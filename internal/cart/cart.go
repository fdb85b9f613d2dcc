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

// Cart is the state of one cart as a backend stores it. The zero value is a cart that does not exist: no ID, version 0,
// empty documents. A Cart that is shared is never written to.
type Cart struct {
	// ID is the UUID made when the cart was created; "" means no such cart.
	ID string
	// Version starts at 1 and rises by one with each acknowledged change.
	Version uint64
	// Items and Conditions are the documents. A nil Object is served as {}.
	Items, Conditions Document
	// Metadata are the keys that are set, in the order in which they were first set.
	Metadata []Entry
	// Removed holds the versions of removed metadata keys, so that the version of a key keeps rising when it is set
	// again. It holds at most [MaxTombstones].
	Removed map[string]uint64
	// Floor is the version of every metadata key that is neither in Metadata nor in Removed. When tombstones are
	// dropped, it rises to the highest version among them.
	Floor uint64
	// CreatedAt, UpdatedAt and ExpiresAt are by the backend's clock, to the millisecond. A zero ExpiresAt means that
	// the cart does not expire.
	CreatedAt, UpdatedAt, ExpiresAt time.Time
	// Transfer and Received are the values of [PartTransfer] and [PartReceived]; nil where not set.
	Transfer, Received []byte
	// Ledger holds the records that the cart keeps beside its documents: see [PartLedger].
	Ledger Opaque
}

// MaxTombstones is how many removed metadata keys keep their own version.
const MaxTombstones = 64

// Document is a versioned JSON object.
type Document struct {
	Object Object
	// Version is the cart's version at the last change of this document; 0 means never set.
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

// Empty reports whether the cart holds nothing: no items, conditions or metadata. A cart that does not exist is empty.
func (c *Cart) Empty() bool {
	return c.Items.Object.Len() == 0 && c.Conditions.Object.Len() == 0 && len(c.Metadata) == 0
}

// MetadataValue is the value of a metadata key and its version; a nil value means that the key is not there.
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

// MetadataVersion is the version of the metadata as a whole: the cart's version at the last change of any key.
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

// PartVersion is the version of a part. For [PartAll] it is the cart's version.
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
	case PartLedger:
		return c.Ledger.Version
	}
	key, ok := p.MetadataKey()
	if !ok {
		return 0 // an internal part without a version
	}
	_, v := c.MetadataValue(key)
	return v
}

// PartVersions returns the versions of parts, in their order. It looks at each metadata key once, however many parts
// there are.
func (c *Cart) PartVersions(parts []Part) []uint64 {
	versions := make([]uint64, len(parts))
	var index map[string]int
	for i, p := range parts {
		key, ok := p.MetadataKey()
		if !ok || len(parts) <= fewKeys {
			versions[i] = c.PartVersion(p)
			continue
		}
		if index == nil {
			index = indexOf(c.Metadata)
		}
		if at, ok := index[key]; ok {
			versions[i] = c.Metadata[at].Version
		} else if v, ok := c.Removed[key]; ok {
			versions[i] = v
		} else {
			versions[i] = c.Floor
		}
	}
	return versions
}

func indexOf(entries []Entry) map[string]int {
	index := make(map[string]int, len(entries))
	for i := range entries {
		index[entries[i].Key] = i
	}
	return index
}

// Size is the size of the cart's documents as they are served, in bytes: items, conditions, and all metadata as one
// object.
func (c *Cart) Size() int {
	return c.Items.Object.size() + c.Conditions.Object.size() + c.metadataSize()
}

func (c *Cart) metadataSize() int {
	size := 1
	for i := range c.Metadata {
		if e := &c.Metadata[i]; e.Value != nil { // a draft keeps keys that are being removed
			size += memberLen(e.Key, e.Value)
		}
	}
	return max(size, len(emptyObject))
}

// MetadataObject is all metadata as one JSON object.
func (c *Cart) MetadataObject() []byte {
	b := append(make([]byte, 0, c.metadataSize()), '{')
	for i := range c.Metadata {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(appendKey(b, c.Metadata[i].Key), ':'), c.Metadata[i].Value...)
	}
	return append(b, '}')
}

// Written is one part to store, as a change left it.
type Written struct {
	Part Part
	// Value is compact JSON for items, conditions and metadata keys, and opaque bytes for the internal parts. nil
	// removes a metadata key and leaves a tombstone, or clears an internal part.
	Value []byte
	// Version is the version of the part. Of the internal parts only [PartLedger] has one.
	Version uint64
}

// StorePart is [Cart.StoreParts] of one part.
func (c *Cart) StorePart(p Part, value []byte, version uint64) error {
	return c.StoreParts([]Written{{p, value, version}})
}

// StoreParts sets the stored values of some parts, in order. It is meant for backends, whose values went through a
// [Draft] once. Where a document must be a JSON object, any other value is an error: see [TrustedObject]. An error
// leaves the cart as it was. StoreParts copies the slices and maps of c before it writes, so a shallow copy of a Cart
// does not change.
func (c *Cart) StoreParts(parts []Written) error {
	s := storing{cart: *c}
	for i := range parts {
		if err := s.store(&parts[i]); err != nil {
			return err
		}
	}
	if s.gone {
		s.cart.Metadata = slices.DeleteFunc(s.cart.Metadata, func(e Entry) bool { return e.Value == nil })
	}
	*c = s.cart
	return nil
}

// storing is a cart while parts are stored in it.
type storing struct {
	cart       Cart
	own        bool           // Metadata is not shared; a removed key stays in it, without a value
	ownRemoved bool           // likewise Removed
	gone       bool           // there are removed keys
	index      map[string]int // of Metadata, once there was more than one
	keys       int            // metadata keys stored
}

func (s *storing) store(w *Written) error {
	c := &s.cart
	switch w.Part {
	case PartItems, PartConditions:
		o, err := TrustedObject(w.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", w.Part, err)
		}
		if w.Part == PartItems {
			c.Items = Document{o, w.Version}
		} else {
			c.Conditions = Document{o, w.Version}
		}
		return nil
	case PartTransfer:
		c.Transfer = bytes.Clone(w.Value)
		return nil
	case PartReceived:
		c.Received = bytes.Clone(w.Value)
		return nil
	case PartLedger:
		c.Ledger = Opaque{}
		if w.Value != nil {
			c.Ledger = Opaque{bytes.Clone(w.Value), w.Version}
		}
		return nil
	}
	key, ok := w.Part.MetadataKey()
	if !ok {
		return fmt.Errorf("%q is no part that can be stored", string(w.Part))
	}
	var text []byte
	if w.Value != nil {
		var err error
		if text, err = trusted(w.Value); err != nil || string(text) == "null" {
			return fmt.Errorf("%s: %w", w.Part, errDamagedValue)
		}
	}
	if !s.own {
		c.Metadata, s.own = slices.Clone(c.Metadata), true
	}
	at := s.find(key)
	if _, buried := c.Removed[key]; !s.ownRemoved && (buried || text == nil) {
		c.Removed, s.ownRemoved = maps.Clone(c.Removed), true
	}
	if text == nil {
		if at >= 0 {
			c.Metadata[at].Value, s.gone = nil, true
			delete(s.index, key)
			c.Metadata[at].Key = "" // matches no key: a key that is set again comes last
		}
		c.bury(key, w.Version)
		return nil
	}
	delete(c.Removed, key)
	entry := Entry{key, text, w.Version}
	if at >= 0 {
		c.Metadata[at] = entry
		return nil
	}
	if s.index != nil {
		s.index[key] = len(c.Metadata)
	}
	c.Metadata = append(c.Metadata, entry)
	return nil
}

// find returns the index of a key in the metadata, or -1.
func (s *storing) find(key string) int {
	if s.keys++; s.keys > fewKeys && s.index == nil {
		s.index = indexOf(s.cart.Metadata)
	}
	if s.index == nil {
		return slices.IndexFunc(s.cart.Metadata, func(e Entry) bool { return e.Key == key })
	}
	if at, ok := s.index[key]; ok {
		return at
	}
	return -1
}

var errDamagedValue = errors.New("stored value is no JSON, or null")

// bury leaves a tombstone in Removed, which must not be shared with another cart. When there are more than
// [MaxTombstones], it drops the older half. It orders them by version and then by key, so that every backend and every
// draft keeps the same ones.
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
