package cart

import (
	"bytes"
	"maps"
	"slices"
)

// Verb is one change of a cart. A verb is pure and may be applied several times, to several states, before one of them
// is committed.
type Verb interface {
	// Parts returns the parts that the verb may change, given the cart as it is. Other holders must have no lock over
	// them. [PartAll] stands alone.
	Parts(c *Cart) []Part
	// Apply makes the change on d. An error leaves d in an undefined state. The error matches one of the sentinels of
	// this package.
	Apply(d *Draft) error
}

// Draft is a cart that is being changed. Several changes may be made on one draft, one after the other, each by
// [Draft.Change]. They become one commit with an answer for each. A Draft is for one goroutine.
type Draft struct {
	base   *Cart
	sealed Cart // as of the last Seal or Rollback; nothing it refers to is written to
	cart   Cart // the cart with the changes made since
	limits Limits
	newID  string
	capped []string // see Capped
	opened []*openItem

	// The metadata of cart begins with the keys of sealed, at the same positions, so that one index serves both. A
	// removed key stays in it without a value until Seal.
	own     bool           // cart.Metadata is not shared with sealed
	keys    int            // those with a value
	index   map[string]int // of cart.Metadata, made after some lookups
	lookups int
	log     metadataLog
}

// NewDraft starts from base, which is not written to. If the cart does not exist and a change creates it, newID becomes
// its UUID.
func NewDraft(base *Cart, limits Limits, newID string) *Draft {
	return &Draft{base: base, sealed: *base, cart: *base, limits: limits, newID: newID, keys: len(base.Metadata)}
}

// Cart is a snapshot of the draft as of the last Seal or Rollback; it is never written to afterwards.
func (d *Draft) Cart() *Cart {
	c := d.sealed
	return &c
}

// Base is the cart that the draft started from.
func (d *Draft) Base() *Cart { return d.base }

// Capped returns the ids of the items whose quantity the last change capped at the limit, because a merge came to more.
// They are in the order of the items.
func (d *Draft) Capped() []string { return d.capped }

// Change makes one change of the draft and reports whether it altered anything. The cart must then be within the limit
// on whole carts, or no larger than before: a cart that is too large already may shrink. An error undoes the change.
func (d *Draft) Change(v Verb) (changed bool, err error) {
	d.capped = nil
	err = v.Apply(d)
	d.closeItems()
	if size := d.cart.Size(); err == nil && size > d.limits.MaxCartBytes && size > d.sizeBefore(v) {
		err = TooLargef("cart", int64(d.limits.MaxCartBytes), int64(size),
			"would be %d bytes with all of its documents, at most %d are allowed", size, d.limits.MaxCartBytes)
	}
	if err != nil {
		d.Rollback()
		return false, err
	}
	return d.Seal(), nil
}

// sizeBefore is the size of the largest cart that a change works on. A merge works on its source too.
func (d *Draft) sizeBefore(v Verb) int {
	before := d.sealed.Size()
	if r, ok := v.(Receive); ok {
		before = max(before, r.From.Size())
	}
	return before
}

// Altered returns the parts that the last change altered: items, conditions, then metadata keys. Call it only if the
// change altered any.
func (d *Draft) Altered() (parts []Part) {
	v := d.sealed.Version
	if d.sealed.Items.Version == v {
		parts = append(parts, PartItems)
	}
	if d.sealed.Conditions.Version == v {
		parts = append(parts, PartConditions)
	}
	for i := range d.log.events {
		if e := &d.log.events[i]; e.Version == v {
			parts = append(parts, PartMetadata(e.Key))
		}
	}
	return parts
}

// Seal ends one change: if anything was altered, the version rises by one and the altered parts get it. It reports
// whether anything was.
//
// A part is altered if it differs from the last Seal. A value that was changed and changed back is not altered.
func (d *Draft) Seal() bool {
	d.closeItems()
	v := d.sealed.Version + 1
	items := d.cart.Items.seal(&d.sealed.Items, v)
	conditions := d.cart.Conditions.seal(&d.sealed.Conditions, v)
	metadata := d.sealMetadata(v)
	if !items && !conditions && !metadata && bytes.Equal(d.cart.Received, d.sealed.Received) {
		ledger := d.cart.Ledger // a settlement is noted even if it finds nothing to take
		d.Rollback()
		d.sealed.Ledger, d.cart.Ledger = ledger, ledger
		return false
	}
	if !d.cart.Exists() {
		d.cart.ID = d.newID
	}
	d.cart.Version = v
	d.sealed = d.cart
	d.fresh()
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

// sealMetadata gives the altered keys their version: first the keys that are set, in their order, then the removed
// keys, by name.
func (d *Draft) sealMetadata(version uint64) bool {
	if !d.own {
		return false
	}
	var removed []string
	altered, ownRemoved := false, false
	for i := range d.cart.Metadata {
		e := &d.cart.Metadata[i]
		var was []byte
		if i < len(d.sealed.Metadata) {
			was = d.sealed.Metadata[i].Value
		}
		switch {
		case bytes.Equal(was, e.Value):
			continue
		case e.Value == nil:
			removed = append(removed, e.Key)
		default:
			e.Version = version
			_, buried := d.cart.Removed[e.Key]
			if buried {
				if !ownRemoved {
					d.cart.Removed, ownRemoved = maps.Clone(d.cart.Removed), true
				}
				delete(d.cart.Removed, e.Key)
			}
			d.log.set(e, buried)
		}
		altered = true
	}
	if !altered {
		d.cart.Metadata = d.sealed.Metadata
		return false
	}
	if len(removed) > 0 && !ownRemoved {
		d.cart.Removed = maps.Clone(d.cart.Removed)
	}
	slices.Sort(removed)
	for _, key := range removed {
		d.cart.bury(key, version)
		d.log.remove(key, version)
	}
	d.cart.Metadata = slices.DeleteFunc(d.cart.Metadata, func(e Entry) bool { return e.Value == nil })
	return true
}

// Remember is [Cart.Remember] on the sealed cart, which must exist. It may be called once in the life of a draft.
func (d *Draft) Remember(list []Request) error {
	err := d.sealed.Remember(list)
	d.cart.Ledger = d.sealed.Ledger
	return err
}

// SetCheckouts is [Cart.SetCheckouts] on the sealed cart, which must exist.
func (d *Draft) SetCheckouts(list []CheckoutEntry) error {
	err := d.sealed.SetCheckouts(list)
	d.cart.Ledger = d.sealed.Ledger
	return err
}

// Rollback undoes everything since the last Seal.
func (d *Draft) Rollback() {
	d.cart = d.sealed
	d.fresh()
}

// fresh begins a change, once cart equals sealed.
func (d *Draft) fresh() {
	clear(d.opened)
	d.opened = d.opened[:0]
	if d.own {
		d.own, d.index, d.lookups = false, nil, 0
	}
	d.keys = len(d.cart.Metadata)
}

// Written returns the parts altered by sealed changes since NewDraft, in the order in which a backend must store them:
// "items", "conditions", then metadata keys. A key that was removed and set again appears twice: it moves to the end,
// and its removal may drop other tombstones.
//
// [PartReceived] follows if a [Receive] set it, then [PartLedger] if the ledger was written.
func (d *Draft) Written() []Written {
	var parts []Written
	if differ(&d.base.Items, &d.sealed.Items) {
		parts = append(parts, Written{PartItems, d.sealed.Items.Object.Bytes(), d.sealed.Items.Version})
	}
	if differ(&d.base.Conditions, &d.sealed.Conditions) {
		parts = append(parts, Written{PartConditions, d.sealed.Conditions.Object.Bytes(), d.sealed.Conditions.Version})
	}
	for _, e := range d.log.events {
		if !e.dropped {
			parts = append(parts, Written{PartMetadata(e.Key), e.Value, e.Version})
		}
	}
	if !bytes.Equal(d.base.Received, d.sealed.Received) {
		parts = append(parts, Written{Part: PartReceived, Value: d.sealed.Received})
	}
	if r := d.sealed.Ledger; r.Version != d.base.Ledger.Version {
		parts = append(parts, Written{PartLedger, r.Value, r.Version})
	}
	return parts
}

func differ(a, b *Document) bool { return a.Version != b.Version || !a.Object.Equal(b.Object) }

// metadataLog records what sealed changes did to metadata keys. A backend that stores its events one after the other
// ends with the same order of keys and the same tombstones as the draft.
type metadataLog struct {
	events []metadataEvent
	last   map[string]int // index of the last event of a key
}

// metadataEvent sets a key, or removes it if it has no value.
type metadataEvent struct {
	Entry
	buried  bool // it removed a tombstone
	dropped bool // a later event replaces it
}

// set notes that a key is set. A key that is set already keeps its place.
func (l *metadataLog) set(e *Entry, buried bool) {
	if i, ok := l.last[e.Key]; ok && l.events[i].Value != nil {
		l.events[i].Entry = *e
		return
	}
	l.add(metadataEvent{Entry: *e, buried: buried})
}

func (l *metadataLog) remove(key string, version uint64) {
	if i, ok := l.last[key]; ok && l.events[i].Value != nil && !l.events[i].buried {
		l.events[i].dropped = true
	}
	l.add(metadataEvent{Entry: Entry{Key: key, Version: version}})
}

func (l *metadataLog) add(e metadataEvent) {
	if l.last == nil {
		l.last = make(map[string]int)
	}
	l.last[e.Key] = len(l.events)
	l.events = append(l.events, e)
}

// setItems replaces the items. It refuses items over a limit only if they grow, so that a cart can still be emptied
// step by step after a limit was lowered.
func (d *Draft) setItems(o Object) error { return d.moveItems(o, Object{}) }

// moveItems is setItems for items that come from another cart. They may be as many and as large as in that cart, even
// over a limit.
func (d *Draft) moveItems(o, from Object) error {
	d.closeItems()
	old := d.cart.Items.Object
	if n := o.Len(); n > d.limits.MaxItems && n > max(old.Len(), from.Len()) {
		return tooManyItems("items", n, d.limits)
	}
	if err := d.fits("items", o.size(), max(old.size(), from.size())); err != nil {
		return err
	}
	d.cart.Items.Object = o
	return nil
}

func (d *Draft) setConditions(o Object) error { return d.moveConditions(o, Object{}) }

func (d *Draft) moveConditions(o, from Object) error {
	if err := d.fits("conditions", o.size(), max(d.cart.Conditions.Object.size(), from.size())); err != nil {
		return err
	}
	d.cart.Conditions.Object = o
	return nil
}

// setMetadata sets a key, or removes it if value is nil. Until Seal a removed key stays in the list without a value. If
// it is set again before Seal, it keeps its place. It does so in the backend too, which never sees the removal.
func (d *Draft) setMetadata(key string, value []byte) error {
	old := d.metadataValue(key)
	if value != nil {
		if err := d.fits(metadataField(key), len(value), len(old)); err != nil {
			return err
		}
		if n := d.keys + 1; old == nil && n > d.limits.MaxMetadataKeys {
			return tooManyKeys("metadata", n, d.limits)
		}
	}
	d.writeMetadata(key, value)
	return nil
}

// writeMetadata is setMetadata without limits.
func (d *Draft) writeMetadata(key string, value []byte) {
	at := d.entry(key)
	var old []byte
	if at >= 0 {
		old = d.cart.Metadata[at].Value
	}
	if bytes.Equal(old, value) {
		return
	}
	if !d.own {
		d.cart.Metadata, d.own = slices.Clone(d.cart.Metadata), true
	}
	switch {
	case old == nil:
		d.keys++
	case value == nil:
		d.keys--
	}
	if at >= 0 {
		d.cart.Metadata[at].Value = value
		return
	}
	if d.index != nil {
		d.index[key] = len(d.cart.Metadata)
	}
	d.cart.Metadata = append(d.cart.Metadata, Entry{Key: key, Value: value})
}

func (d *Draft) fits(field string, size, old int) error {
	if size > d.limits.MaxDocumentBytes && size > old {
		return tooManyBytes(field, size, d.limits.MaxDocumentBytes)
	}
	return nil
}

// metadataValue is the current value of a key, nil if it is not set.
func (d *Draft) metadataValue(key string) []byte {
	if at := d.entry(key); at >= 0 {
		return d.cart.Metadata[at].Value
	}
	return nil
}

// entry returns the index of a key in the metadata, or -1. It also finds a key removed since the last Seal. The first
// lookups are scans: a few scans cost less than an index.
func (d *Draft) entry(key string) int {
	if d.lookups++; d.index == nil && d.lookups > fewKeys {
		d.index = indexOf(d.cart.Metadata)
	}
	if d.index == nil {
		return slices.IndexFunc(d.cart.Metadata, func(e Entry) bool { return e.Key == key })
	}
	if at, ok := d.index[key]; ok {
		return at
	}
	return -1
}

func metadataField(key string) string { return "metadata" + keySegment(key) }
