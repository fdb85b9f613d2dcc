package cart

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/varint"
)

// Request is a change that was made under an idempotency key.
type Request struct {
	// Key is the client's name for it.
	Key string
	// Sum tells one request from another: the same key with another Sum is a mistake of the client.
	Sum Sum
	// Version is the cart's version after the change, and Changed says whether the change altered anything.
	Version uint64
	Changed bool
	// At is when the change was made, by the sidecar's clock, to the millisecond.
	At time.Time
}

// Sum is a hash of a request.
type Sum [16]byte

// MaxRequests is how many requests a cart remembers; the oldest go first.
const MaxRequests = 64

// Remembered returns the requests that the cart remembers, oldest first, without those made before since. A cart that
// does not exist remembers none.
func (c *Cart) Remembered(since time.Time) ([]Request, error) {
	l, err := c.ledger()
	if err != nil {
		return nil, err
	}
	r := varint.NewReader(l[sectionRequests])
	var list []Request
	for r.Len() > 0 {
		q := Request{Key: r.Text()}
		copy(q.Sum[:], r.Take(uint64(len(q.Sum))))
		q.Version, q.At = r.Uint(), readTime(&r)
		q.Changed = r.Uint() == 1
		if !q.At.Before(since) {
			list = append(list, q)
		}
	}
	return list, damaged(r)
}

// Remember makes the cart remember the newest of the requests, which must be sorted, oldest first. The rest of its
// ledger stays. It returns an error if the ledger cannot be read.
func (c *Cart) Remember(list []Request) error {
	list = list[max(0, len(list)-MaxRequests):]
	var b []byte
	for i := range list {
		q := &list[i]
		b = append(varint.AppendText(b, q.Key), q.Sum[:]...)
		b = binary.AppendUvarint(b, q.Version)
		b = appendTime(b, q.At)
		changed := uint64(0)
		if q.Changed {
			changed = 1
		}
		b = binary.AppendUvarint(b, changed)
	}
	return c.setSection(sectionRequests, b)
}

// Joined returns the requests of two carts that become one, oldest first. If both have the same key, the later request
// stays.
func Joined(a, b []Request) []Request {
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, func(x, y Request) int { return x.At.Compare(y.At) })
	last := make(map[string]int, len(all))
	for i := range all {
		last[all[i].Key] = i
	}
	joined := all[:0]
	for i := range all {
		if last[all[i].Key] == i {
			joined = append(joined, all[i])
		}
	}
	return joined
}
