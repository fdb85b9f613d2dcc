package storage

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
)

// NewToken makes an unguessable token of 128 random bits in the form of bsm/redislock: 22 characters of base64url.
func NewToken() string {
	b := randomBits()
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// NewID makes the id of a new cart, a version 4 UUID (RFC 9562).
func NewID() string {
	b := randomBits()
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func randomBits() (b [16]byte) {
	_, _ = rand.Read(b[:]) // crypto/rand never returns an error: it ends the process instead
	return b
}
