package cart

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/varint"
)

// Opaque is an internal part that has a version.
type Opaque struct {
	// Value is nil if it was never set.
	Value []byte
	// Version rises by one with each write of this part, independently of the cart's version; 0 means never set.
	Version uint64
}

// ledger is the decoded ledger of a cart: its sections by number. A release that does not know a section keeps it.
type ledger map[uint64][]byte

// The sections. A number is never used again.
const (
	sectionRequests  = 1
	sectionCheckouts = 2
)

// ledgerFormat is the first byte of a stored ledger. The id of its cart follows, then the sections. Each section is its
// number, its length and its bytes. Text is its length and its bytes too. Whole numbers are varints.
const ledgerFormat = 1

var errDamagedLedger = errors.New("ledger: its fields do not end where it does")

// ledger decodes the cart's ledger; it is nil if there is none.
//
// The stored value names its cart. A release of Sidecart that does not know ledgers may have left it behind for a later
// cart of the same name. It does not belong to that cart, and is ignored.
func (c *Cart) ledger() (ledger, error) {
	if !c.Exists() || len(c.Ledger.Value) == 0 {
		return nil, nil
	}
	if f := c.Ledger.Value[0]; f != ledgerFormat {
		return nil, fmt.Errorf("ledger: has format %d, which another release wrote: this one reads format %d", f, ledgerFormat)
	}
	r := varint.NewReader(c.Ledger.Value[1:])
	if id := r.Text(); id != c.ID {
		return nil, damaged(r)
	}
	l := ledger{}
	for r.Len() > 0 {
		section := r.Uint()
		l[section] = r.Take(r.Uint())
	}
	return l, damaged(r)
}

// encode returns the ledger of the cart with this id, as it is stored. The same ledger always gives the same bytes.
func (l ledger) encode(id string) []byte {
	b := varint.AppendText([]byte{ledgerFormat}, id)
	for _, section := range slices.Sorted(maps.Keys(l)) {
		b = binary.AppendUvarint(b, section)
		b = varint.AppendText(b, string(l[section]))
	}
	return b
}

// setSection replaces one section of the cart's ledger. The other sections stay.
func (c *Cart) setSection(section uint64, b []byte) error {
	l, err := c.ledger()
	if err != nil {
		return err
	}
	if l == nil {
		l = ledger{}
	}
	l[section] = b
	c.Ledger = Opaque{l.encode(c.ID), c.Ledger.Version + 1}
	return nil
}

// appendTime appends milliseconds since 1970, and 0 for the zero time.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendUvarint(b, 0)
	}
	return binary.AppendUvarint(b, uint64(t.UnixMilli()))
}

// readTime reads what appendTime wrote.
func readTime(r *varint.Reader) time.Time {
	if ms := r.Uint(); ms > 0 {
		return time.UnixMilli(int64(ms)).UTC()
	}
	return time.Time{}
}

// damaged returns an error if the reader of a ledger has failed.
func damaged(r varint.Reader) error {
	if r.Failed() {
		return errDamagedLedger
	}
	return nil
}
