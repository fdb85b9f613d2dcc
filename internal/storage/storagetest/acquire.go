package storagetest

import (
	"context"
	"errors"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

func testAcquireReturnsCart(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	was := s.put(key, items(texts[1]), conditions(texts[2]), metadata("m", texts[1]), storage.Write{Part: cart.PartReceived, Value: []byte("x")})
	token := storage.NewToken()
	s.same("Acquire", s.acquire(l, key, token, cart.PartItems), was)
	s.same("Acquire anew", s.acquire(l, key, token, cart.PartItems), was)
	s.same("the cart is as it was", s.load(key), was)
}

// leaves fails unless the waiter that gave up its claim is gone from the queue within the life of a silent waiter. It
// must not be granted the lock that ends then.
func (s *subject) leaves(l storage.Locker, key cart.Key, holder, gone string) {
	s.Helper()
	s.passed(time.Now().Add(storage.WaiterTTL))
	s.abandon(l, key, holder)
	s.acquire(l, key, storage.NewToken(), cart.PartItems)
	s.commit(storage.LockUnknown, under(gone, check(key, s.load(key), cart.PartItems)))
}

func testAcquireTimesOut(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	const wait = 2 * brief // time enough to get an answer from a loaded machine
	holder, late := storage.NewToken(), storage.NewToken()
	s.acquire(l, key, holder, cart.PartItems)
	ctx, cancel := context.WithTimeout(s.ctx, wait)
	defer cancel()
	begun := time.Now()
	_, err := l.Acquire(ctx, key, claim(late, cart.PartAll), false)
	if !errors.Is(err, storage.ErrLockTimeout) {
		s.Fatalf("Acquire beyond its deadline: %v, want ErrLockTimeout", err)
	}
	if waited := time.Since(begun); waited < wait-time.Millisecond || waited > wait+patience/10 {
		s.Errorf("waited %v, want %v", waited, wait)
	}
	s.leaves(l, key, holder, late)
}

func testAcquireCancelled(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	holder, late := storage.NewToken(), claim(storage.NewToken(), cart.PartItems)
	s.acquire(l, key, holder, cart.PartItems)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	s.enqueue(key, late)
	w := s.wait(ctx, l, key, late, true)
	cancel()
	select {
	case <-w.done:
	case <-time.After(patience):
		s.Fatalf("Acquire goes on after its context was cancelled")
	}
	if !errors.Is(w.err, context.Canceled) || errors.Is(w.err, storage.ErrLockTimeout) {
		s.Fatalf("cancelled Acquire: %v", w.err)
	}
	s.leaves(l, key, holder, late.Token)
}

func testAcquireClosed(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.acquire(l, key, storage.NewToken(), cart.PartItems)
	queued := claim(storage.NewToken(), cart.PartItems)
	s.enqueue(key, queued)
	w := s.wait(s.ctx, l, key, queued, true)
	if err := l.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	select {
	case <-w.done:
	case <-time.After(patience):
		s.Fatalf("Acquire goes on after Close")
	}
	if !errors.Is(w.err, storage.ErrClosed) {
		s.Errorf("Acquire under way at Close: %v, want ErrClosed", w.err)
	}
}

// testHeartbeat: a waiter keeps its place for longer than a silent waiter lives.
func testHeartbeat(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	holder, first, second := storage.NewToken(), claim(storage.NewToken(), cart.PartItems), claim(storage.NewToken(), cart.PartItems)
	s.acquire(l, key, holder, cart.PartItems)
	begun := time.Now()
	s.enqueue(key, first)
	w := s.wait(s.ctx, l, key, first, true)
	s.passed(begun.Add(storage.WaiterTTL / 2))
	s.enqueue(key, second)
	w2 := s.wait(s.ctx, l, key, second, true)
	// Now the first would be dead without a sign of life, and the second not yet.
	s.passed(begun.Add(storage.WaiterTTL * 5 / 4))
	s.abandon(l, key, holder)
	s.granted("the first", w)
	if !w2.waiting() {
		s.Fatalf("the second passed the first: %v", w2.err)
	}
	s.abandon(l, key, first.Token)
	s.granted("the second", w2)
}
