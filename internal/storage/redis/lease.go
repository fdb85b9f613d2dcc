package redis

import (
	"context"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Lease runs one script.
func (s *Store) Lease(ctx context.Context, key cart.Key, token string) (storage.Lease, error) {
	lease, err := s.lease(ctx, key, "look", token, 0)
	return lease, s.translate(ctx, err, "look at lock of", key)
}

// Renew runs one script.
func (s *Store) Renew(ctx context.Context, key cart.Key, token string, lease time.Duration) (storage.Lease, error) {
	renewed, err := s.lease(ctx, key, "renew", token, lease)
	return renewed, s.translate(ctx, err, "renew lock of", key)
}

// Release runs one script.
func (s *Store) Release(ctx context.Context, key cart.Key, token string) error {
	_, err := s.lease(ctx, key, "release", token, 0)
	return s.translate(ctx, err, "release lock of", key)
}

func (s *Store) lease(ctx context.Context, key cart.Key, doing, token string, lease time.Duration) (storage.Lease, error) {
	reply, err := s.run(ctx, leaseScript, append(scriptArgs(leaseScript, 3, s.lockKeys(key, nil)...), doing, token, millis(lease)))
	if err != nil {
		return storage.Lease{}, err
	}
	return decodeLease(reply)
}

func decodeLease(reply string) (storage.Lease, error) {
	u := unpacker{rest: reply}
	u.next()
	switch u.next().text {
	case "lost":
		return storage.Lease{}, storage.ErrLockLost
	case "unknown":
		return storage.Lease{}, storage.ErrLockUnknown
	}
	var l storage.Lease
	for _, p := range u.texts() {
		l.Parts = append(l.Parts, cart.Part(p))
	}
	l.Holder, l.Fence, l.Expires = u.next().text, u.fence(), u.time()
	l.Duration = time.Duration(u.next().n) * time.Millisecond
	return l, u.err
}
