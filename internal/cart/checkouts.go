package cart

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/varint"
)

// CheckoutEntry is a cart's record of one checkout. It is the right to take what was ordered from the cart, once. It
// moves with the cart. The layer above keeps the snapshot itself, beside the cart.
type CheckoutEntry struct {
	// ID is the client's name for the checkout.
	ID string
	// Snapshot names the record with the snapshot, and Nonce is the id of that record. A record with another id belongs
	// to another checkout.
	Snapshot, Nonce string
	// CreatedAt and ExpiresAt are to the millisecond.
	CreatedAt, ExpiresAt time.Time
	// Outcome says how the checkout was settled, and SettledAt when. Outcome is "" until then. It is stored in the same
	// step in which the settlement takes the items.
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

// ErrNotOpen is returned by [Settle] when the cart has no entry for the checkout, or the entry was settled already.
var ErrNotOpen = errors.New("the checkout is not open in this cart")

// outcomes lists the outcomes by the number under which they are stored.
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

// SetCheckouts replaces the entries of the cart, which must exist. The rest of its ledger stays. It returns an error if
// the ledger cannot be read.
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

// LivesUntil is when the last unsettled checkout of the cart expires. The cart must live at least that long. It is zero
// if there is no such checkout.
func (c *Cart) LivesUntil() time.Time {
	list, err := c.Checkouts()
	if err != nil {
		return time.Time{} // another release wrote it, or it is damaged: calls that need the entries report it
	}
	var last time.Time
	for i := range list {
		if e := &list[i]; e.Outcome == "" && e.ExpiresAt.After(last) {
			last = e.ExpiresAt
		}
	}
	return last
}

// Settle settles a checkout as ordered. It takes the snapshot's quantities from the items, removes the conditions that
// have not changed since, and notes the outcome in the entry, all in one step. It returns [ErrNotOpen] if the cart has
// no such entry, or the entry was settled already.
type Settle struct {
	// Nonce identifies the entry.
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
