package cart

import "math"

// Limits bound what a cart may hold. The zero value allows nothing: start from
// [DefaultLimits].
type Limits struct {
	// MaxItems is how many items one cart may hold.
	MaxItems int
	// MaxDocumentBytes is the size of one document (items, conditions, or one
	// metadata value) as compact JSON, in bytes.
	MaxDocumentBytes int
	// MaxQuantity is the largest quantity of one item; the smallest is 1.
	MaxQuantity int64
}

// DefaultLimits are 1,000 items, 1 MiB per document, quantities to 10,000.
func DefaultLimits() Limits {
	return Limits{MaxItems: 1000, MaxDocumentBytes: 1 << 20, MaxQuantity: 10_000}
}

// Unlimited is for a change that must not fail on a limit any more: the second
// step of a hand-over, checked against the limits before its first.
func Unlimited() Limits {
	return Limits{MaxItems: math.MaxInt, MaxDocumentBytes: math.MaxInt, MaxQuantity: math.MaxInt64}
}

// maxMetadata is how many metadata keys one cart may hold. Each is a part with a
// version and a lock of its own, so that there must be some bound; no cart that
// is used as one comes near it.
func (l Limits) maxMetadata() int { return max(l.MaxItems, 1000) }
