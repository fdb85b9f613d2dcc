package cart

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Opaque is an internal part that has a version.
type Opaque struct {
	// Value is nil where it was never set.
	Value []byte
	// Version rises by one with each write of this part, whatever becomes of the cart's version; 0 means never set.
	Version uint64
}

// ledger is the decoded ledger of a cart: its sections by their number. A release that does not know a section carries
// it along.
type ledger map[uint64][]byte

// The sections. A number is never used again.
const sectionRequests = 1

// ledgerFormat is the first byte of a stored ledger. The rest is the id of its cart, and each section: its number, and
// its length and its bytes. Text is its length and its bytes too, and whole numbers are varints.
const ledgerFormat = 1

var errDamagedLedger = errors.New("ledger: its fields do not end where it does")

// ledger decodes that of the cart; nil where there is none.
//
// The stored value names its cart: a release of Sidecart that knows nothing of ledgers may have left it to a successor
// of the same name, whose it is not.
func (c *Cart) ledger() (ledger, error) {
	if !c.Exists() || len(c.Ledger.Value) == 0 {
		return nil, nil
	}
	if f := c.Ledger.Value[0]; f != ledgerFormat {
		return nil, fmt.Errorf("ledger: has format %d, which another release wrote: this one reads format %d", f, ledgerFormat)
	}
	r := reader{rest: c.Ledger.Value[1:]}
	if id := r.text(); id != c.ID {
		return nil, r.err()
	}
	l := ledger{}
	for len(r.rest) > 0 {
		section := r.uint()
		l[section] = r.take(r.uint())
	}
	return l, r.err()
}

// encode is the ledger of the cart of id as it is stored. The same ledger is always the same value.
func (l ledger) encode(id string) []byte {
	b := appendText([]byte{ledgerFormat}, id)
	for _, section := range slices.Sorted(maps.Keys(l)) {
		b = binary.AppendUvarint(b, section)
		b = appendText(b, string(l[section]))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads zero values once it has failed.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.rest, r.failed = nil, true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.rest, r.failed = nil, true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) text() string { return string(r.take(r.uint())) }

func (r *reader) err() error {
	if r.failed {
		return errDamagedLedger
	}
	return nil
}
