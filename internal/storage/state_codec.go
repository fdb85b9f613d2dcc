package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/varint"
)

// A state as one value is the number of its format, then its fields in a fixed order. A whole number is a varint. Text
// is its length and its bytes. The documents come last, as they were written, so a change of a lock only copies them.
//
//	format 1: cart, held, queue, lost, fence, items, conditions
const stateFormat = 1

// Bits of the flags byte of a hold or a waiter.
const (
	flagLeased      = 1 << 0
	flagUnconfirmed = 1 << 1
)

// EncodeState returns the state as one value. items and conditions are the documents' text; those in s.Cart are
// ignored.
func EncodeState(s *State, items, conditions []byte) []byte {
	e := encoder{buf: make([]byte, 0, 256+len(items)+len(conditions))}
	e.buf = append(e.buf, stateFormat)
	e.cart(&s.Cart)
	e.uint(uint64(len(s.Held)))
	for i := range s.Held {
		h := &s.Held[i]
		e.hold(h.Token, h.Holder, h.Parts, flag(h.Leased, flagLeased)|flag(h.Unconfirmed, flagUnconfirmed))
		e.time(h.Expires)
		e.uint(h.Fence)
		e.int(h.DurationMillis)
	}
	e.uint(uint64(len(s.Queue)))
	for i := range s.Queue {
		w := &s.Queue[i]
		e.hold(w.Token, w.Holder, w.Parts, flag(w.Claim.Leased, flagLeased))
		e.int(int64(w.Duration))
		e.time(w.Alive)
	}
	e.uint(uint64(len(s.Lost)))
	for i := range s.Lost {
		e.text(s.Lost[i].Token)
		e.millis(s.Lost[i].Expired)
	}
	e.uint(s.Fence)
	e.bytes(items)
	e.bytes(conditions)
	return e.buf
}

// DecodeState reads what [EncodeState] wrote. The cart in s has the versions of its documents but not their text, which
// is returned beside it, is a part of value, and has not been parsed. No value at all is the zero state.
//
// A format that this release does not know gives an ErrUnsupported that names it. Anything else that is not a state
// gives an ErrCorrupt.
func DecodeState(value []byte) (s State, items, conditions []byte, err error) {
	if len(value) == 0 {
		return State{}, nil, nil, nil
	}
	if value[0] != stateFormat {
		return State{}, nil, nil, fmt.Errorf("%w: the stored cart has format %d, which another release wrote: this one reads format %d",
			ErrUnsupported, value[0], stateFormat)
	}
	d := decoder{varint.NewReader(value[1:])}
	d.cart(&s.Cart)
	for range d.count() {
		var h Hold
		var flags byte
		h.Token, h.Holder, h.Parts, flags = d.hold()
		h.Leased, h.Unconfirmed = flags&flagLeased != 0, flags&flagUnconfirmed != 0
		h.Expires, h.Fence, h.DurationMillis = d.time(), d.Uint(), d.Int()
		s.Held = append(s.Held, h)
	}
	for range d.count() {
		var w Waiter
		var flags byte
		w.Token, w.Holder, w.Parts, flags = d.hold()
		w.Claim.Leased = flags&flagLeased != 0
		w.Duration, w.Alive = time.Duration(d.Int()), d.time()
		s.Queue = append(s.Queue, w)
	}
	for range d.count() {
		s.Lost = append(s.Lost, Lost{d.Text(), d.millis()})
	}
	s.Fence = d.Uint()
	items, conditions = d.bytes(), d.bytes()
	if d.Len() > 0 || d.Failed() {
		return State{}, nil, nil, fmt.Errorf("%w: %w", ErrCorrupt, errNoState)
	}
	return s, items, conditions, nil
}

var errNoState = errors.New("the value does not end where its fields do")

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}

type encoder struct{ buf []byte }

func (e *encoder) uint(n uint64) { e.buf = binary.AppendUvarint(e.buf, n) }
func (e *encoder) int(n int64)   { e.buf = binary.AppendVarint(e.buf, n) }
func (e *encoder) text(s string) { e.buf = varint.AppendText(e.buf, s) }

// bytes keeps nil apart from empty.
func (e *encoder) bytes(b []byte) {
	if b == nil {
		e.uint(0)
		return
	}
	e.uint(uint64(len(b)) + 1)
	e.buf = append(e.buf, b...)
}

// time keeps nanoseconds, also of years for which 64 bits of nanoseconds are too few.
func (e *encoder) time(t time.Time) {
	e.int(t.Unix())
	e.uint(uint64(t.Nanosecond()))
}

// millis is the time of a cart; 0 for none.
func (e *encoder) millis(t time.Time) {
	if t.IsZero() {
		e.int(0)
		return
	}
	e.int(t.UnixMilli())
}

// cart encodes the cart without its documents, or an empty id if there is no cart.
func (e *encoder) cart(c *cart.Cart) {
	e.text(c.ID)
	if !c.Exists() {
		return
	}
	e.uint(c.Version)
	e.uint(c.Items.Version)
	e.uint(c.Conditions.Version)
	e.millis(c.CreatedAt)
	e.millis(c.UpdatedAt)
	e.millis(c.ExpiresAt)
	e.uint(uint64(len(c.Metadata)))
	for i := range c.Metadata {
		e.text(c.Metadata[i].Key)
		e.uint(c.Metadata[i].Version)
		e.bytes(c.Metadata[i].Value)
	}
	e.uint(uint64(len(c.Removed)))
	for _, key := range slices.Sorted(maps.Keys(c.Removed)) { // so that equal states give equal values
		e.text(key)
		e.uint(c.Removed[key])
	}
	e.uint(c.Floor)
	e.bytes(c.Transfer)
	e.bytes(c.Received)
	e.bytes(c.Ledger.Value)
	e.uint(c.Ledger.Version)
}

// hold is what a hold and a waiter have in common.
func (e *encoder) hold(token, holder string, parts []cart.Part, flags byte) {
	e.text(token)
	e.text(holder)
	e.uint(uint64(len(parts)))
	for _, p := range parts {
		e.text(string(p))
	}
	e.buf = append(e.buf, flags)
}

// decoder reads a state.
type decoder struct{ varint.Reader }

// count reads the length of a list. Each entry has at least one byte, so a damaged length cannot ask for memory without
// end.
func (d *decoder) count() int {
	n := d.Uint()
	if n > uint64(d.Len()) {
		d.Fail()
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.Uint()
	if n == 0 {
		return nil
	}
	return d.Take(n - 1)
}

func (d *decoder) time() time.Time {
	seconds, nanoseconds := d.Int(), d.Uint()
	return time.Unix(seconds, int64(nanoseconds)).UTC()
}

func (d *decoder) millis() time.Time {
	n := d.Int()
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

func (d *decoder) cart(c *cart.Cart) {
	if c.ID = d.Text(); c.ID == "" {
		return
	}
	c.Version, c.Items.Version, c.Conditions.Version = d.Uint(), d.Uint(), d.Uint()
	c.CreatedAt, c.UpdatedAt, c.ExpiresAt = d.millis(), d.millis(), d.millis()
	for range d.count() {
		e := cart.Entry{Key: d.Text(), Version: d.Uint()}
		e.Value = slices.Clone(d.bytes())
		c.Metadata = append(c.Metadata, e)
	}
	if n := d.count(); n > 0 {
		c.Removed = make(map[string]uint64, n)
		for range n {
			key := d.Text()
			c.Removed[key] = d.Uint()
		}
	}
	c.Floor = d.Uint()
	c.Transfer, c.Received = slices.Clone(d.bytes()), slices.Clone(d.bytes())
	c.Ledger.Value, c.Ledger.Version = slices.Clone(d.bytes()), d.Uint()
}

func (d *decoder) hold() (token, holder string, parts []cart.Part, flags byte) {
	token, holder = d.Text(), d.Text()
	for range d.count() {
		parts = append(parts, cart.Part(d.Text()))
	}
	if b := d.Take(1); b != nil {
		flags = b[0]
	}
	return token, holder, parts, flags
}
