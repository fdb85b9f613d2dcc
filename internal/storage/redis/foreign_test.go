package redis

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bsm/redislock"
	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// foreignLock is a lock as another program takes it and gives it back.
type foreignLock struct {
	name string
	// obtain reports whether it got the lock; release whether it still had it.
	obtain func(ctx context.Context, s *Store, key string, life time.Duration) (release func(ctx context.Context) bool, ok bool, err error)
}

// laravelRelease is the script that Laravel's RedisLock runs, word for word.
const laravelRelease = `
if redis.call("get",KEYS[1]) == ARGV[1] then
    return redis.call("del",KEYS[1])
else
    return 0
end
`

var foreignLocks = []foreignLock{
	{name: "redislock", obtain: func(ctx context.Context, s *Store, key string, life time.Duration) (func(context.Context) bool, bool, error) {
		lock, err := redislock.New(s.client).Obtain(ctx, key, life, &redislock.Options{Metadata: "php"})
		if errors.Is(err, redislock.ErrNotObtained) {
			return nil, false, nil
		}
		return func(ctx context.Context) bool { return lock.Release(ctx) == nil }, err == nil, err
	}},
	{name: "Laravel", obtain: func(ctx context.Context, s *Store, key string, life time.Duration) (func(context.Context) bool, bool, error) {
		owner := randomName()[:16] // Str::random()
		ok, err := s.client.Do(ctx, "SET", key, owner, "EX", int(life.Seconds()), "NX").Text()
		if err != nil && !errors.Is(err, goredis.Nil) {
			return nil, false, err
		}
		return func(ctx context.Context) bool {
			n, err := s.client.Eval(ctx, laravelRelease, []string{key}, owner).Int()
			return err == nil && n == 1
		}, ok == "OK", nil
	}},
}

// TestLeaseAndForeignLocks: leases and the locks of other programs on the same keys hold each other off, in every
// commit and both ways.
func TestLeaseAndForeignLocks(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	for _, foreign := range foreignLocks {
		for _, test := range []struct {
			key   string
			parts []cart.Part // of our lease
		}{
			{"lock.cart.u1.default.items", []cart.Part{cart.PartItems}},
			{"lock.cart.u1.default.items", []cart.Part{cart.PartAll}},
			{"lock.cart.u1.default.conditions", []cart.Part{cart.PartConditions, cart.PartMetadata("m")}},
			{"lock.cart.u1.default.conditions", []cart.Part{cart.PartAll}},
			{"lock.cart.u1.default", []cart.Part{cart.PartAll}},
			{"lock.cart.u1.default.metadata.gift%2Ewrap", []cart.Part{cart.PartMetadata("gift.wrap")}},
		} {
			t.Run(foreign.name+"/"+test.key+fmt.Sprint(test.parts), func(t *testing.T) {
				release, ok, err := foreign.obtain(t.Context(), s, test.key, time.Hour)
				if err != nil || !ok {
					t.Fatalf("the other program does not obtain a free lock: %v", err)
				}
				change := replace(u1, mustLoad(t, s, u1), `{"b":1}`) // as a sidecar in simple mode does
				change.Locks.Parts = test.parts
				mustCommit(t, s, storage.Locked, change)
				claim := leaseOf(test.parts...)
				done := acquireLater(t.Context(), s, u1, claim, false)
				awaitQueue(t, s, u1, claim.Token)
				if !release(t.Context()) {
					t.Fatal("the other program's lock was touched")
				}
				receive(t, done)
				if _, ok, err := foreign.obtain(t.Context(), s, test.key, time.Hour); ok || err != nil {
					t.Fatalf("the other program obtains what is leased: %v, %v", ok, err)
				}
				change.Locks.Token, change.Locks.MustHold = claim.Token, true
				mustCommit(t, s, storage.Committed, change)
				if err := s.Release(t.Context(), u1, claim.Token); err != nil {
					t.Fatal(err)
				}
				release, ok, err = foreign.obtain(t.Context(), s, test.key, time.Hour)
				if err != nil || !ok {
					t.Fatalf("after Release the other program does not obtain it: %v", err)
				}
				if !release(t.Context()) {
					t.Error("the other program's lock was touched")
				}
			})
		}
		t.Run(foreign.name+"/after expiry", func(t *testing.T) {
			claim := leaseOf(cart.PartItems)
			claim.Duration = 50 * time.Millisecond
			mustLease(t, s, u1, claim)
			var release func(context.Context) bool
			await(t, "the other program obtains an expired lease's lock", func() (ok bool) {
				var err error
				if release, ok, err = foreign.obtain(t.Context(), s, "lock.cart.u1.default.items", time.Hour); err != nil {
					t.Fatal(err)
				}
				return ok
			})
			wantLost(t, s, u1, claim.Token)
			if !release(t.Context()) {
				t.Error("the other program's lock was touched by a stale holder")
			}
		})
	}
}

// TestBrokenLease: a lease whose lock key somebody deletes or overwrites was taken at that instant.
func TestBrokenLease(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	for _, cmd := range [][]string{
		{"DEL", "lock.cart.u1.default.conditions"},
		{"SET", "lock.cart.u1.default.conditions", "somebody", "PX", "50"},
	} {
		claim := leaseOf(cart.PartItems, cart.PartConditions)
		g := mustLease(t, s, u1, claim)
		do(t, r, cmd...)
		wantLost(t, s, u1, claim.Token)
		await(t, "the other parts are free", func() bool {
			c := leaseOf(cart.PartItems)
			next := mustLease(t, s, u1, c)
			return s.Release(t.Context(), u1, c.Token) == nil && next.Fence > g.Fence
		})
		wantLost(t, s, u1, claim.Token)
	}
}
