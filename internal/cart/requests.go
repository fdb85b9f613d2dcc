package cart

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

// Request is a change that was made under an idempotency key.
type Request struct {
	// Key is what the client calls it.
	Key string
	// Sum tells one request from another: the same key with another Sum is a mistake of the client.
	Sum Sum
	// Version is the cart's version after the change, and Changed says whether the change altered anything.
	Version uint64
	Changed bool
	// At is when it was made, by the clock of the sidecar, to the millisecond.
	At time.Time
}

// Sum is a hash of a request.
type Sum [16]byte

// MaxRequests is how many requests a cart remembers; the oldest go first.
const MaxRequests = 64

// Opaque is an internal part that has a version.
type Opaque struct {
	// Value is nil where it was never set.
	Value []byte
	// Version rises by one with each write of this part, whatever becomes of the cart's version; 0 means never set.
	Version uint64
}

var errDamagedRequests = errors.New("requests: not a list of requests")

// requestsFormat is the first byte of the stored requests. The rest is the id of their cart and each request: text is
// its length and its bytes, whole numbers are varints.
const requestsFormat = 1

// Remembered are the requests that the cart remembers, oldest first, without those made before since. A cart that does
// not exist remembers none.
//
// The stored value names its cart: a release of Sidecart that knows nothing of requests may have left it to a successor
// of the same name, whose requests they are not.
func (c *Cart) Remembered(since time.Time) ([]Request, error) {
	if !c.Exists() || len(c.Requests.Value) == 0 {
		return nil, nil
	}
	if c.Requests.Value[0] != requestsFormat {
		return nil, errDamagedRequests
	}
	r := reader{rest: c.Requests.Value[1:]}
	if id := r.text(); id != c.ID {
		return nil, r.err()
	}
	var list []Request
	for len(r.rest) > 0 {
		q := Request{Key: r.text()}
		copy(q.Sum[:], r.take(uint64(len(q.Sum))))
		q.Version, q.At = r.uint(), time.UnixMilli(int64(r.uint())).UTC()
		q.Changed = r.uint() == 1
		if !q.At.Before(since) {
			list = append(list, q)
		}
	}
	return list, r.err()
}

// Remember makes the cart remember the newest of the requests, which are in order, oldest first.
func (c *Cart) Remember(list []Request) {
	list = list[max(0, len(list)-MaxRequests):]
	b := []byte{requestsFormat}
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	text(c.ID)
	for i := range list {
		q := &list[i]
		text(q.Key)
		b = append(b, q.Sum[:]...)
		b = binary.AppendUvarint(b, q.Version)
		b = binary.AppendUvarint(b, uint64(q.At.UnixMilli()))
		changed := uint64(0)
		if q.Changed {
			changed = 1
		}
		b = binary.AppendUvarint(b, changed)
	}
	c.Requests = Opaque{b, c.Requests.Version + 1}
}

// Joined are the requests of two carts that become one, oldest first. Of two with one key the later stays.
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
		return errDamagedRequests
	}
	return nil
}
