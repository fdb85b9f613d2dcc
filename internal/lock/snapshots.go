package lock

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// The snapshot of a checkout is a record beside the cart. It is stored as a cart under a reserved name. That cart's
// documents are those of the snapshot, and its ledger holds the rest of the checkout as JSON. A second kind of record,
// one for each cart name, is in checkoutlist.go. Both outlive the cart.
//
// These records need not be in the store of the carts: see records.

// Checkout is a checkout as it was last read.
type Checkout struct {
	// ID is the client's name for it, and Home the cart name under which it was made.
	ID   string
	Home cart.Key
	// CartID is the id of the cart, and Cart the snapshot: its version, items, conditions and metadata.
	CartID string
	Cart   *cart.Cart
	// Attributes are the client's own, a JSON object.
	Attributes []byte
	// The times are by the clock of the sidecar, to the millisecond. SettledAt is zero until Outcome is there.
	CreatedAt, ExpiresAt, SettledAt time.Time
	Outcome                         cart.Outcome

	name, nonce string   // of the record
	written     uint64   // how often the record was written
	settledIn   cart.Key // the name of the cart in which it was settled; zero for none
	in          records  // where the record is
}

// The states of a checkout.
const (
	CheckoutOpen      = "OPEN"
	CheckoutExpired   = "EXPIRED"
	CheckoutOrdered   = string(cart.Ordered)
	CheckoutCancelled = string(cart.Cancelled)
)

// State is the state of the checkout at now.
func (k *Checkout) State(now time.Time) string {
	switch {
	case k.Outcome != "":
		return string(k.Outcome)
	case now.Before(k.ExpiresAt):
		return CheckoutOpen
	}
	return CheckoutExpired
}

// record is the ledger of a snapshot.
type record struct {
	ID         string          `json:"id"`
	Home       cart.Key        `json:"home"`
	CartID     string          `json:"cartId"`
	Attributes json.RawMessage `json:"attributes,omitempty"`
	CreatedAt  time.Time       `json:"createdAt"`
	ExpiresAt  time.Time       `json:"expiresAt"`
	Outcome    cart.Outcome    `json:"outcome,omitempty"`
	SettledAt  time.Time       `json:"settledAt,omitzero"`
	SettledIn  cart.Key        `json:"settledIn,omitzero"`
}

// hashed turns a cart's names, and more, into a short text. No name contains a NUL.
func hashed(kind string, names ...string) string {
	h := sha256.New()
	for _, n := range names {
		_, _ = h.Write(append([]byte(n), 0))
	}
	return kind + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// snapshotName names the record of a checkout, and listName the list of a cart name.
func snapshotName(home cart.Key, id string) string {
	return hashed("checkout-", home.Identifier, home.Instance, id)
}
func listName(of cart.Key) string { return hashed("checkouts-", of.Identifier, of.Instance) }

// reserved is a key that no client can name.
func reserved(name string) cart.Key { return cart.Key{Identifier: name} }

// until is when the record of a checkout may be removed. The retention counts from the settlement or the expiry,
// whichever came last.
func (o *Options) until(expires, settled time.Time) time.Time {
	if settled.After(expires) {
		expires = settled
	}
	return expires.Add(o.CheckoutRetention)
}

// life is the TTL of a record that may be removed at until. If that has passed, the record goes at once.
func life(until time.Time) time.Duration { return max(time.Until(until), time.Millisecond) }

// loadSnapshot returns a checkout, or nil if there is none under that name. It also finds one that was made before
// checkouts had a store of their own.
func (c *Coordinator) loadSnapshot(ctx context.Context, name string) (*Checkout, error) {
	for _, in := range c.everywhere() {
		k, err := in.load(ctx, name)
		if err != nil {
			return nil, err
		}
		if k.Exists() {
			return readSnapshot(name, k, in)
		}
	}
	return nil, nil
}

func readSnapshot(name string, k *cart.Cart, in records) (*Checkout, error) {
	var r record
	if err := json.Unmarshal(k.Ledger.Value, &r); err != nil {
		return nil, fmt.Errorf("checkout %s: %w: %w", name, storage.ErrCorrupt, err)
	}
	return &Checkout{
		ID: r.ID, Home: r.Home, CartID: r.CartID, Cart: k, Attributes: r.Attributes,
		CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt, SettledAt: r.SettledAt, Outcome: r.Outcome,
		name: name, nonce: k.ID, written: k.Ledger.Version, settledIn: r.SettledIn, in: in,
	}, nil
}

func (k *Checkout) encode() []byte {
	text, err := json.Marshal(record{
		ID: k.ID, Home: k.Home, CartID: k.CartID, Attributes: k.Attributes, CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt,
		Outcome: k.Outcome, SettledAt: k.SettledAt, SettledIn: k.settledIn,
	})
	if err != nil {
		panic(err) // the attributes were parsed
	}
	return text
}

// makeSnapshot stores a checkout unless there is one already. It returns the one that is stored then.
func (c *Coordinator) makeSnapshot(ctx context.Context, k *Checkout) (*Checkout, error) {
	place := &cart.Cart{
		ID: k.nonce, Version: k.Cart.Version, CreatedAt: k.CreatedAt,
		Items: k.Cart.Items, Conditions: k.Cart.Conditions, Metadata: k.Cart.Metadata,
		Ledger: cart.Opaque{Value: k.encode(), Version: 1},
	}
	in := c.snapshots
	out, err := in.commit(ctx, storage.Commit{
		Key: reserved(k.name),
		Change: storage.Change{
			Place: place, TTL: life(c.opts.Load().until(k.ExpiresAt, k.SettledAt)), Trail: c.trailOf(ctx, in, k),
		},
	})
	switch {
	case err != nil:
		return nil, err
	case out.Status == storage.Committed:
		k.Cart, k.written, k.in = place, 1, in
		return k, nil
	case out.Cart == nil || !out.Cart.Exists():
		return nil, fmt.Errorf("checkout %s: %w: its record cannot be written", k.name, storage.ErrUnavailable)
	}
	return readSnapshot(k.name, out.Cart, in)
}

// changeSnapshot lets alter change a checkout and stores it, if the checkout is still as it was read. Otherwise ok is
// false.
func (c *Coordinator) changeSnapshot(ctx context.Context, k *Checkout, alter func(k *Checkout)) (changed *Checkout, ok bool, err error) {
	next := *k
	alter(&next)
	next.written++
	out, err := k.in.commit(ctx, storage.Commit{
		Key: reserved(k.name), Expect: storage.Expect{ID: k.nonce, Parts: map[cart.Part]uint64{cart.PartLedger: k.written}},
		Change: storage.Change{
			Writes: []storage.Write{{Part: cart.PartLedger, Value: next.encode(), Step: next.written}},
			TTL:    life(c.opts.Load().until(next.ExpiresAt, next.SettledAt)),
			Trail:  c.trailOf(ctx, k.in, &next),
		},
	})
	return &next, err == nil && out.Status == storage.Committed, err
}
