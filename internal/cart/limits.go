package cart

import "math"

// Limits bound what a cart may hold. The zero value allows nothing: start from [DefaultLimits].
type Limits struct {
	// MaxItems is how many items one cart may hold.
	MaxItems int
	// MaxDocumentBytes is the size of one document (items, conditions, or one metadata value) as compact JSON, in
	// bytes.
	MaxDocumentBytes int
	// MaxCartBytes is the size of a whole cart, as [Cart.Size] counts it. It bounds what is sent, stored or moved in
	// one piece.
	MaxCartBytes int
	// MaxMetadataKeys is how many metadata keys one cart may hold, and how many one patch may name. Each key is a part
	// with its own version and lock.
	MaxMetadataKeys int
	// MaxQuantity is the largest quantity of one item; the smallest is 1.
	MaxQuantity int64
}

// DefaultLimits are 1,000 items, 1 MiB per document, 2 MiB per cart, 1,000 metadata keys, quantities to 10,000.
func DefaultLimits() Limits {
	return Limits{MaxItems: 1000, MaxDocumentBytes: 1 << 20, MaxCartBytes: 2 << 20, MaxMetadataKeys: 1000, MaxQuantity: 10_000}
}

// Unlimited allows everything.
func Unlimited() Limits {
	return Limits{
		MaxItems: math.MaxInt, MaxDocumentBytes: math.MaxInt, MaxCartBytes: math.MaxInt,
		MaxMetadataKeys: math.MaxInt, MaxQuantity: math.MaxInt64,
	}
}

// Unrefusing returns limits for a change that must not be refused any more: the second step of a hand-over, which was
// checked against the limits before its first step. A merged quantity is still capped at MaxQuantity.
func (l Limits) Unrefusing() Limits {
	u := Unlimited()
	u.MaxQuantity = l.MaxQuantity
	return u
}
