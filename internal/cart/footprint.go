package cart

import "unsafe"

// Footprint estimates how many bytes of memory the cart takes with all that it keeps alive, rather too many than too
// few. The estimate grows when a document is parsed or written: ask again then.
func (c *Cart) Footprint() int {
	n := int(unsafe.Sizeof(*c)) + allocated(len(c.ID)) + allocated(cap(c.Transfer)) + allocated(cap(c.Received)) + allocated(cap(c.Ledger.Value))
	n += c.Items.Object.footprint() + c.Conditions.Object.footprint()
	n += allocated(cap(c.Metadata) * int(unsafe.Sizeof(Entry{})))
	for i := range c.Metadata {
		n += allocated(len(c.Metadata[i].Key)) + allocated(cap(c.Metadata[i].Value))
	}
	if len(c.Removed) > 0 {
		const header, slot = 48, 16 + 8 + 1
		slots := 8 // of the smallest Go map; a larger one is a half to seven eighths full
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
		n += allocated(o.o.size) // it is written before long: to be stored, or to be answered
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

// allocated is the size of an allocation of n bytes: Go rounds up to classes that are up to an eighth apart.
func allocated(n int) int {
	switch {
	case n == 0:
		return 0
	case n <= 16:
		return (n + 7) &^ 7
	case n > 32<<10:
		return (n + 8191) &^ 8191 // pages
	}
	return (n + n/16 + 15) &^ 15
}

// spare is how much more memory than its members an object may keep alive before it is written anew.
const spare = 1024

// own returns a copy of o with memory of its own, if its members keep much more alive than their size: the texts of
// other objects that they were cut out of.
func (o Object) own() Object {
	if o.o == nil || o.o.held <= 2*o.o.size+spare {
		return o
	}
	return o.rewritten()
}

// rewritten returns o as a text of its own. Its members are made when somebody asks for them.
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

// exact returns text in a buffer that is not much larger, so that a text read with much white space does not keep the
// larger buffer.
func exact(text []byte) []byte {
	if cap(text)-len(text) > len(text)/8+64 {
		return append(make([]byte, 0, len(text)), text...)
	}
	return text
}
