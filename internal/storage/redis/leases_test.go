package redis

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// leaseOf is a claim for a client's lease.
func leaseOf(parts ...cart.Part) storage.Claim {
	c := claimOf(parts...)
	c.Leased = true
	return c
}

func mustLease(t testing.TB, s *Store, key cart.Key, c storage.Claim) storage.Grant {
	t.Helper()
	g, err := s.Acquire(t.Context(), key, c, false)
	if err != nil || g.Fence == 0 {
		t.Fatalf("Acquire = %+v, %v", g, err)
	}
	return g
}

// mustLeaseToken takes a lease over the items.
func mustLeaseToken(t testing.TB, s *Store, key cart.Key) string {
	t.Helper()
	c := leaseOf(cart.PartItems)
	mustLease(t, s, key, c)
	return c.Token
}

// wantLost fails unless every call reports the token's lease as lost.
func wantLost(t *testing.T, s *Store, key cart.Key, token string) {
	t.Helper()
	if _, err := s.Lease(t.Context(), key, token); !errors.Is(err, storage.ErrLockLost) {
		t.Errorf("Lease: %v, want ErrLockLost", err)
	}
	if _, err := s.Renew(t.Context(), key, token, time.Hour); !errors.Is(err, storage.ErrLockLost) {
		t.Errorf("Renew: %v, want ErrLockLost", err)
	}
	if err := s.Release(t.Context(), key, token); !errors.Is(err, storage.ErrLockLost) {
		t.Errorf("Release: %v, want ErrLockLost", err)
	}
	c := replace(key, mustLoad(t, s, key), `{"stale":1}`)
	c.Locks.Token, c.Locks.MustHold = token, true
	mustCommit(t, s, storage.LockLost, c)
}

// TestFenceSources: a fence is greater than the one before even if the clock is not, and even if the server has lost
// all data.
func TestFenceSources(t *testing.T) {
	r := testserver.StartRedis(t, testserver.WithAOF())
	s := open(t, Config{Addresses: []string{r.Addr}})
	var last uint64
	next := func(what string) uint64 {
		t.Helper()
		c := leaseOf(cart.PartItems)
		g := mustLease(t, s, u1, c)
		if g.Fence <= last {
			t.Errorf("%s: fence %d after %d", what, g.Fence, last)
		}
		held, err := s.Lease(t.Context(), u1, c.Token)
		if err != nil || held.Fence != g.Fence {
			t.Errorf("%s: lease %+v, %v, want fence %d", what, held, err, g.Fence)
		}
		last = g.Fence
		if err := s.Release(t.Context(), u1, c.Token); err != nil {
			t.Fatal(err)
		}
		return g.Fence
	}
	next("first")
	do(t, r, "DEL", "fence.cart.u1.default")
	next("the last fence was forgotten")
	do(t, r, "FLUSHALL")
	next("everything was forgotten")
	for range 3 {
		r.Kill()
		r.Restart()
		next("restart")
	}
	// The last fence is of the future, as if the clock had been set back.
	const future = 1<<53 - 10
	do(t, r, "ZADD", "fence.cart.u1.default", strconv.Itoa(future), "fence")
	for i := range 3 {
		if got := next("clock set back"); got != future+uint64(i)+1 {
			t.Errorf("fence %d after one of the future, want %d", got, future+i+1)
		}
	}
	r.Kill()
	r.Restart()
	if got := next("clock set back and restart"); got != future+4 {
		t.Errorf("fence %d after a restart, want %d", got, future+4)
	}
}

// TestFenceOfServerWithoutData: without persistence a restart loses everything, and no fence goes back.
func TestFenceOfServerWithoutData(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	var last uint64
	for range 3 {
		claim := leaseOf(cart.PartAll)
		g := mustLease(t, s, u1, claim)
		if g.Fence <= last {
			t.Errorf("fence %d after %d", g.Fence, last)
		}
		last = g.Fence
		r.Kill()
		r.Restart()
		if n := do(t, r, "DBSIZE"); n != "0" {
			t.Fatalf("%s keys survived", n)
		}
		await(t, "the server is found again", func() bool { return s.Ping(t.Context()) == nil })
		// The lease went with the data, and so did the memory of it: it is unknown, and nothing is written.
		c := replace(u1, &cart.Cart{}, `{}`)
		c.Locks.Token, c.Locks.MustHold = claim.Token, true
		mustCommit(t, s, storage.LockUnknown, c)
	}
}

// TestLeaseMemoryEnds: the memory of leases ends by itself.
func TestLeaseMemoryEnds(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	const key = "fence.cart.u1.default"
	claim := leaseOf(cart.PartItems)
	claim.Duration = time.Minute
	g := mustLease(t, s, u1, claim)
	wantEnd := func(what string, end time.Time) {
		t.Helper()
		if left := s.client.PTTL(t.Context(), key).Val(); time.Until(end.Add(storage.LeaseMemory))-left > time.Second || left > time.Until(end.Add(storage.LeaseMemory))+time.Second {
			t.Errorf("%s: the memory lives %v, want %v from the end of the lease", what, left, storage.LeaseMemory)
		}
	}
	wantEnd("granted", g.Expires)
	renewed, err := s.Renew(t.Context(), u1, claim.Token, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	wantEnd("renewed", renewed.Expires)
	short, err := s.Renew(t.Context(), u1, claim.Token, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	wantEnd("renewed for less", renewed.Expires)
	await(t, "the end of the lease", func() bool { return time.Now().After(short.Expires) })
	wantLost(t, s, u1, claim.Token)

	// It ended before the time that is remembered, so it is forgotten with the next lease.
	do(t, r, "ZADD", key, strconv.FormatInt(time.Now().Add(-storage.LeaseMemory-time.Millisecond).UnixMilli(), 10), claim.Token)
	if _, err := s.Lease(t.Context(), u1, claim.Token); !errors.Is(err, storage.ErrLockUnknown) {
		t.Errorf("after its memory: %v, want ErrLockUnknown", err)
	}
	next := leaseOf(cart.PartItems)
	mustLease(t, s, u1, next)
	if n := do(t, r, "ZCARD", key); n != "2" { // the lease and the last fence
		t.Errorf("%s are remembered, want 2", n)
	}
	if err := s.Release(t.Context(), u1, next.Token); err != nil {
		t.Fatal(err)
	}
	if n := do(t, r, "ZCARD", key); n != "1" {
		t.Errorf("%s are remembered after Release, want 1", n)
	}
	// More than are remembered: the oldest go with the next lease.
	do(t, r, "EVAL", `for i = 1, 2000 do redis.call('ZADD', KEYS[1], ARGV[1] + i, 'token' .. i) end return 'OK'`, "1", key,
		strconv.FormatInt(time.Now().Add(-time.Minute).UnixMilli(), 10))
	if err := s.Release(t.Context(), u1, mustLeaseToken(t, s, u1)); err != nil {
		t.Fatal(err)
	}
	if n := do(t, r, "ZCARD", key); n != strconv.Itoa(storage.MaxLost+1) {
		t.Errorf("%s are remembered, want %d and the last fence", n, storage.MaxLost)
	}
	if n := do(t, r, "ZSCORE", key, "token1001"); n == "" {
		t.Error("it was not the oldest that went")
	}
	for _, k := range []string{"queue.cart.u1.default", "lock.cart.u1.default.items"} {
		if do(t, r, "EXISTS", k) != "0" {
			t.Errorf("%s is left", k)
		}
	}
}

// TestLeaseRoundTrips: an uncontended lease that reads, changes and gives back costs two commands, and calls without a
// lease do not pay for leases.
func TestLeaseRoundTrips(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	cycle := func(parts ...cart.Part) {
		claim := leaseOf(parts...)
		g := mustLease(t, s, u1, claim)
		c := replace(u1, g.Cart, fmt.Sprintf(`{"n":%d}`, g.Fence))
		c.Locks.Token, c.Locks.MustHold, c.Locks.Release = claim.Token, true, true
		mustCommit(t, s, storage.Committed, c)
	}
	cycle(cart.PartItems) // loads the scripts
	reset := func() { do(t, r, "CONFIG", "RESETSTAT") }
	for _, parts := range [][]cart.Part{{cart.PartItems}, {cart.PartAll}, {cart.PartItems, cart.PartConditions}} {
		reset()
		const n = 10
		for range n {
			cycle(parts...)
		}
		got := calls(t, r)
		// The one HGETALL of each is within the script that grants the lease.
		if got["evalsha"] != 2*n || got["hgetall"] != n || got["eval"]+got["publish"]+got["subscribe"] != 0 {
			t.Errorf("%d cycles of %v took %v, want %d scripts and nothing beside", n, parts, got, 2*n)
		}
	}

	// A lease has expired: the next commits are as quick as if there had never been one.
	claim := leaseOf(cart.PartItems)
	claim.Duration = time.Millisecond
	mustLease(t, s, u1, claim)
	await(t, "the traces of the lock are gone", func() bool { return do(t, r, "EXISTS", "queue.cart.u1.default", "lock.cart.u1.default.items") == "0" })
	now := mustLoad(t, s, u1)
	reset()
	mustCommit(t, s, storage.Committed, replace(u1, now, `{}`))
	want := map[string]int{"evalsha": 1, "mget": 1, "hmget": 1, "time": 1, "hset": 1, "pexpireat": 1}
	if got := calls(t, r); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a commit after an expired lease took %v, want %v", got, want)
	}
	// A turn asks nothing of the leases' set.
	reset()
	turn := claimOf(cart.PartItems)
	if _, err := s.Acquire(t.Context(), u1, turn, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Abandon(t.Context(), u1, turn.Token); err != nil {
		t.Fatal(err)
	}
	for name := range calls(t, r) {
		if strings.HasPrefix(name, "z") {
			t.Errorf("a turn took %s", name)
		}
	}
	wantLost(t, s, u1, claim.Token)
}

// TestLeaseByPush: with a heartbeat that never comes, a waiter is woken, and the answer to its claim tells it of its
// lease.
func TestLeaseByPush(t *testing.T) {
	r := testserver.StartRedis(t)
	one, two := open(t, Config{Addresses: []string{r.Addr}}), open(t, Config{Addresses: []string{r.Addr}})
	two.heartbeat = time.Hour
	listen(t, two)
	for size, items := range map[string]string{"small": `{"a":1}`, "large": `{"a":"` + strings.Repeat("x", 100_000) + `"}`} {
		t.Run(size, func(t *testing.T) {
			key := cart.Key{Identifier: size, Instance: "default"}
			first, second := leaseOf(cart.PartItems), leaseOf(cart.PartAll)
			before := mustLease(t, one, key, first)
			done := acquireLater(t.Context(), two, key, second, false)
			awaitQueue(t, two, key, second.Token)
			c := replace(key, before.Cart, items)
			c.Locks.Token, c.Locks.MustHold, c.Locks.Release = first.Token, true, true
			mustCommit(t, one, storage.Committed, c)
			select {
			case a := <-done:
				held, err := one.Lease(t.Context(), key, second.Token)
				if a.err != nil || err != nil || a.grant.Fence != held.Fence || !a.grant.Expires.Equal(held.Expires) || held.Fence <= before.Fence {
					t.Errorf("told %+v, %v; the lease is %+v, %v", a.grant, a.err, held, err)
				}
				if a.cart == nil || string(a.cart.Items.Object.Bytes()) != items {
					t.Errorf("the cart did not come along")
				}
			case <-time.After(patient):
				t.Fatal("Acquire did not return")
			}
		})
	}
}

// TestStaleWakeUp: the answer to a claim tells of a lease, and not a wake-up, which may be late: somebody else may have
// the lock by then.
func TestStaleWakeUp(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	s.heartbeat = time.Hour
	listen(t, s)
	holder, waits := leaseOf(cart.PartItems), leaseOf(cart.PartItems)
	before := mustLease(t, s, u1, holder)
	done := acquireLater(t.Context(), s, u1, waits, false)
	awaitQueue(t, s, u1, waits.Token)
	do(t, r, "CONFIG", "RESETSTAT")
	// An array of the token and an empty list, as msgpack has them.
	s.waiters.dispatch("\x92\xb6" + waits.Token + "\x90")
	await(t, "a claim", func() bool { return calls(t, r)["evalsha"] > 0 })
	select {
	case a := <-done:
		t.Fatalf("told %+v, %v while another lease holds", a.grant, a.err)
	default:
	}
	if err := s.Release(t.Context(), u1, holder.Token); err != nil {
		t.Fatal(err)
	}
	if a := <-done; a.err != nil || a.grant.Fence <= before.Fence {
		t.Errorf("told %+v, %v, want a fence greater than %d", a.grant, a.err, before.Fence)
	}
}

// TestLeaseConfirmed: a lease that waited takes one more round trip than one that did not. That round trip brings the
// cart; the wake-up does not.
func TestLeaseConfirmed(t *testing.T) {
	r := testserver.StartRedis(t)
	one, two := open(t, Config{Addresses: []string{r.Addr}}), open(t, Config{Addresses: []string{r.Addr}})
	two.heartbeat = time.Hour
	listen(t, two)
	first, second := leaseOf(cart.PartItems), leaseOf(cart.PartItems)
	second.Duration = 4 * time.Hour // longer than a waiter of such a heartbeat lives
	before := mustLease(t, one, u1, first)
	done := acquireLater(t.Context(), two, u1, second, false)
	awaitQueue(t, two, u1, second.Token)
	c := replace(u1, before.Cart, `{"a":1}`)
	c.Locks.Token, c.Locks.MustHold, c.Locks.Release = first.Token, true, true
	do(t, r, "CONFIG", "RESETSTAT")
	mustCommit(t, one, storage.Committed, c)
	got := string(receive(t, done).Items.Object.Bytes())
	if n := calls(t, r); got != `{"a":1}` || n["evalsha"] != 2 || n["publish"] != 1 || n["hgetall"] != 1 {
		t.Errorf("the cart is %s, and it took %v, want the commit, a wake-up, and a claim that reads the cart", got, n)
	}
	held, err := one.Lease(t.Context(), u1, second.Token)
	if left := time.Until(held.Expires); err != nil || left < second.Duration-time.Minute || held.Fence <= before.Fence {
		t.Errorf("%+v, %v, want %v", held, err, second.Duration)
	}
}

// TestMemoryOfDeadWaiterEnds: a lease that nobody confirmed leaves only its fence, which is kept as long as any other.
func TestMemoryOfDeadWaiterEnds(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	turn, dead := claimOf(cart.PartItems), leaseOf(cart.PartItems)
	if _, err := s.Acquire(t.Context(), u1, turn, false); err != nil {
		t.Fatal(err)
	}
	ask := replace(u1, &cart.Cart{}, `{}`)
	ask.Locks.Claim = &dead
	mustCommit(t, s, storage.Locked, ask)
	if err := s.Abandon(t.Context(), u1, turn.Token); err != nil {
		t.Fatal(err)
	}
	const key = "fence.cart.u1.default"
	if left := s.client.PTTL(t.Context(), key).Val(); left > storage.WaiterTTL+storage.LeaseMemory || left < storage.LeaseMemory-time.Minute {
		t.Errorf("the last fence lives %v", left)
	}
	if n := do(t, r, "ZCARD", key); n != "1" {
		t.Errorf("%s are remembered, want the last fence", n)
	}
	await(t, "the lock is free", func() bool { return do(t, r, "EXISTS", "lock.cart.u1.default.items") == "0" })
	if _, err := s.Lease(t.Context(), u1, dead.Token); !errors.Is(err, storage.ErrLockUnknown) {
		t.Errorf("after its end: %v, want ErrLockUnknown", err)
	}
}

// TestLeaseOfOlderSidecar: a lease that the release before this one took has no duration of its own. A renewal without
// a duration leaves it as it is, a renewal with one sets it, and a commit or a renewal by that release keeps the one
// that is there.
func TestLeaseOfOlderSidecar(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{}`))
	claim := leaseOf(cart.PartItems)
	g := mustLease(t, s, u1, claim)
	const registry = "queue.cart.u1.default"
	raw := do(t, r, "GET", registry)
	older := regexp.MustCompile(`"duration":[0-9.e+]+,?`).ReplaceAllString(raw, "")
	if older = strings.ReplaceAll(older, ",}", "}"); older == raw {
		t.Fatalf("no duration in %s", raw)
	}
	do(t, r, "SET", registry, older, "KEEPTTL")
	got, err := s.Renew(t.Context(), u1, claim.Token, 0)
	if err != nil || got.Duration != 0 || got.Expires.Sub(g.Expires).Abs() > time.Millisecond {
		t.Errorf("renewed by its own: %+v, %v, was granted %+v", got, err, g)
	}
	if got, err = s.Renew(t.Context(), u1, claim.Token, 2*time.Hour); err != nil || got.Duration != 2*time.Hour {
		t.Errorf("renewed for two hours: %+v, %v", got, err)
	}
	// The older script decodes the registry, moves the end, and encodes it again.
	do(t, r, "EVAL", `local q = cjson.decode(redis.call('GET', KEYS[1]))
		q.held[1].expires = q.held[1].expires - 1000
		redis.call('SET', KEYS[1], cjson.encode(q), 'KEEPTTL') return 'OK'`, "1", registry)
	if got, err = s.Renew(t.Context(), u1, claim.Token, 0); err != nil || got.Duration != 2*time.Hour || time.Until(got.Expires) < time.Hour {
		t.Errorf("renewed by its own since: %+v, %v", got, err)
	}
	// It writes a shorter expiry under the lease, and the next renewal puts that off again.
	do(t, r, "HSET", "cart.u1.default", "expires", strconv.FormatInt(time.Now().Add(time.Minute).UnixMilli(), 10))
	do(t, r, "PEXPIRE", "cart.u1.default", "60000")
	if got, err = s.Renew(t.Context(), u1, claim.Token, 0); err != nil || mustLoad(t, s, u1).ExpiresAt.Before(got.Expires) {
		t.Errorf("renewed until %+v, %v, the cart lives until %v", got, err, mustLoad(t, s, u1).ExpiresAt)
	}
	if left := s.client.PTTL(t.Context(), "cart.u1.default").Val(); left < time.Hour {
		t.Errorf("the server keeps the cart for %v", left)
	}
}
