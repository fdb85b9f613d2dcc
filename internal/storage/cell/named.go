package cell

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/varint"
)

// A named value is for a backend whose keys cannot hold every cart's name. Such a backend uses a hash as the key, and
// the value says which cart it belongs to.
//
//	format 1: mark, format, CRC-32C of what follows, identifier, instance, value
//
// A name is its length, a varint, and its bytes.
const (
	namedMark   = "\xc5cart"
	namedFormat = 1
	namedHeader = len(namedMark) + 1 + crc32.Size
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errForeign   = errors.New("somebody else wrote it")
	errDamaged   = errors.New("its checksum is wrong")
	errOtherName = errors.New("it is the cart of another name")
)

// EncodeNamed returns value with the name of its cart.
func EncodeNamed(key cart.Key, value []byte) []byte {
	buf := make([]byte, namedHeader, namedHeader+len(key.Identifier)+len(key.Instance)+2*binary.MaxVarintLen16+len(value))
	copy(buf, namedMark)
	buf[len(namedMark)] = namedFormat
	for _, name := range []string{key.Identifier, key.Instance} {
		buf = varint.AppendText(buf, name)
	}
	buf = append(buf, value...)
	binary.BigEndian.PutUint32(buf[namedHeader-crc32.Size:], crc32.Checksum(buf[namedHeader:], castagnoli))
	return buf
}

// DecodeNamed returns the value that [EncodeNamed] was given for key. It shares the memory of stored. A format that
// this release does not know gives an ErrUnsupported that names it. Anything else, and a value of another cart, gives
// an ErrCorrupt.
func DecodeNamed(key cart.Key, stored []byte) ([]byte, error) {
	found, value, err := ReadNamed(stored)
	if err == nil && found != key {
		err = fmt.Errorf("%w: %w", storage.ErrCorrupt, errOtherName)
	}
	if err != nil {
		return nil, err
	}
	return value, nil
}

// ReadNamed returns what [EncodeNamed] was given.
func ReadNamed(stored []byte) (key cart.Key, value []byte, err error) {
	switch {
	case len(stored) < namedHeader || string(stored[:len(namedMark)]) != namedMark:
		return key, nil, fmt.Errorf("%w: %w", storage.ErrCorrupt, errForeign)
	case stored[len(namedMark)] != namedFormat:
		return key, nil, fmt.Errorf("%w: the stored cart is in an envelope of format %d, which another release wrote: this one reads format %d",
			storage.ErrUnsupported, stored[len(namedMark)], namedFormat)
	case binary.BigEndian.Uint32(stored[namedHeader-crc32.Size:]) != crc32.Checksum(stored[namedHeader:], castagnoli):
		return key, nil, fmt.Errorf("%w: %w", storage.ErrCorrupt, errDamaged)
	}
	r := varint.NewReader(stored[namedHeader:])
	key = cart.Key{Identifier: r.Text(), Instance: r.Text()}
	value = r.Take(uint64(r.Len()))
	if r.Failed() {
		return cart.Key{}, nil, fmt.Errorf("%w: %w", storage.ErrCorrupt, errDamaged)
	}
	return key, value, nil
}
