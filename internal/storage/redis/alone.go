package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bsm/redislock"

	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Loner = (*Store)(nil)

// choreTTL is how long it takes until another sidecar takes over a chore from one that died. The lock is refreshed at
// every third of that.
const choreTTL = 15 * time.Second

// Alone holds a lock of bsm/redislock beside those of the carts: lock.<prefix>.%chore.<chore>, which is the key of no
// cart.
func (s *Store) Alone(ctx context.Context, chore string, do func(ctx context.Context) error) (did bool, err error) {
	doing := "do alone " + chore
	if !s.begin() {
		return false, fmt.Errorf("redis: %s: %w", doing, storage.ErrClosed)
	}
	defer s.tasks.Done()
	lock, err := redislock.Obtain(ctx, s.client, s.choreKey(chore), choreTTL, nil)
	if errors.Is(err, redislock.ErrNotObtained) {
		return false, nil
	}
	if err != nil {
		return false, s.translate(ctx, err, doing)
	}
	ctx, cancel := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		defer cancel()
		s.keepChore(ctx, lock)
	}()
	err = do(ctx)
	cancel()
	<-kept
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	_ = lock.Release(back) // after an error it ends by itself
	return true, err
}

// keepChore refreshes a lock until ctx or the store ends, or the lock is lost.
func (s *Store) keepChore(ctx context.Context, lock *redislock.Lock) {
	tick := time.NewTicker(choreTTL / 3)
	defer tick.Stop()
	for ends := time.Now().Add(choreTTL); time.Now().Before(ends); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-s.done:
			return
		}
		asked := time.Now()
		switch err := lock.Refresh(ctx, choreTTL, nil); {
		case err == nil:
			ends = asked.Add(choreTTL)
		case errors.Is(err, redislock.ErrNotObtained):
			return
		}
	}
}

func (s *Store) choreKey(chore string) string {
	owner := escape(chore)
	if s.space.cluster {
		owner = "{" + owner + "}"
	}
	return s.space.namespace + "lock." + s.space.prefix + ".%chore." + owner
}
