package storagetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// enqueue claims parts by a commit, which must say that the claim is queued. The order of these commits is the order of
// the queue.
func (s *subject) enqueue(key cart.Key, c storage.Claim) {
	s.Helper()
	commit := check(key, s.load(key), c.Parts...)
	commit.Expect.ID = storage.NewID() // a conflict, where no lock is in the way
	commit.Locks.Claim = &c
	if out := s.try(commit)[0]; out.Claimed != (storage.Claimed{Queued: true}) {
		s.Fatalf("claim of %v: %s, %+v, want it queued", c.Parts, name(out.Status), out.Claimed)
	}
}

// waiter is an Acquire under way.
type waiter struct {
	got   *cart.Cart
	grant storage.Grant
	err   error
	done  chan struct{}
}

func (s *subject) wait(ctx context.Context, l storage.Locker, key cart.Key, c storage.Claim, queued bool) *waiter {
	w := &waiter{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		var g storage.Grant
		g, w.err = l.Acquire(ctx, key, c, queued)
		w.got, w.grant = g.Cart, g
	}()
	return w
}

// granted fails unless the waiter has got its lock.
func (s *subject) granted(what string, w *waiter) *cart.Cart {
	s.Helper()
	select {
	case <-w.done:
	case <-time.After(patience):
		s.Fatalf("%s: still waiting after %v", what, patience)
	}
	if w.err != nil || w.got == nil {
		s.Fatalf("%s: %v, %v", what, w.got, w.err)
	}
	return w.got
}

func (w *waiter) waiting() bool {
	select {
	case <-w.done:
		return false
	default:
		return true
	}
}

func testAbandon(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.abandon(l, key, storage.NewToken()) // holds nothing
	s.missing("Abandon creates nothing", s.load(key))

	holder, next, last := storage.NewToken(), claim(storage.NewToken(), cart.PartItems), claim(storage.NewToken(), cart.PartItems)
	s.acquire(l, key, holder, cart.PartAll)
	s.enqueue(key, next)
	w := s.wait(s.ctx, l, key, next, true)
	s.abandon(l, key, storage.NewToken())
	s.wantProbe("after a stranger's Abandon", storage.Locked, key, cart.PartItems)
	s.enqueue(key, last)
	s.abandon(l, key, last.Token) // gives up its place
	if !w.waiting() {
		s.Fatalf("granted while held: %v, %v", w.got, w.err)
	}
	s.abandon(l, key, holder)
	s.granted("the next", w)
	s.abandon(l, key, next.Token)
	s.wantProbe("the one that gave up has no lock", storage.Committed, key, cart.PartAll)
}

func testClaimOnConflict(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	was := s.put(key, items(`{"a":1}`))
	ask := claim(storage.NewToken(), cart.PartItems)
	c := change(key, &cart.Cart{}, items(`{"b":1}`))
	c.Locks.Claim = &ask
	out := s.commit(storage.Conflict, c)
	if out.Claimed != (storage.Claimed{Granted: true}) {
		s.Fatalf("claimed %+v, want it granted", out.Claimed)
	}
	s.same("the conflict's cart", out.Cart, was)
	s.wantProbe("claimed", storage.Locked, key, cart.PartItems)
	s.wantProbe("not claimed", storage.Committed, key, cart.PartConditions)
	retry := under(ask.Token, change(key, out.Cart, items(`{"b":1}`)))
	retry.Locks.Release = true
	s.commit(storage.Committed, retry)
	s.wantProbe("released", storage.Committed, key, cart.PartAll)

	// The same on a cart that does not exist.
	other := cart.Key{Identifier: "u2", Instance: "default"}
	c = change(other, was, items(`{"b":1}`))
	ask = claim(storage.NewToken(), cart.PartAll)
	c.Locks.Claim = &ask
	out = s.commit(storage.Conflict, c)
	if !out.Claimed.Granted {
		s.Fatalf("claimed %+v, want it granted", out.Claimed)
	}
	s.missing("the conflict's cart", out.Cart)
	s.wantProbe("claimed", storage.Locked, other, cart.PartMetadata("m"))
	s.missing("Load", s.load(other))
	s.abandon(l, other, ask.Token)
}

func testClaimWhileHeld(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	base := s.put(key, items(`{"a":1}`))
	holder := storage.NewToken()
	s.acquire(l, key, holder, cart.PartItems)
	ask := claim(storage.NewToken(), cart.PartItems)
	c := change(key, base, items(`{"b":1}`))
	c.Locks.Claim = &ask
	if out := s.commit(storage.Locked, c); out.Claimed != (storage.Claimed{Queued: true}) {
		s.Fatalf("claimed %+v, want it queued", out.Claimed)
	}
	w := s.wait(s.ctx, l, key, ask, true)
	last := under(holder, change(key, base, items(`{"last":1}`)))
	last.Locks.Release = true
	s.commit(storage.Committed, last)
	got := s.granted("after the release", w)
	s.is("the state comes with the lock", got, content{ID: base.ID, Version: 2, Items: `{"last":1}`, ItemsVersion: 2})
	s.wantProbe("handed over", storage.Locked, key, cart.PartItems)
	s.commit(storage.LockUnknown, under(holder, check(key, got, cart.PartItems)))
	s.commit(storage.Committed, under(ask.Token, change(key, got, items(`{"b":1}`))))
}

// testClaimUnused: a commit that succeeds takes no lock.
func testClaimUnused(s *subject) {
	if _, ok := s.locker(); !ok {
		return
	}
	ask := claim(storage.NewToken(), cart.PartAll)
	c := change(key, s.load(key), items(`{"a":1}`))
	c.Locks.Claim = &ask
	if out := s.commit(storage.Committed, c); out.Claimed != (storage.Claimed{}) {
		s.Errorf("claimed %+v by a commit that succeeded", out.Claimed)
	}
	s.wantProbe("afterwards", storage.Committed, key, cart.PartAll)
}

// testAgain: a commit that gives a lock back to others can queue for it again in the same step.
func testAgain(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	s.put(key, items(`{"a":0}`))
	again := claim(storage.NewToken(), cart.PartItems)
	turn := func(token string, status storage.Status) storage.Outcome {
		s.Helper()
		c := under(token, change(key, s.load(key), items(`{"a":1}`)))
		c.Locks.Release, c.Locks.Again = true, &again
		return s.commit(status, c)
	}

	holder := storage.NewToken()
	s.acquire(l, key, holder, cart.PartItems)
	if out := turn(holder, storage.Committed); out.Claimed != (storage.Claimed{}) {
		s.Errorf("nobody waits, and yet claimed %+v", out.Claimed)
	}
	s.wantProbe("nobody waits", storage.Committed, key, cart.PartAll)

	next := claim(storage.NewToken(), cart.PartItems)
	s.acquire(l, key, holder, cart.PartItems)
	s.enqueue(key, next)
	w := s.wait(s.ctx, l, key, next, true)
	if out := turn(storage.NewToken(), storage.LockUnknown); out.Claimed != (storage.Claimed{}) {
		s.Errorf("a commit that failed claimed %+v", out.Claimed)
	}
	if out := turn(holder, storage.Committed); out.Claimed != (storage.Claimed{Queued: true}) {
		s.Fatalf("somebody waits, claimed %+v, want it queued", out.Claimed)
	}
	w2 := s.wait(s.ctx, l, key, again, true)
	s.granted("who waited before", w)
	if !w2.waiting() {
		s.Fatalf("granted out of turn: %v", w2.err)
	}
	s.abandon(l, key, next.Token)
	s.granted("who queued again", w2)
}

func testQueueOrder(s *subject) {
	if l, ok := s.locker(); ok {
		s.order(l, l)
	}
}

func testQueueOrderTwoStores(s *subject) {
	a, ok := s.locker()
	if !ok {
		return
	}
	b, _ := s.second().locker()
	s.order(a, b)
}

// order lets waiters queue over two stores and wants them served in turn. A waiter keeps its place for WaiterTTL
// without a sign of life. If a busy machine took longer than that for all of them, one may have lost its place and
// queued again. Then another order proves nothing, and they queue once more.
func (s *subject) order(a, b storage.Locker) {
	const want, attempts = "[0 1 2 3 4 5]", 5
	for n := 1; ; n++ {
		began := time.Now()
		got := fmt.Sprint(s.served(a, b))
		took := time.Since(began)
		if got == want {
			break
		}
		if took < storage.WaiterTTL || n == attempts {
			s.Errorf("served in the order %s within %v, want %s", got, took, want)
			break
		}
	}
	s.wantProbe("all served", storage.Committed, key, cart.PartAll)
}

// served lets waiters queue over two stores and returns the order in which they were served.
func (s *subject) served(a, b storage.Locker) (order []int) {
	lockers := []storage.Locker{a, b}
	holder := storage.NewToken()
	s.acquire(a, key, holder, cart.PartItems)
	const waiters = 6
	var (
		mu   sync.Mutex
		done = make(chan error, waiters)
	)
	for i := range waiters {
		c := claim(storage.NewToken(), cart.PartItems)
		if i == 2 {
			c.Parts = []cart.Part{cart.PartAll}
		}
		s.on(lockers[i%2]).enqueue(key, c)
		go func() {
			l := lockers[i%2]
			if _, err := l.Acquire(s.ctx, key, c, true); err != nil {
				done <- fmt.Errorf("waiter %d: %w", i, err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			done <- l.Abandon(s.ctx, key, c.Token)
		}()
	}
	s.abandon(a, key, holder)
	for range waiters {
		if err := <-done; err != nil {
			s.Fatal(err)
		}
	}
	return order
}

// testQueueDisjoint repeats its round. A waiter that is not heard of for storage.WaiterTTL loses its place, and a round
// in which a machine stalled for that long proves nothing.
func testQueueDisjoint(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	const rounds = 3
	for n := range rounds {
		wrong := disjointRound(s, l, cart.Key{Identifier: fmt.Sprintf("disjoint-%d", n), Instance: "default"})
		switch {
		case wrong == "":
			return
		case n == rounds-1:
			s.Fatal(wrong)
		}
		s.Log(wrong)
	}
}

// disjointRound returns what went wrong, "" if nothing did.
func disjointRound(s *subject, l storage.Locker, key cart.Key) string {
	s.Helper()
	ctx, end := context.WithCancel(s.ctx)
	var all []*waiter
	wait := func(c storage.Claim) *waiter {
		all = append(all, s.wait(ctx, l, key, c, true))
		return all[len(all)-1]
	}
	defer func() {
		end()
		for _, w := range all {
			<-w.done
		}
	}()
	granted := func(w *waiter) bool {
		select {
		case <-w.done:
			return w.err == nil && w.got != nil
		case <-time.After(patience / 3):
			return false
		}
	}

	m := cart.PartMetadata("m")
	holder, both := storage.NewToken(), claim(storage.NewToken(), cart.PartItems, cart.PartConditions)
	s.acquire(l, key, holder, cart.PartItems)
	s.enqueue(key, both)
	w := wait(both)

	passing := storage.NewToken()
	s.acquire(l, key, passing, m) // shares nothing with anybody
	behind := claim(storage.NewToken(), cart.PartConditions)
	s.enqueue(key, behind) // free, but somebody before it waits for it
	whole := claim(storage.NewToken(), cart.PartAll)
	s.enqueue(key, whole)
	late := claim(storage.NewToken(), cart.PartMetadata("late"))
	s.enqueue(key, late) // the whole cart is waited for
	w2, w3, w4 := wait(behind), wait(whole), wait(late)

	s.abandon(l, key, holder)
	if !granted(w) {
		return "items and conditions are not granted"
	}
	if !w2.waiting() || !w3.waiting() || !w4.waiting() {
		return fmt.Sprintf("granted out of turn: conditions %v, all %v, late %v", !w2.waiting(), !w3.waiting(), !w4.waiting())
	}
	s.abandon(l, key, both.Token)
	if !granted(w2) {
		return "conditions are not granted"
	}
	s.abandon(l, key, behind.Token)
	if !w3.waiting() || !w4.waiting() {
		return fmt.Sprintf("the whole cart was granted while a part was held, or passed: all %v, late %v", !w3.waiting(), !w4.waiting())
	}
	s.abandon(l, key, passing)
	if !granted(w3) {
		return "the whole cart is not granted"
	}
	s.abandon(l, key, whole.Token)
	if !granted(w4) {
		return "what came late is not granted"
	}
	return ""
}

// testQueueCrowd counts under the lock alone, without expecting a version. If two held the lock at once, a count would
// be lost.
func testQueueCrowd(s *subject) {
	a, ok := s.locker()
	if !ok {
		return
	}
	b, _ := s.second().locker()
	lockers := []storage.Locker{a, b}
	const crowd, rounds = 6, 5
	s.put(key, items(`{"n":0}`))
	s.together(crowd, func(i int) error {
		l := lockers[i%2]
		for range rounds {
			ask := claim(storage.NewToken(), cart.PartItems)
			g, err := l.Acquire(s.ctx, key, ask, false)
			if err != nil {
				return err
			}
			at := g.Cart
			n, err := number(at)
			if err != nil {
				return err
			}
			c := under(ask.Token, change(key, at, items(fmt.Sprintf(`{"n":%d}`, n+1))))
			c.Expect.Version, c.Locks.Release = 0, true
			outs, err := l.Commit(s.ctx, c)
			if err != nil || outs[0].Status != storage.Committed {
				return fmt.Errorf("commit under a lock: %v, %w", outs, err)
			}
		}
		return nil
	})
	if n, err := number(s.load(key)); err != nil || n != crowd*rounds {
		s.Errorf("counted to %d of %d: %v", n, crowd*rounds, err)
	}
}

// testCrashedHolder: the lock of a holder that has crashed ends with its lease.
func testCrashedHolder(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	crashed := claim(storage.NewToken(), cart.PartAll)
	crashed.Duration = brief
	begun := time.Now()
	if _, err := l.Acquire(s.ctx, key, crashed, false); err != nil {
		s.Fatalf("Acquire: %v", err)
	}
	second := s.second()
	other, _ := second.locker()
	second.acquire(other, key, storage.NewToken(), cart.PartItems)
	if waited := time.Since(begun); waited < brief-time.Millisecond {
		s.Errorf("the lock passed on after %v, in a lease of %v", waited, brief)
	}
	s.commit(storage.LockUnknown, under(crashed.Token, check(key, s.load(key), cart.PartConditions)))
}

func testDeadWaiter(s *subject) {
	l, ok := s.locker()
	if !ok {
		return
	}
	// The holder's lease outlasts the life of the waiter that nobody renews.
	holder := claim(storage.NewToken(), cart.PartItems)
	holder.Duration = 2 * storage.WaiterTTL
	if _, err := l.Acquire(s.ctx, key, holder, false); err != nil {
		s.Fatalf("Acquire: %v", err)
	}
	dead, living := claim(storage.NewToken(), cart.PartItems), claim(storage.NewToken(), cart.PartItems)
	s.enqueue(key, dead)
	s.enqueue(key, living)
	s.granted("the living waiter", s.wait(s.ctx, l, key, living, true))
	s.commit(storage.LockUnknown, under(dead.Token, check(key, s.load(key), cart.PartItems)))
}
