package cart

import "slices"

// openItem is an item of the draft that is being changed. A batch may change one item a thousand times, and the item
// may be as large as a document. So it is parsed once, and written once when the items are needed as a whole.
type openItem struct {
	id      string
	members []Member // not shared
	size    int      // of its text, once it is written
	was     int      // size of its text in the items
}

// open parses an item; it returns nil if the cart has no such item.
func (d *Draft) open(id string) *openItem {
	for _, o := range d.opened {
		if o.id == id {
			return o
		}
	}
	text, ok := d.cart.Items.Object.Get(id)
	if !ok {
		return nil
	}
	members, _ := split(text)
	o := &openItem{id: id, members: members, size: objectSize(members), was: len(text)}
	d.opened = append(d.opened, o)
	return o
}

// overlay sets members. Their keys must differ.
func (o *openItem) overlay(over []Member) {
	if len(over) > fewKeys {
		o.members = overlay(o.members, over)
		o.size = objectSize(o.members)
		return
	}
	for _, m := range over {
		o.set(m.Key, m.Value)
	}
}

// set sets a member: in its old place, or at the end if it is new.
func (o *openItem) set(key string, value []byte) {
	if i := find(o.members, key); i >= 0 {
		o.size += len(value) - len(o.members[i].Value)
		o.members[i].Value = value
		return
	}
	if len(o.members) == 0 {
		o.size = 1
	}
	o.members = append(o.members, Member{key, value})
	o.size += memberLen(key, value)
}

// itemsSize is the size of the items, with the open ones as they are now.
func (d *Draft) itemsSize() int {
	size := d.cart.Items.Object.size()
	for _, o := range d.opened {
		size += o.size - o.was
	}
	return size
}

// fitsItem checks the items against the limit after an open one was changed. before is its size before that change.
func (d *Draft) fitsItem(o *openItem, before int) error {
	size := d.itemsSize()
	return d.fits("items", size, size-o.size+before)
}

// addItem appends a new item.
func (d *Draft) addItem(id string, text []byte) error {
	old := d.cart.Items.Object
	with := old.With(id, text)
	if n := with.Len(); n > d.limits.MaxItems {
		return tooManyItems("items", n, d.limits)
	}
	size := d.itemsSize()
	if err := d.fits("items", size+with.size()-old.size(), size); err != nil {
		return err
	}
	d.cart.Items.Object = with
	return nil
}

func (d *Draft) removeItem(id string) error {
	d.opened = slices.DeleteFunc(d.opened, func(o *openItem) bool { return o.id == id })
	d.cart.Items.Object = d.cart.Items.Object.Without(id)
	return nil
}

// closeItems writes the open items back. It must be called before the items are used as a whole.
func (d *Draft) closeItems() {
	switch items := d.cart.Items.Object; len(d.opened) {
	case 0:
		return
	case 1:
		d.cart.Items.Object = items.With(d.opened[0].id, d.opened[0].text())
	default:
		changed := make(map[string][]byte, len(d.opened))
		for _, o := range d.opened {
			changed[o.id] = o.text()
		}
		members, held := slices.Clone(items.Members()), items.alive()
		for i := range members {
			if text, ok := changed[members[i].Key]; ok {
				members[i].Value = text
				held += allocated(cap(text))
			}
		}
		d.cart.Items.Object = madeOf(members, d.itemsSize(), held).own()
	}
	d.opened = d.opened[:0]
}

func (o *openItem) text() []byte {
	return appendObject(make([]byte, 0, o.size), o.members)
}

// overlay returns base with the members of over set, whose keys must differ. It changes neither, and leaves room for
// one more member. If both are large it uses an index, because a scan for each member would cost too much.
func overlay(base, over []Member) []Member {
	out := make([]Member, len(base), len(base)+len(over)+1)
	copy(out, base)
	find := func(key string) int { return find(base, key) }
	if len(base) > fewKeys && len(over) > fewKeys {
		index := make(map[string]int, len(base))
		for i := range base {
			index[base[i].Key] = i
		}
		find = func(key string) int {
			if i, ok := index[key]; ok {
				return i
			}
			return -1
		}
	}
	for _, m := range over { // whose keys are different
		if i := find(m.Key); i >= 0 {
			out[i].Value = m.Value
		} else {
			out = append(out, m)
		}
	}
	return out
}

// set sets one member and writes to members.
func set(members []Member, key string, value []byte) []Member {
	if i := find(members, key); i >= 0 {
		members[i].Value = value
		return members
	}
	return append(members, Member{key, value})
}
