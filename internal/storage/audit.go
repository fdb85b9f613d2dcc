package storage

import (
	"fmt"
	"os"

	"github.com/sidecart/sidecart/internal/cart"
)

// Auditor is a store that may keep an audit trail: who changed which part of which cart, when, and by which call. The
// fallback is that it keeps none.
type Auditor interface {
	// Audits reports whether it keeps one. The answer never changes. The trail records [Change.Trail]; changes for
	// other stores need not set that.
	Audits() bool
}

// Trace is the part that one call has in a change.
type Trace struct {
	// Call is the name of the call, such as "AddItem".
	Call string
	// Kind says how it altered Parts.
	Kind ChangeKind
	// Parts are what it altered. PartAll stands for a cart that comes or goes as a whole.
	Parts []cart.Part
	// Step is the step of the change in which it did; 0 for a whole cart.
	Step uint64
	// Checkout is the checkout that the call made or settled; nil for none. The line is then about the checkout, and
	// not about the record in which it is stored.
	Checkout *TracedCheckout
}

// TracedCheckout is a checkout as an audit trail has it.
type TracedCheckout struct {
	// Key, CartID and Version are those of the cart that was checked out.
	Key     cart.Key
	CartID  string
	Version uint64
	// ID is what the client calls the checkout, and Attributes the client's own, a JSON object or "".
	ID, Attributes string
}

// ChangeKind says how a part came to be altered.
type ChangeKind string

// The kinds of changes. A swap and a merge are of their kind on both carts.
const (
	ChangeAltered   ChangeKind = "altered"
	ChangeForgotten ChangeKind = "forgotten"
	ChangeSwapped   ChangeKind = "swapped"
	ChangeMerged    ChangeKind = "merged"
	// ChangeMoved: the cart came from another backend, or went there.
	ChangeMoved ChangeKind = "moved"
	// ChangeFlushed: all carts are about to be removed.
	ChangeFlushed ChangeKind = "flushed"
	// ChangeCheckedOut, ChangeOrdered and ChangeCancelled: a checkout was made, and settled.
	ChangeCheckedOut ChangeKind = "checked out"
	ChangeOrdered    ChangeKind = "ordered"
	ChangeCancelled  ChangeKind = "cancelled"
)

// PartCheckout stands in an audit trail for a checkout. No part of a cart is called so.
const PartCheckout cart.Part = "checkout"

// Audited is one line of an audit trail, without what is the same in all lines of a commit.
type Audited struct {
	Call   string
	Kind   ChangeKind
	CartID string
	Part   cart.Part
	// From and To are versions of the part, and of the cart for PartAll. 0 says that the part was never set, or that
	// there is no such cart under this name. Both are the version of the snapshot for PartCheckout.
	From, To uint64
	// Checkout is the checkout that the line is about; nil for none.
	Checkout *TracedCheckout
}

// Audit returns the lines that a trail records when the change is made to was, which may be the zero cart.
func (c *Change) Audit(was *cart.Cart) (lines []Audited) {
	id := was.ID
	if !was.Exists() {
		id = c.NewID
	}
	last := make(map[cart.Part]uint64, len(c.Writes))
	for _, t := range c.Trail {
		if k := t.Checkout; k != nil {
			lines = append(lines, Audited{t.Call, t.Kind, k.CartID, PartCheckout, k.Version, k.Version, k})
			continue
		}
		for i, from := range was.PartVersions(t.Parts) {
			part := t.Parts[i]
			if part == cart.PartAll {
				lines = append(lines, c.auditWhole(&t, was)...)
				continue
			}
			if before, ok := last[part]; ok {
				from = before
			}
			last[part] = was.Version + t.Step
			lines = append(lines, Audited{t.Call, t.Kind, id, part, from, last[part], nil})
		}
	}
	return lines
}

// auditWhole returns the lines for a cart that goes, and for one that comes in its place.
func (c *Change) auditWhole(t *Trace, was *cart.Cart) (lines []Audited) {
	if was.Exists() {
		lines = append(lines, Audited{t.Call, t.Kind, was.ID, cart.PartAll, was.Version, 0, nil})
	}
	if c.Place != nil {
		lines = append(lines, Audited{t.Call, t.Kind, c.Place.ID, cart.PartAll, 0, c.Place.Version, nil})
	}
	return lines
}

// ProcessName names this process to people who look at a lock or an audit trail. In a pod, the host part is the pod's
// name.
func ProcessName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "sidecar"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}
