package cart

import "unsafe"

// Footprint estimates how many bytes of memory the cart keeps alive. It errs on the high side. The estimate grows when
// a document is parsed or written, so ask again after that.
func (c *Cart) Footprint() int {
	n := int(unsafe.Sizeof(*c)) + allocated(len(c.ID)) + allocated(cap(c.Transfer)) + allocated(cap(c.Received)) + allocated(cap(c.Ledger.Value))
	n += c.Items.Object.footprint() + c.Conditions.Object.footprint()
	n += allocated(cap(c.Metadata) * int(unsafe.Sizeof(Entry{})))
	for i := range c.Metadata {
		n += allocated(len(c.Metadata[i].Key)) + allocated(cap(c.Metadata[i].Value))
	}
	if len(c.Removed) > 0 {
		const header, slot = 48, 16 + 8 + 1
		slots := 8 // in the smallest Go map; a larger map is a half to seven eighths full
		if len(c.Removed) > slots {
			slots = 2 * len(c.Removed)
		}
		n += header + slots*slot
		for key := range c.Removed {
			n += allocated(len(key))
		}
	}
	return n
}

func (o Object) footprint() int {
	if o.o == nil {
		return 0
	}
	n := int(unsafe.Sizeof(*o.o))
	if o.o.written.Load() {
		n += allocated(cap(o.o.raw))
	} else {
		n += allocated(o.o.size) // its text will be made soon, to be stored or sent
	}
	if o.o.parted.Load() {
		n += allocated(cap(o.o.members)*int(unsafe.Sizeof(Member{}))) + o.o.keys() + o.o.held
	}
	return n
}

// keys is the length of all keys.
func (o *object) keys() (n int) {
	for i := range o.members {
		n += len(o.members[i].Key)
	}
	return n
}

// allocated is the size of an allocation of n bytes. Go rounds up to size classes, which are up to an eighth apart. It
// puts small values into blocks of 16 bytes, and a block lives as long as one of its values.
func allocated(n int) int {
	switch {
	case n == 0:
		return 0
	case n <= 16:
		return 16
	case n > 32<<10:
		return (n + 8191) &^ 8191 // pages
	}
	return (n + n/16 + 15) &^ 15
}

// spare is how much memory beyond its members an object may keep alive before it is rewritten.
const spare = 1024

// own returns o, or a rewritten copy if its members keep much more memory alive than their size. They do so when they
// are slices of the texts of other objects.
func (o Object) own() Object {
	if o.o == nil || o.o.held <= 2*o.o.size+spare {
		return o
	}
	return o.rewritten()
}

// rewritten returns a copy of o with its own text. The members of the copy are made when they are first used.
func (o Object) rewritten() Object {
	if o.o == nil {
		return o
	}
	fresh := &object{size: o.o.size, raw: appendObject(make([]byte, 0, o.o.size), o.o.members)}
	fresh.written.Store(true)
	return Object{fresh}
}

// alive is how much memory the values of an object's members keep alive.
func (o *object) alive() int {
	n := o.held
	if o.cut {
		n += cap(o.raw)
	}
	return n
}

// exact returns text in a buffer that is not much larger. So a text that was sent with much white space does not keep
// the larger buffer alive.
func exact(text []byte) []byte {
	if cap(text)-len(text) > len(text)/8+64 {
		return append(make([]byte, 0, len(text)), text...)
	}
	return text
}
