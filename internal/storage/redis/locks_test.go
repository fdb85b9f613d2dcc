package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bsm/redislock"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

var u1 = cart.Key{Identifier: "u1", Instance: "default"}

// replace is a commit that replaces the items of what was read, and lives an hour.
func replace(key cart.Key, was *cart.Cart, items string) storage.Commit {
	c := storage.Commit{
		Key: key, Expect: storage.Expect{ID: was.ID, Parts: map[cart.Part]uint64{cart.PartItems: was.Items.Version}},
		Change: storage.Change{Steps: 1, TTL: time.Hour, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(items), Step: 1}}},
		Locks:  storage.Locks{Parts: []cart.Part{cart.PartItems}},
	}
	if !was.Exists() {
		c.Change.NewID = randomName()
	}
	return c
}

func mustCommit(t testing.TB, s *Store, want storage.Status, c storage.Commit) storage.Outcome {
	t.Helper()
	outs, err := s.Commit(t.Context(), c)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	if outs[0].Status != want {
		t.Fatalf("Commit = %+v, want status %d", outs[0], want)
	}
	return outs[0]
}

func mustLoad(t testing.TB, s *Store, key cart.Key) *cart.Cart {
	t.Helper()
	c, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

func claimOf(parts ...cart.Part) storage.Claim {
	return storage.Claim{Token: randomName(), Holder: "test", Parts: parts, Duration: time.Hour}
}

// acquired is the result of an Acquire in the background.
type acquired struct {
	cart  *cart.Cart
	grant storage.Grant
	err   error
}

func acquireLater(ctx context.Context, s *Store, key cart.Key, c storage.Claim, queued bool) <-chan acquired {
	done := make(chan acquired, 1)
	go func() {
		got, err := s.Acquire(ctx, key, c, queued)
		done <- acquired{got.Cart, got, err}
	}()
	return done
}

// awaitQueue returns when the token is in the queue.
func awaitQueue(t testing.TB, s *Store, key cart.Key, token string) {
	t.Helper()
	await(t, "the claim is in the queue", func() bool {
		return strings.Contains(s.client.Get(t.Context(), s.space.names(key).queue).Val(), token)
	})
}

// await asks until the condition holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
		if err := pause(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

func receive(t testing.TB, done <-chan acquired) *cart.Cart {
	t.Helper()
	select {
	case a := <-done:
		if a.err != nil {
			t.Fatalf("Acquire: %v", a.err)
		}
		return a.cart
	case <-time.After(patient):
		t.Fatal("Acquire did not return")
	}
	return nil
}

// TestLockOfRedislock: a lock that another program took with bsm/redislock holds us off, and ours holds that program
// off.
func TestLockOfRedislock(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	other := redislock.New(s.client)
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	for _, test := range []struct {
		key   string
		parts []cart.Part // of ours, which it must hold off
	}{
		{"lock.cart.u1.default.items", []cart.Part{cart.PartItems}},
		{"lock.cart.u1.default.items", []cart.Part{cart.PartAll}},
		{"lock.cart.u1.default", []cart.Part{cart.PartConditions}},
		{"lock.cart.u1.default.metadata.gift%2Ewrap", []cart.Part{cart.PartConditions, cart.PartMetadata("gift.wrap")}},
	} {
		t.Run(test.key+fmt.Sprint(test.parts), func(t *testing.T) {
			lock, err := other.Obtain(t.Context(), test.key, time.Hour, &redislock.Options{Metadata: "php"})
			if err != nil {
				t.Fatal(err)
			}
			was := mustLoad(t, s, u1)
			c := replace(u1, was, `{"b":1}`)
			c.Locks.Parts = test.parts
			mustCommit(t, s, storage.Locked, c)
			claim := claimOf(test.parts...)
			c.Locks.Claim = &claim
			if out := mustCommit(t, s, storage.Locked, c); !out.Claimed.Queued {
				t.Fatalf("claim %+v, want it queued", out.Claimed)
			}
			done := acquireLater(t.Context(), s, u1, claim, true)
			awaitQueue(t, s, u1, claim.Token)
			if err := lock.Release(t.Context()); err != nil {
				t.Fatalf("its lock was touched: %v", err)
			}
			if got := receive(t, done); describe(got) != describe(was) {
				t.Errorf("acquired %s, want %s", describe(got), describe(was))
			}
			n := s.space.names(u1)
			for _, p := range test.parts {
				if _, err := other.Obtain(t.Context(), n.lockKey(p), time.Hour, nil); !errors.Is(err, redislock.ErrNotObtained) {
					t.Errorf("another program obtains %s: %v", n.lockKey(p), err)
				}
				if v, _ := r.Do("GET", n.lockKey(p)); v != claim.Token+claim.Holder {
					t.Errorf("%s = %q, want token and holder", n.lockKey(p), v)
				}
			}
			if err := s.Abandon(t.Context(), u1, claim.Token); err != nil {
				t.Fatal(err)
			}
			lock, err = other.Obtain(t.Context(), test.key, time.Hour, nil)
			if err != nil {
				t.Fatalf("after Abandon: %v", err)
			}
			if err := lock.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestForeignTokenIsALease: a client that got a lock by another program may change the cart under its token.
func TestForeignTokenIsALease(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	lock, err := redislock.Obtain(t.Context(), s.client, "lock.cart.u1.default.items", time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := replace(u1, &cart.Cart{}, `{"a":1}`)
	c.Locks.Token, c.Locks.MustHold, c.Locks.Release = lock.Token(), true, true
	mustCommit(t, s, storage.Committed, c)
	if err := lock.Release(t.Context()); !errors.Is(err, redislock.ErrLockNotHeld) {
		t.Errorf("the commit did not give the lock back: %v", err)
	}
	mustCommit(t, s, storage.LockUnknown, c)
}

// TestLockBeneathLock: a program that does not know of locks on the whole cart may take the lock of a part meanwhile.
// That lock is not overwritten.
func TestLockBeneathLock(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	claim := claimOf(cart.PartAll)
	if _, err := s.Acquire(t.Context(), u1, claim, false); err != nil {
		t.Fatal(err)
	}
	lock, err := redislock.Obtain(t.Context(), s.client, "lock.cart.u1.default.items", time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	claim.Parts = []cart.Part{cart.PartItems} // renews a part of what it holds
	if _, err := s.Acquire(t.Context(), u1, claim, false); err != nil {
		t.Fatal(err)
	}
	c := replace(u1, &cart.Cart{}, `{}`)
	c.Locks.Token, c.Locks.MustHold = claim.Token, true
	mustCommit(t, s, storage.Locked, c)
	if err := s.Abandon(t.Context(), u1, claim.Token); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(t.Context()); err != nil {
		t.Errorf("the other program's lock: %v", err)
	}
}

// TestBrokenLock: a lock key that somebody deletes ends the lease at that instant.
func TestBrokenLock(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	claim := claimOf(cart.PartItems, cart.PartConditions)
	if _, err := s.Acquire(t.Context(), u1, claim, false); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Do("DEL", "lock.cart.u1.default.conditions"); n != "1" {
		t.Fatalf("DEL = %s, %v", n, err)
	}
	c := replace(u1, &cart.Cart{}, `{"a":1}`)
	c.Locks.Token, c.Locks.MustHold = claim.Token, true
	mustCommit(t, s, storage.LockUnknown, c)
	c.Locks.Token, c.Locks.MustHold = "", false
	mustCommit(t, s, storage.Committed, c)
}

// TestHandOverByPush: with a heartbeat that never comes, only the wake-up can end the wait. It carries the cart; if
// that is large, the waiter reads it.
func TestHandOverByPush(t *testing.T) {
	r := testserver.StartRedis(t)
	c := testserver.StartRedisCluster(t, 3)
	for name, config := range map[string]Config{
		"Standalone": {Addresses: []string{r.Addr}},
		"Cluster":    {Addresses: c.Addrs(), Mode: Cluster},
	} {
		for size, items := range map[string]string{"small": `{"a":1}`, "large": `{"a":"` + strings.Repeat("x", 100_000) + `"}`} {
			t.Run(name+"/"+size, func(t *testing.T) {
				config := config
				config.Prefix = name + size
				one, two := open(t, config), open(t, config)
				two.heartbeat = time.Hour
				first := claimOf(cart.PartItems)
				g, err := one.Acquire(t.Context(), u1, first, false)
				if err != nil || g.Cart.Exists() {
					t.Fatalf("Acquire: %+v, %v", g, err)
				}
				was := g.Cart
				if name == "Standalone" { // else it begins to listen while the lock is handed over
					listen(t, two)
				}
				second := claimOf(cart.PartItems)
				ask := replace(u1, was, `{}`)
				ask.Locks.Claim = &second
				if out := mustCommit(t, two, storage.Locked, ask); !out.Claimed.Queued {
					t.Fatalf("claim %+v, want it queued", out.Claimed)
				}
				done := acquireLater(t.Context(), two, u1, second, true)
				done2 := acquireAgain(t, two, u1)
				change := replace(u1, was, items)
				change.Locks.Token, change.Locks.MustHold, change.Locks.Release = first.Token, true, true
				mustCommit(t, one, storage.Committed, change)
				got := receive(t, done)
				if string(got.Items.Object.Bytes()) != items || got.Version != 1 {
					t.Errorf("acquired version %d with %d bytes", got.Version, len(got.Items.Object.Bytes()))
				}
				// The next in line is woken by Abandon as well.
				if err := two.Abandon(t.Context(), u1, second.Token); err != nil {
					t.Fatal(err)
				}
				receive(t, done2)
			})
		}
	}
}

func listen(t testing.TB, s *Store) {
	t.Helper()
	if err := s.waiters.listen(t.Context(), s.client); err != nil {
		t.Fatal(err)
	}
}

// acquireAgain queues another claim on the same part.
func acquireAgain(t *testing.T, s *Store, key cart.Key) <-chan acquired {
	t.Helper()
	claim := claimOf(cart.PartItems)
	done := acquireLater(t.Context(), s, key, claim, false)
	awaitQueue(t, s, key, claim.Token)
	return done
}

// TestGrantBeforeListening: a lock that was granted before the waiter could hear of it is found without a heartbeat.
func TestGrantBeforeListening(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	s.heartbeat = time.Hour
	first, second := claimOf(cart.PartItems), claimOf(cart.PartItems)
	if _, err := s.Acquire(t.Context(), u1, first, false); err != nil {
		t.Fatal(err)
	}
	ask := replace(u1, &cart.Cart{}, `{}`)
	ask.Locks.Claim = &second
	mustCommit(t, s, storage.Locked, ask)
	if err := s.Abandon(t.Context(), u1, first.Token); err != nil {
		t.Fatal(err)
	}
	receive(t, acquireLater(t.Context(), s, u1, second, true))
}

// TestGrantWhileSubscribing: the same if the grant comes between the claim and the confirmation of the subscription.
func TestGrantWhileSubscribing(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	s.heartbeat = time.Hour
	first := claimOf(cart.PartItems)
	if _, err := s.Acquire(t.Context(), u1, first, false); err != nil {
		t.Fatal(err)
	}
	s.waiters.subscribing <- struct{}{}
	done := acquireAgain(t, s, u1)
	if err := s.Abandon(t.Context(), u1, first.Token); err != nil {
		t.Fatal(err)
	}
	<-s.waiters.subscribing
	receive(t, done)
}

// TestLeaseEndWakes: with a heartbeat that never comes, a waiter still asks when the lease before it ends, since a
// crashed holder wakes nobody.
func TestLeaseEndWakes(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	s.heartbeat = time.Hour
	first := claimOf(cart.PartAll)
	first.Duration = 300 * time.Millisecond
	if _, err := s.Acquire(t.Context(), u1, first, false); err != nil {
		t.Fatal(err)
	}
	receive(t, acquireLater(t.Context(), s, u1, claimOf(cart.PartItems), false))
	c := replace(u1, &cart.Cart{}, `{}`)
	c.Locks.Token, c.Locks.MustHold = first.Token, true
	mustCommit(t, s, storage.LockUnknown, c)
}

// TestGrantAfterTimeout: a lock that is granted to a waiter that has gone is given back.
func TestGrantAfterTimeout(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	s.heartbeat = time.Hour
	first := claimOf(cart.PartItems)
	if _, err := s.Acquire(t.Context(), u1, first, false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	second := claimOf(cart.PartItems)
	done := acquireLater(ctx, s, u1, second, false)
	awaitQueue(t, s, u1, second.Token)
	cancel()
	if err := s.Abandon(t.Context(), u1, first.Token); err != nil {
		t.Fatal(err)
	}
	if a := <-done; a.err == nil {
		err := s.Abandon(t.Context(), u1, second.Token)
		if err != nil {
			t.Fatal(err)
		}
	} else if !errors.Is(a.err, context.Canceled) {
		t.Fatalf("Acquire: %v, want Canceled", a.err)
	}
	await(t, "the lock is free and nobody waits", func() bool {
		n, err := r.Do("EXISTS", "lock.cart.u1.default.items", "queue.cart.u1.default")
		return err == nil && n == "0"
	})
}

// TestTurns: two stores change a cart again and again. Their commits let each other in, and also queue for the next
// turn. Each turn is one command, and no waiter needs to ask.
func TestTurns(t *testing.T) {
	r := testserver.StartRedis(t)
	config := Config{Addresses: []string{r.Addr}}
	one, two := open(t, config), open(t, config)
	for size, items := range map[string]string{"small": `{"a":1}`, "large": `{"a":"` + strings.Repeat("x", 100_000) + `"}`} {
		t.Run(size, func(t *testing.T) {
			key := cart.Key{Identifier: size, Instance: "default"}
			stores := []*Store{one, two}
			for _, s := range stores {
				s.heartbeat = time.Hour
				listen(t, s)
			}
			turn := claimOf(cart.PartItems)
			g, err := one.Acquire(t.Context(), key, turn, false)
			if err != nil {
				t.Fatal(err)
			}
			was := g.Cart
			create := replace(key, was, `{}`)
			create.Change.TTL = time.Hour
			mustCommit(t, two, storage.Locked, create)
			create.Locks.Token = turn.Token
			mustCommit(t, one, storage.Committed, create)
			next := claimOf(cart.PartItems)
			waiting := acquireLater(t.Context(), two, key, next, false)
			awaitQueue(t, two, key, next.Token)

			before := evalshas(t, r)
			if was, err = one.Load(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			const turns = 10
			for i := range turns {
				s := stores[i%2]
				again := claimOf(cart.PartItems)
				change := replace(key, was, items)
				change.Change.TTL, change.Locks.Token, change.Locks.Release, change.Locks.Again = time.Hour, turn.Token, true, &again
				if i%2 == 1 {
					change.Change.Writes[0].Value = []byte(`{"b":2}`)
				}
				if out := mustCommit(t, s, storage.Committed, change); !out.Claimed.Queued {
					t.Fatalf("turn %d: claimed %+v", i, out.Claimed)
				}
				was = receive(t, waiting)
				if was.Version != uint64(i+2) || was.Items.Object.Len() != 1 {
					t.Fatalf("turn %d: the next was given version %d, %d items", i, was.Version, was.Items.Object.Len())
				}
				turn, waiting = next, acquireLater(t.Context(), s, key, again, true)
				next = again
			}
			if got := evalshas(t, r) - before; got != turns {
				t.Errorf("%d turns took %d scripts", turns, got)
			}
			if err := stores[turns%2].Abandon(t.Context(), key, turn.Token); err != nil {
				t.Fatal(err)
			}
			receive(t, waiting)
		})
	}
}

// evalshas is how many scripts the server has run.
func evalshas(t *testing.T, r *testserver.Redis) (n int) {
	t.Helper()
	info, err := r.Do("INFO", "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(info, "cmdstat_evalsha:calls=")
	if !ok {
		return 0
	}
	if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
