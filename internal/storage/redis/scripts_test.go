package redis

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

var callsOf = regexp.MustCompile(`cmdstat_([a-z|]+):calls=(\d+)`)

// calls counts commands since the last CONFIG RESETSTAT, those within scripts too.
func calls(t *testing.T, r *testserver.Redis) map[string]int {
	t.Helper()
	info, err := r.Do("INFO", "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, m := range callsOf.FindAllStringSubmatch(info, -1) {
		n[m[1]], _ = strconv.Atoi(m[2])
	}
	delete(n, "config|resetstat")
	return n
}

// TestRoundTrips counts the server's commands, kind by kind.
func TestRoundTrips(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":0}`)) // loads the script
	reset := func() {
		if _, err := r.Do("CONFIG", "RESETSTAT"); err != nil {
			t.Fatal(err)
		}
	}
	connected(t, s) // it is made in the background, and the server counts what that takes
	now := mustLoad(t, s, u1)
	reset()
	const n = 10
	for i := range n {
		out := mustCommit(t, s, storage.Committed, replace(u1, now, `{"a":1}`))
		next := *now
		next.Version, next.Items.Version = out.Base+1, out.Base+1
		now = &next
		if out.Base != uint64(i)+1 {
			t.Fatalf("Base = %d, want %d", out.Base, i+1)
		}
	}
	// One script for each commit, and in it no more than this.
	want := map[string]int{"evalsha": n, "mget": n, "hmget": n, "time": n, "hset": n, "pexpireat": n}
	if got := calls(t, r); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d commits took %v, want %v", n, got, want)
	}
	reset()
	if got := mustLoad(t, s, u1); got.Version != n+1 {
		t.Errorf("version %d, want %d", got.Version, n+1)
	}
	if got := calls(t, r); fmt.Sprint(got) != "map[hgetall:1]" {
		t.Errorf("a load took %v", got)
	}
	// A conflict brings the cart and the lock with it.
	stale := replace(u1, &cart.Cart{}, `{}`)
	claim := claimOf(cart.PartItems)
	stale.Locks.Claim = &claim
	reset()
	out := mustCommit(t, s, storage.Conflict, stale)
	if !out.Claimed.Granted || out.Cart.Version != n+1 {
		t.Errorf("conflict: %+v", out)
	}
	if got := calls(t, r); got["evalsha"] != 1 || got["subscribe"] != 0 {
		t.Errorf("a conflict took %v", got)
	}
	// So does the hand-over: the next holder reads nothing.
	listen(t, s)
	s.heartbeat = time.Hour
	next := claimOf(cart.PartItems)
	done := acquireLater(t.Context(), s, u1, next, false)
	awaitQueue(t, s, u1, next.Token)
	reset()
	if err := s.Abandon(t.Context(), u1, claim.Token); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, done); got.Version != n+1 {
		t.Errorf("acquired version %d", got.Version)
	}
	if got := calls(t, r); got["publish"] != 1 || got["hgetall"] != 1 {
		t.Errorf("the hand-over took %v, want one publish with the cart", got)
	}
}

// TestScriptFlush: a server that forgot the scripts, as after a restart, is taught again.
func TestScriptFlush(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	for i := range 3 {
		mustCommit(t, s, storage.Committed, replace(u1, mustLoad(t, s, u1), fmt.Sprintf(`{"a":%d}`, i)))
		claim := claimOf(cart.PartItems)
		if _, err := s.Acquire(t.Context(), u1, claim, false); err != nil {
			t.Fatal(err)
		}
		if err := s.Abandon(t.Context(), u1, claim.Token); err != nil {
			t.Fatal(err)
		}
		if list, err := s.Instances(t.Context(), "u1"); err != nil || len(list) != 1 {
			t.Fatalf("Instances = %v, %v", list, err)
		}
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Do("SCRIPT", "FLUSH"); err != nil {
			t.Fatal(err)
		}
	}
	if c := mustLoad(t, s, u1); c.Version != 3 {
		t.Errorf("version %d, want 3", c.Version)
	}
}

// TestIndexOutlivesCarts: the index lives at least as long as the longest of its carts.
func TestIndexOutlivesCarts(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	index, _ := s.space.owner("u1")
	life := func(key string) time.Duration {
		d, err := s.client.PTTL(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for i, ttl := range []time.Duration{time.Hour, time.Minute, 100 * time.Hour, time.Second} {
		key := cart.Key{Identifier: "u1", Instance: fmt.Sprint(i)}
		for range 3 {
			c := replace(key, mustLoad(t, s, key), `{}`)
			c.Change.TTL = ttl
			mustCommit(t, s, storage.Committed, c)
		}
		for j := range i + 1 {
			if cart := s.space.names(cart.Key{Identifier: "u1", Instance: fmt.Sprint(j)}).cart; life(index) < life(cart) {
				t.Errorf("after a cart of %v the index lives %v, %s %v", ttl, life(index), cart, life(cart))
			}
		}
	}
	for _, longer := range []time.Duration{1000 * time.Hour, 0} {
		key := cart.Key{Identifier: "u1", Instance: "0"}
		c := replace(key, mustLoad(t, s, key), `{}`)
		c.Change.TTL = longer
		mustCommit(t, s, storage.Committed, c)
		if cart := s.space.names(key).cart; life(index) < life(cart) || longer == 0 && (life(index) != -1 || life(cart) != -1) {
			t.Errorf("with a life of %v the index lives %v, the cart %v", longer, life(index), life(cart))
		}
	}
	c := replace(u1, &cart.Cart{}, `{}`)
	mustCommit(t, s, storage.Committed, c)
	if life(index) != -1 {
		t.Errorf("the index of a cart without end lives %v after another cart", life(index))
	}
}
