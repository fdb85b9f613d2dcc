// Package varint reads and writes values that stand one after the other: whole numbers as varints, and text as its
// length and its bytes. It knows nothing of what they mean.
package varint

import "encoding/binary"

// AppendText appends text to b.
func AppendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// Reader reads what was written, in its order. Once something was not there it has failed: nothing is left, and all
// that is read is zero. The zero Reader has nothing to read.
type Reader struct {
	rest   []byte
	failed bool
}

// NewReader returns a reader of b.
func NewReader(b []byte) Reader { return Reader{rest: b} }

// Len is how many bytes are left.
func (r *Reader) Len() int { return len(r.rest) }

// Failed reports whether something was not there.
func (r *Reader) Failed() bool { return r.failed }

// Fail makes the reader fail.
func (r *Reader) Fail() { r.rest, r.failed = nil, true }

// Take reads the next n bytes, which are a part of what is read.
func (r *Reader) Take(n uint64) []byte {
	if n > uint64(len(r.rest)) || r.failed {
		r.Fail()
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// Uint reads a whole number that is not negative.
func (r *Reader) Uint() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.Fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// Int reads a whole number.
func (r *Reader) Int() int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.Fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// Text reads what [AppendText] wrote.
func (r *Reader) Text() string { return string(r.Take(r.Uint())) }
