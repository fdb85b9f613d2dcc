package storage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// ErrMoved is the ErrUnavailable of a cart that has moved to another backend, or is about to, when this sidecar has not
// been told of the move yet. Nothing was changed.
var ErrMoved = fmt.Errorf("%w: the cart has moved to another backend, and the configuration of this sidecar is older than that",
	ErrUnavailable)

// Marker is the value of PartTransfer in the backend that a cart moves away from. It says where the cart counts, and
// closes the cart in the old backend, also to sidecars that know nothing of the move.
type Marker struct {
	// Format is [MarkerFormat].
	Format int `json:"moving"`
	// Move is a UUID of its own.
	Move string `json:"move"`
	// Done says that the cart counts in the new backend. Until then it is frozen as it stands in the old one.
	Done bool `json:"done"`
	// Expires is when the cart expires, in milliseconds since 1970; 0 for never. The marker itself does not expire.
	Expires int64 `json:"expires,omitempty"`
}

// MarkerFormat is the format of the markers of this release.
const MarkerFormat = 1

// ExpiresAt is when the cart expires; zero for never.
func (m *Marker) ExpiresAt() time.Time {
	if m.Expires == 0 {
		return time.Time{}
	}
	return time.UnixMilli(m.Expires).UTC()
}

// ParseMarker reads a value of PartTransfer. ok is false if the value is not a marker but the intent of a hand-over, or
// empty. For a marker of a format that this release does not know, the error is an ErrUnsupported that names the
// format.
func ParseMarker(transfer []byte) (m Marker, ok bool, err error) {
	if known := bytes.Contains(transfer, []byte(`"moving"`)) && json.Unmarshal(transfer, &m) == nil && m.Format != 0; !known {
		return Marker{}, false, nil
	}
	if m.Format != MarkerFormat {
		return Marker{}, true, fmt.Errorf("%w: the cart moves with a marker of format %d, which another release wrote: this one reads format %d",
			ErrUnsupported, m.Format, MarkerFormat)
	}
	return m, true, nil
}
