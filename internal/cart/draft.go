package cart

import (
	"bytes"
	"maps"
	"slices"
)

// Verb is one change of a cart. A verb is pure and may be applied several times,
// to several states, before one of them is committed.
type Verb interface {
	// Parts are what the verb may change, given the cart as it is: what must be
	// free of other holders' locks. [PartAll] stands alone.
	Parts(c *Cart) []Part
	// Apply makes the change on d. An error leaves d in an undefined state; it
	// matches one of the sentinels of this package.
	Apply(d *Draft) error
}

// Draft is a cart that is being changed. Several changes may be made on one
// draft, one after the other, each ended by [Draft.Seal]: they become one commit
// with an answer for each. A Draft is for one goroutine.
type Draft struct {
	base   *Cart
	sealed Cart // as of the last Seal or Rollback; nothing it refers to is written to
	cart   Cart // what it becomes
	limits Limits
	newID  string

	own     bool     // cart.Metadata is not shared with sealed
	touched []string // metadata keys set or removed since the last Seal
	wrote   []string // metadata keys altered by sealed changes, with repeats
}

// NewDraft starts from base, which is not written to. newID is the UUID that the
// cart gets if it does not exist and a change makes it.
func NewDraft(base *Cart, limits Limits, newID string) *Draft {
	return &Draft{base: base, sealed: *base, cart: *base, limits: limits, newID: newID}
}

// Cart is a snapshot of the draft as of the last Seal or Rollback; it is never
// written to afterwards.
func (d *Draft) Cart() *Cart {
	c := d.sealed
	return &c
}

// Base is the cart that the draft started from.
func (d *Draft) Base() *Cart { return d.base }

// Seal ends one change: if anything was altered, the version rises by one and
// the altered parts get it. It reports whether anything was.
//
// Altered is what differs from the last Seal: a value that was changed and
// changed back is not.
func (d *Draft) Seal() bool {
	v := d.sealed.Version + 1
	items := d.cart.Items.seal(&d.sealed.Items, v)
	conditions := d.cart.Conditions.seal(&d.sealed.Conditions, v)
	metadata := d.sealMetadata(v)
	if !items && !conditions && !metadata && bytes.Equal(d.cart.Received, d.sealed.Received) {
		d.Rollback()
		return false
	}
	if !d.cart.Exists() {
		d.cart.ID = d.newID
	}
	d.cart.Version = v
	d.sealed = d.cart
	d.own, d.touched = false, d.touched[:0]
	return true
}

func (doc *Document) seal(old *Document, version uint64) bool {
	if doc.Object.Equal(old.Object) {
		*doc = *old
		return false
	}
	doc.Version = version
	return true
}

// sealMetadata gives the altered keys their version. It goes by sorted keys, as
// a backend that stores them does, so that both drop the same tombstones.
func (d *Draft) sealMetadata(version uint64) bool {
	slices.Sort(d.touched)
	d.touched = slices.DeleteFunc(slices.Compact(d.touched), func(key string) bool {
		was, _ := d.sealed.MetadataValue(key)
		is, _ := d.cart.MetadataValue(key)
		return bytes.Equal(was, is)
	})
	if len(d.touched) == 0 {
		d.cart.Metadata = d.sealed.Metadata
		return false
	}
	ownRemoved := false
	for _, key := range d.touched {
		i := d.entry(key)
		removed := d.cart.Metadata[i].Value == nil
		_, buried := d.cart.Removed[key]
		if !ownRemoved && (removed || buried) {
			d.cart.Removed, ownRemoved = maps.Clone(d.cart.Removed), true
		}
		switch {
		case removed:
			d.cart.bury(key, version)
			continue
		case buried:
			delete(d.cart.Removed, key)
		}
		d.cart.Metadata[i].Version = version
	}
	d.cart.Metadata = slices.DeleteFunc(d.cart.Metadata, func(e Entry) bool { return e.Value == nil })
	d.wrote = append(d.wrote, d.touched...)
	return true
}

// Rollback gives up what was altered since the last Seal.
func (d *Draft) Rollback() {
	d.cart = d.sealed
	d.own, d.touched = false, d.touched[:0]
}

// Written are the parts altered by sealed changes since NewDraft, in a stable
// order: "items", "conditions", then metadata keys sorted; without any whose value
// and version are again those of the base. Value and version to store are those of Cart.
//
// [PartReceived] comes last, where a [Receive] set it.
func (d *Draft) Written() []Part {
	var parts []Part
	if differ(&d.base.Items, &d.sealed.Items) {
		parts = append(parts, PartItems)
	}
	if differ(&d.base.Conditions, &d.sealed.Conditions) {
		parts = append(parts, PartConditions)
	}
	slices.Sort(d.wrote)
	d.wrote = slices.Compact(d.wrote)
	for _, key := range d.wrote {
		was, since := d.base.MetadataValue(key)
		is, version := d.sealed.MetadataValue(key)
		if since != version || !bytes.Equal(was, is) {
			parts = append(parts, PartMetadata(key))
		}
	}
	if !bytes.Equal(d.base.Received, d.sealed.Received) {
		parts = append(parts, PartReceived)
	}
	return parts
}

func differ(a, b *Document) bool { return a.Version != b.Version || !a.Object.Equal(b.Object) }

// setItems replaces the items. What is over a limit is refused only where it
// grows: after a limit was lowered, a cart may still be emptied step by step.
func (d *Draft) setItems(o Object) error {
	old := d.cart.Items.Object
	if n := o.Len(); n > d.limits.MaxItems && n > old.Len() {
		return tooManyItems("items", n, d.limits)
	}
	if err := d.fits("items", o.size(), old.size()); err != nil {
		return err
	}
	d.cart.Items.Object = o
	return nil
}

func (d *Draft) setConditions(o Object) error {
	if err := d.fits("conditions", o.size(), d.cart.Conditions.Object.size()); err != nil {
		return err
	}
	d.cart.Conditions.Object = o
	return nil
}

// setMetadata sets a key, or removes it where value is nil. Until Seal a removed
// key stays in the list without a value: set again, it keeps its place, as it
// does in the backend, which never sees the removal.
func (d *Draft) setMetadata(key string, value []byte) error {
	old, _ := d.cart.MetadataValue(key)
	if bytes.Equal(old, value) {
		return nil
	}
	if value != nil {
		if err := d.fits(metadataField(key), len(value), len(old)); err != nil {
			return err
		}
		if n := len(d.metadataKeys()) + 1; old == nil && n > d.limits.maxMetadata() {
			return TooLargef("metadata", int64(d.limits.maxMetadata()), int64(n), "has %d keys, at most %d are allowed", n, d.limits.maxMetadata())
		}
	}
	if !d.own {
		d.cart.Metadata, d.own = slices.Clone(d.cart.Metadata), true
	}
	if i := d.entry(key); i >= 0 {
		d.cart.Metadata[i].Value = value
	} else {
		d.cart.Metadata = append(d.cart.Metadata, Entry{Key: key, Value: value})
	}
	d.touched = append(d.touched, key)
	return nil
}

func (d *Draft) fits(field string, size, old int) error {
	if size > d.limits.MaxDocumentBytes && size > old {
		return tooManyBytes(field, size, d.limits.MaxDocumentBytes)
	}
	return nil
}

// entry is the index of a key in the metadata, also of one removed since the last Seal.
func (d *Draft) entry(key string) int {
	return slices.IndexFunc(d.cart.Metadata, func(e Entry) bool { return e.Key == key })
}

func metadataField(key string) string { return "metadata" + keySegment(key) }
