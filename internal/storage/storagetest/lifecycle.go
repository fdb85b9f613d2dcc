package storagetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// methods are all calls that can fail.
func (s *subject) methods() map[string]func(context.Context) error {
	calls := map[string]func(context.Context) error{
		"Load": func(ctx context.Context) error {
			_, err := s.store.Load(ctx, key)
			return err
		},
		"Commit": func(ctx context.Context) error {
			_, err := s.store.Commit(ctx, change(key, &cart.Cart{}, items(`{"late":1}`)))
			return err
		},
		"Flush": s.store.Flush,
		"Ping":  s.store.Ping,
	}
	if s.caps.NoFlush != "" {
		delete(calls, "Flush")
	}
	if s.caps.NoInstances == "" {
		calls["Instances"] = func(ctx context.Context) error {
			_, err := s.store.Instances(ctx, key.Identifier)
			return err
		}
	}
	if c, ok := storage.As[storage.Counter](s.store); ok && s.caps.NoCount == "" {
		calls["Count"] = func(ctx context.Context) error {
			_, _, err := c.Count(ctx, 1)
			return err
		}
	}
	if l, ok := s.locker(); ok {
		calls["Acquire"] = func(ctx context.Context) error {
			_, err := l.Acquire(ctx, key, storage.Claim{Token: storage.NewToken(), Parts: []cart.Part{cart.PartAll}, Duration: long}, false)
			return err
		}
		calls["Abandon"] = func(ctx context.Context) error { return l.Abandon(ctx, key, storage.NewToken()) }
		calls["Lease"] = func(ctx context.Context) error {
			_, err := l.Lease(ctx, key, storage.NewToken())
			return err
		}
		calls["Renew"] = func(ctx context.Context) error {
			_, err := l.Renew(ctx, key, storage.NewToken(), long)
			return err
		}
		calls["Release"] = func(ctx context.Context) error { return l.Release(ctx, key, storage.NewToken()) }
	}
	return calls
}

func testCancelled(s *subject) {
	was := s.put(key, items(`{"a":1}`))
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	for method, call := range s.methods() {
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			s.Errorf("%s with a cancelled context: %v", method, err)
		}
	}
	s.same("afterwards", s.load(key), was)
}

func testDeadlinePassed(s *subject) {
	was := s.put(key, items(`{"a":1}`))
	ctx, cancel := context.WithDeadline(s.ctx, time.Now().Add(-time.Second))
	defer cancel()
	for method, call := range s.methods() {
		err := call(ctx)
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, storage.ErrUnavailable) && !(method == "Acquire" && errors.Is(err, storage.ErrLockTimeout)) {
			s.Errorf("%s after its deadline: %v", method, err)
		}
	}
	s.same("afterwards", s.load(key), was)
}

func testClosed(s *subject) {
	s.put(key, items(`{"a":1}`))
	if err := s.store.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	for method, call := range s.methods() {
		if err := call(s.ctx); !errors.Is(err, storage.ErrClosed) {
			s.Errorf("%s after Close: %v, want ErrClosed", method, err)
		}
	}
	if err := s.store.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
		s.Errorf("second Close: %v", err)
	}
}

// testConcurrentClose: calls under way end with their result or ErrClosed, and what was acknowledged is there.
func testConcurrentClose(s *subject) {
	second := s.second()
	var acknowledged [6]uint64
	s.together(8, func(i int) error {
		key := cart.Key{Identifier: "closing", Instance: fmt.Sprint(i)}
		if i >= len(acknowledged) {
			// Two closers, once the others are at work.
			for {
				first := cart.Key{Identifier: "closing", Instance: "0"}
				c, err := s.store.Load(s.ctx, first)
				if errors.Is(err, storage.ErrClosed) || err == nil && c.Version > 3 {
					break
				}
				if err != nil {
					return err
				}
			}
			if err := s.store.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
				return fmt.Errorf("Close: %w", err)
			}
			return nil
		}
		at := &cart.Cart{}
		for n := 1; ; n++ {
			outs, err := s.store.Commit(s.ctx, change(key, at, items(fmt.Sprintf(`{"n":%d}`, n))))
			if errors.Is(err, storage.ErrClosed) {
				return nil
			}
			if err != nil || outs[0].Status != storage.Committed {
				return fmt.Errorf("Commit: %v, %w", outs, err)
			}
			acknowledged[i] = outs[0].Base + 1
			at = &cart.Cart{ID: outs[0].ID, Version: acknowledged[i]}
		}
	})
	for method, call := range s.methods() {
		if err := call(s.ctx); !errors.Is(err, storage.ErrClosed) {
			s.Errorf("%s after Close: %v, want ErrClosed", method, err)
		}
	}
	if second.store == s.store {
		return
	}
	for i, version := range acknowledged {
		if got := second.load(cart.Key{Identifier: "closing", Instance: fmt.Sprint(i)}); got.Version < version {
			s.Errorf("writer %d: version %d was acknowledged, %d is there", i, version, got.Version)
		}
	}
}
