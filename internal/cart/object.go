package cart

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"sync"
	"sync/atomic"
)

// Object is an immutable JSON object. It keeps the order of its keys and the text of its values: numbers, unknown
// members and nested documents stay as they were written, in compact form. The zero value is {}.
type Object struct{ o *object }

// object has its text, its members or both. It makes one from the other on first use, because many carts are read and
// never changed, and many drafts are changed again before they are read.
type object struct {
	size    int // length of the text
	mu      sync.Mutex
	written atomic.Bool // raw is there
	parted  atomic.Bool // members are there
	raw     []byte
	members []Member
	// cut says that members are slices of raw. held is the size of other memory that they keep alive.
	cut  bool
	held int
}

// Member is one member of an [Object].
type Member struct {
	Key string
	// Value is compact JSON.
	Value []byte
}

// ParseObject reads a JSON object strictly: valid UTF-8, no duplicate keys at any depth, at most [MaxDepth] levels,
// nothing after it. An empty array is read as an empty object, since PHP writes it so. Errors are [*InvalidError] with
// the path below field.
func ParseObject(field string, raw []byte) (Object, error) {
	return parseObject(field, raw, "an object", rules{maxBytes: math.MaxInt})
}

// parseObject is ParseObject with rules. Errors say that the text must be what.
func parseObject(field string, raw []byte, what string, r rules) (Object, error) {
	if blank(raw) {
		return Object{}, Invalidf(field, "is required: %s", what)
	}
	text, err := read(field, raw, r)
	if err != nil {
		return Object{}, err
	}
	switch {
	case string(text) == "[]":
		return Object{}, nil
	case text[0] != '{':
		return Object{}, Invalidf(field, "must be %s, not %s", what, describe(text))
	}
	members, escaped := split(text)
	if escaped {
		return newObject(members), nil
	}
	o := &object{size: len(text), raw: text, members: members, cut: true}
	o.written.Store(true)
	o.parted.Store(true)
	return Object{o}, nil
}

// MaxDepth is how deeply a document may be nested.
const MaxDepth = 64

// ParseValue reads any JSON value as strictly as [ParseObject] and returns it in compact form. null is returned as nil.
func ParseValue(field string, raw []byte) ([]byte, error) {
	return parseValue(field, raw, math.MaxInt)
}

func parseValue(field string, raw []byte, maxBytes int) ([]byte, error) {
	if blank(raw) {
		return nil, Invalidf(field, "is required: any JSON value, null for none")
	}
	text, err := read(field, raw, rules{maxBytes: maxBytes})
	if err != nil || string(text) == "null" {
		return nil, err
	}
	return text, nil
}

func blank(raw []byte) bool { return len(bytes.TrimLeft(raw, " \t\r\n")) == 0 }

var errDamaged = errors.New("stored document is no JSON object")

// TrustedObject reads what this package wrote earlier, as a backend stores it. The error means that the stored bytes
// are damaged.
func TrustedObject(raw []byte) (Object, error) {
	text, err := trusted(raw)
	if err != nil || text[0] != '{' {
		return Object{}, errDamaged
	}
	o := &object{size: len(text), raw: text}
	o.written.Store(true)
	return Object{o}, nil
}

// trusted copies stored JSON, and compacts it if necessary: somebody may have written it into the backend by hand.
func trusted(raw []byte) ([]byte, error) {
	if isCompact(raw) {
		return bytes.Clone(raw), nil
	}
	var buf bytes.Buffer
	buf.Grow(len(raw))
	if err := json.Compact(&buf, raw); err != nil {
		return nil, err
	}
	return exact(buf.Bytes()), nil
}

// newObject takes ownership of members. Their keys must differ, and their values must not be slices of larger texts.
func newObject(members []Member) Object {
	if len(members) == 0 {
		return Object{}
	}
	held := 0
	for i := range members {
		held += allocated(cap(members[i].Value))
	}
	return madeOf(members, objectSize(members), held)
}

// objectSize is the length of the text of an object with these members.
func objectSize(members []Member) int {
	size := 1
	for i := range members {
		size += memberLen(members[i].Key, members[i].Value)
	}
	return max(size, len(emptyObject))
}

func madeOf(members []Member, size, held int) Object {
	o := &object{size: size, members: members, held: held}
	o.parted.Store(true)
	return Object{o}
}

// memberLen is what a member adds to the size: the key, a colon, the value, and a comma or the closing brace.
func memberLen(key string, value []byte) int { return keyLen(key) + len(value) + 2 }

func (o *object) parts() []Member {
	if !o.parted.Load() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.parted.Load() {
			o.members, _ = split(o.raw)
			o.cut = true
			o.parted.Store(true)
		}
	}
	return o.members
}

func (o *object) text() []byte {
	if !o.written.Load() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.written.Load() {
			o.raw = appendObject(make([]byte, 0, o.size), o.members)
			o.written.Store(true)
		}
	}
	return o.raw
}

func appendObject(dst []byte, members []Member) []byte {
	dst = append(dst, '{')
	for i := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(appendKey(dst, members[i].Key), ':'), members[i].Value...)
	}
	return append(dst, '}')
}

var emptyObject = []byte("{}")

// Len is the number of members.
func (o Object) Len() int { return len(o.Members()) }

// Bytes is the object as compact JSON, never nil. Do not write to it.
func (o Object) Bytes() []byte {
	if o.o == nil {
		return emptyObject
	}
	return o.o.text()
}

// Members are the members in order. Do not write to them.
func (o Object) Members() []Member {
	if o.o == nil {
		return nil
	}
	return o.o.parts()
}

// Get is the value of a key, as compact JSON.
func (o Object) Get(key string) ([]byte, bool) {
	members := o.Members()
	if i := find(members, key); i >= 0 {
		return members[i].Value, true
	}
	return nil, false
}

// find is a scan. An index would have to be made anew for each change, and a scan of a thousand keys takes a
// microsecond.
func find(members []Member, key string) int {
	for i := range members {
		if members[i].Key == key {
			return i
		}
	}
	return -1
}

// With returns o with key set: in its old place, or at the end if it is new.
func (o Object) With(key string, value []byte) Object {
	old := o.Members()
	members := make([]Member, len(old), len(old)+1)
	copy(members, old)
	held := o.alive() + allocated(cap(value))
	if i := find(members, key); i >= 0 {
		size := o.size() + len(value) - len(members[i].Value)
		members[i].Value = value
		return madeOf(members, size, held).own()
	}
	size := o.size() + memberLen(key, value)
	if len(old) == 0 {
		size--
	}
	return madeOf(append(members, Member{key, value}), size, held).own()
}

// Without returns o without key.
func (o Object) Without(key string) Object {
	old := o.Members()
	i := find(old, key)
	switch {
	case i < 0:
		return o
	case len(old) == 1:
		return Object{}
	}
	members := make([]Member, len(old)-1)
	copy(members, old[:i])
	copy(members[i:], old[i+1:])
	return madeOf(members, o.size()-memberLen(key, old[i].Value), o.alive()).own()
}

// Equal reports whether both have the same text.
func (o Object) Equal(p Object) bool {
	switch {
	case o.o == p.o:
		return true
	case o.size() != p.size():
		return false
	case o.o == nil || p.o == nil:
		return true // of size 2, so both are {}
	case o.o.written.Load() && p.o.written.Load():
		return bytes.Equal(o.o.raw, p.o.raw)
	}
	a, b := o.o.parts(), p.o.parts()
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key || !bytes.Equal(a[i].Value, b[i].Value) {
			return false
		}
	}
	return true
}

// alive is how much memory its members keep alive.
func (o Object) alive() int {
	if o.o == nil {
		return 0
	}
	return o.o.alive()
}

// size is the length of the text.
func (o Object) size() int {
	if o.o == nil {
		return len(emptyObject)
	}
	return o.o.size
}
