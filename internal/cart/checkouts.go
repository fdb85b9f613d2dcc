package cart

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/varint"
)

// CheckoutEntry is what a cart keeps account of for one checkout: the right to take from the cart what was ordered,
// once. It moves with the cart. The snapshot itself is kept beside the cart, by the layer above.
type CheckoutEntry struct {
	// ID is what the client calls it.
	ID string
	// Snapshot names the record with the snapshot, and Nonce is the id of that record. A record of another id is that
	// of another checkout.
	Snapshot, Nonce string
	// CreatedAt and ExpiresAt are to the millisecond.
	CreatedAt, ExpiresAt time.Time
	// Outcome says how it was settled, at SettledAt. It is stored in the same step as what the settlement takes. Until
	// then it is "".
	Outcome   Outcome
	SettledAt time.Time
}

// Outcome is how a checkout ends.
type Outcome string

// The outcomes.
const (
	// Ordered takes from the cart what was ordered.
	Ordered Outcome = "ORDERED"
	// Cancelled leaves the cart alone.
	Cancelled Outcome = "CANCELLED"
)

// ParseOutcome reads an outcome as clients write it. The error is an [*InvalidError].
func ParseOutcome(field, s string) (Outcome, error) {
	switch o := Outcome(s); o {
	case Ordered, Cancelled:
		return o, nil
	}
	return "", Invalidf(field, "must be %s or %s, not %q", Ordered, Cancelled, shorten(s))
}

// Open reports whether a checkout is neither settled nor expired.
func (e *CheckoutEntry) Open(now time.Time) bool { return e.Outcome == "" && now.Before(e.ExpiresAt) }

// ErrNotOpen is returned by [Settle] where the cart does not have the entry of the checkout, or the entry was settled.
var ErrNotOpen = errors.New("the checkout is not open in this cart")

// outcomes are the outcomes as stored, by their number.
var outcomes = []Outcome{"", Ordered, Cancelled}

// Checkouts are the entries of the cart, oldest first. A cart that does not exist has none.
func (c *Cart) Checkouts() ([]CheckoutEntry, error) {
	l, err := c.ledger()
	if err != nil {
		return nil, err
	}
	r := varint.NewReader(l[sectionCheckouts])
	var list []CheckoutEntry
	for r.Len() > 0 {
		e := CheckoutEntry{ID: r.Text(), Snapshot: r.Text(), Nonce: r.Text(), CreatedAt: readTime(&r), ExpiresAt: readTime(&r)}
		outcome := r.Uint()
		if e.SettledAt = readTime(&r); outcome >= uint64(len(outcomes)) {
			return nil, errDamagedLedger
		}
		e.Outcome = outcomes[outcome]
		list = append(list, e)
	}
	return list, damaged(r)
}

// SetCheckouts replaces the entries of the cart, which must exist. What else its ledger holds stays. It returns an
// error where that cannot be read.
func (c *Cart) SetCheckouts(list []CheckoutEntry) error {
	var b []byte
	for i := range list {
		e := &list[i]
		b = varint.AppendText(varint.AppendText(varint.AppendText(b, e.ID), e.Snapshot), e.Nonce)
		b = appendTime(appendTime(b, e.CreatedAt), e.ExpiresAt)
		b = binary.AppendUvarint(b, uint64(slices.Index(outcomes, e.Outcome)))
		b = appendTime(b, e.SettledAt)
	}
	return c.setSection(sectionCheckouts, b)
}

// LivesUntil is when the last checkout of the cart expires that is not settled: the cart does not expire before. It is
// zero where there is none.
func (c *Cart) LivesUntil() time.Time {
	list, err := c.Checkouts()
	if err != nil {
		return time.Time{} // another release wrote it, or it is damaged: whoever needs the entries is told
	}
	var last time.Time
	for i := range list {
		if e := &list[i]; e.Outcome == "" && e.ExpiresAt.After(last) {
			last = e.ExpiresAt
		}
	}
	return last
}

// Settle settles a checkout as ordered: it takes the quantities of the snapshot from the items, and the conditions that
// are as they were then, and notes that in the entry, all in one step. It returns [ErrNotOpen] where the right to do
// that is not there, or was used.
type Settle struct {
	// Nonce is that of the entry.
	Nonce string
	// Snapshot is the cart as it was when it was checked out.
	Snapshot *Cart
	// At is the time of the settlement.
	At time.Time
}

// Parts implements [Verb].
func (Settle) Parts(*Cart) []Part { return []Part{PartItems, PartConditions} }

// Apply implements [Verb].
func (v Settle) Apply(d *Draft) error {
	list, err := d.cart.Checkouts()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(e CheckoutEntry) bool { return e.Nonce == v.Nonce })
	if i < 0 || list[i].Outcome != "" {
		return ErrNotOpen
	}
	if err := (TakeItems{v.Snapshot.Quantities()}).Apply(d); err != nil {
		return err
	}
	conditions := d.cart.Conditions.Object
	for _, m := range v.Snapshot.Conditions.Object.Members() {
		if now, ok := conditions.Get(m.Key); ok && bytes.Equal(now, m.Value) {
			conditions = conditions.Without(m.Key)
		}
	}
	if err := d.setConditions(conditions); err != nil {
		return err
	}
	list[i].Outcome, list[i].SettledAt = Ordered, v.At
	return d.cart.SetCheckouts(list)
}
