package dynamodb

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// The attributes of an item. The first two are the key of the table.
const (
	attrIdentifier = "identifier" // the prefix, a slash, and the identifier
	attrInstance   = "instance"
	attrState      = "state"    // the encoded State
	attrRevision   = "revision" // a number that no other version of the item has
	attrExpires    = "expires"  // in seconds since 1970, for the table's time to live; none where it never ends
)

// maxItemBytes is the limit of DynamoDB, which counts names and values of all attributes.
const maxItemBytes = 400 << 10

// space is where the carts of a prefix are. No prefix has a slash in it, so the items of two never meet: with the
// prefix and an identifier of 255 bytes, a partition key stays far below the 2,048 bytes that it may have.
type space string

func spaceOf(prefix string) space { return space(prefix + "/") }

func (s space) partition(identifier string) types.AttributeValue {
	return &types.AttributeValueMemberS{Value: string(s) + identifier}
}

// reservedInstance stands for the empty instance of a reserved name: a key has no empty text. No name has a NUL.
const reservedInstance = "\x00"

func (s space) key(k cart.Key) attributes {
	instance := k.Instance
	if k.Reserved() {
		instance = reservedInstance
	}
	return attributes{attrIdentifier: s.partition(k.Identifier), attrInstance: &types.AttributeValueMemberS{Value: instance}}
}

type attributes = map[string]types.AttributeValue

// item is a cart's item as it is read.
type item struct {
	key      cart.Key
	state    []byte
	revision uint64
	expires  int64 // 0 for never
}

// newRevision is a number that no item has had before, not even a deleted one: 64 random bits. No other write has it,
// so it also shows whether a write was made whose answer was lost.
func newRevision() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:])
		if n := binary.BigEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}

func number[N int64 | uint64](n N) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(n)}
}

// expiry is the time in the attribute: the first full second in which the item is not needed.
func expiry(ends time.Time) int64 {
	seconds := ends.Unix()
	if ends.Nanosecond() > 0 {
		seconds++
	}
	return max(seconds, 1)
}

// encode makes the item to store.
func (s space) encode(k cart.Key, state []byte, revision uint64, ends time.Time) (attributes, error) {
	a := s.key(k)
	a[attrState] = &types.AttributeValueMemberB{Value: state}
	a[attrRevision] = number(revision)
	if !ends.IsZero() {
		a[attrExpires] = number(expiry(ends))
	}
	if n := itemBytes(a); n > maxItemBytes {
		return nil, fmt.Errorf("%w: the cart would be an item of %d bytes, and an item of DynamoDB has at most %d", storage.ErrTooLarge, n, maxItemBytes)
	}
	return a, nil
}

// itemBytes is the size of an item by the rules of DynamoDB, or a few bytes more: a number takes a byte for two digits
// and one or two besides.
func itemBytes(a attributes) (n int) {
	for name, value := range a {
		n += len(name)
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			n += len(v.Value)
		case *types.AttributeValueMemberB:
			n += len(v.Value)
		case *types.AttributeValueMemberN:
			n += (len(v.Value)+1)/2 + 2
		}
	}
	return n
}

// decode reads an item, or the attributes of it that were asked for.
func (s space) decode(a attributes) (it item, err error) {
	for name, value := range a {
		ok := false
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			switch name {
			case attrIdentifier:
				it.key.Identifier, ok = strings.CutPrefix(v.Value, string(s))
			case attrInstance:
				if ok = true; v.Value != reservedInstance {
					it.key.Instance = v.Value
				}
			}
		case *types.AttributeValueMemberB:
			if ok = name == attrState; ok {
				it.state = v.Value
			}
		case *types.AttributeValueMemberN:
			switch name {
			case attrRevision:
				it.revision, err = strconv.ParseUint(v.Value, 10, 64)
			case attrExpires:
				it.expires, err = strconv.ParseInt(v.Value, 10, 64)
			}
			ok = err == nil
		}
		if !ok && isOurs(name) {
			return item{}, fmt.Errorf("%w: its attribute %s is none that Sidecart wrote", storage.ErrCorrupt, name)
		}
	}
	if it.revision == 0 {
		return item{}, fmt.Errorf("%w: it has no attribute %s", storage.ErrCorrupt, attrRevision)
	}
	return it, nil
}

func isOurs(name string) bool {
	switch name {
	case attrIdentifier, attrInstance, attrState, attrRevision, attrExpires:
		return true
	}
	return false
}

// over reports whether the item is not needed any more. It may stay in the table for days after that.
func (it *item) over(now time.Time) bool { return it.expires != 0 && it.expires <= now.Unix() }

// holdsCart reports whether there is a cart in the item that has not expired: an item may have locks alone.
func (it *item) holdsCart(now time.Time) (bool, error) {
	if it.over(now) {
		return false, nil
	}
	s, _, _, err := storage.DecodeState(it.state)
	if err != nil {
		return false, err
	}
	return s.Exists(now), nil
}
