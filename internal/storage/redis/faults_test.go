package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

func do(t testing.TB, r *testserver.Redis, args ...string) string {
	t.Helper()
	reply, err := r.Do(args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return reply
}

func wantUnavailable(t *testing.T, s *Store, what string) {
	t.Helper()
	_, err := s.Commit(t.Context(), replace(u1, &cart.Cart{}, `{}`))
	if !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%s: Commit: %v, want ErrUnavailable", what, err)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("%s: Ping: %v, want ErrUnavailable", what, err)
	}
	// Nor is a lease unknown to a server that may not have heard of it yet.
	c := replace(u1, &cart.Cart{}, `{}`)
	c.Locks.Token, c.Locks.MustHold = randomName(), true
	if outs, err := s.Commit(t.Context(), c); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("%s: Commit under a lease: %+v, %v, want ErrUnavailable", what, outs, err)
	}
	_, look := s.Lease(t.Context(), u1, c.Locks.Token)
	_, renew := s.Renew(t.Context(), u1, c.Locks.Token, time.Hour)
	for doing, err := range map[string]error{"Lease": look, "Renew": renew, "Release": s.Release(t.Context(), u1, c.Locks.Token)} {
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s: %s: %v, want ErrUnavailable", what, doing, err)
		}
	}
}

// TestServerThatCannotWrite: reads would work, but Ping and Commit report that changes do not.
func TestServerThatCannotWrite(t *testing.T) {
	master, r := testserver.StartRedis(t), testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	host, port, _ := net.SplitHostPort(master.Addr)
	connected(t, s)
	for what, set := range map[string][2][]string{
		"replica":          {{"REPLICAOF", host, port}, {"REPLICAOF", "NO", "ONE"}},
		"out of memory":    {{"CONFIG", "SET", "maxmemory", "1"}, {"CONFIG", "SET", "maxmemory", "0"}},
		"too few replicas": {{"CONFIG", "SET", "min-replicas-to-write", "1"}, {"CONFIG", "SET", "min-replicas-to-write", "0"}},
	} {
		do(t, r, set[0]...)
		wantUnavailable(t, s, what)
		do(t, r, set[1]...)
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("after %s: Ping: %v", what, err)
		}
		if c := mustLoad(t, s, u1); c.Exists() {
			t.Errorf("%s: the commit left %s", what, describe(c))
		}
		if n := do(t, r, "DBSIZE"); n != "0" {
			t.Errorf("%s: %s keys are left", what, n)
		}
	}
}

// TestRefusedCommitChangesNothing: a full server refuses the whole of a commit.
func TestRefusedCommitChangesNothing(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	was := mustLoad(t, s, u1)
	other := cart.Key{Identifier: "u2", Instance: "default"}
	do(t, r, "CONFIG", "SET", "maxmemory", "1")
	c := replace(u1, was, `{"b":1}`)
	c.Change.Writes = append(c.Change.Writes, storage.Write{Part: cart.PartMetadata("m"), Value: []byte("1"), Step: 1})
	if _, err := s.Commit(t.Context(), c, replace(other, &cart.Cart{}, `{}`)); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Commit: %v, want ErrUnavailable", err)
	}
	do(t, r, "CONFIG", "SET", "maxmemory", "0")
	if now := mustLoad(t, s, u1); describe(now) != describe(was) {
		t.Errorf("the commit left %s, was %s", describe(now), describe(was))
	}
}

func TestDamagedKeys(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	for what, set := range map[string][]string{
		"another type":     {"SET", "cart.u1.default", "x"},
		"no cart":          {"HSET", "cart.u1.default", "name", "x"},
		"no version":       {"HSET", "cart.u1.default", "id", "x"},
		"version no count": {"HSET", "cart.u1.default", "id", "x", "version", "y", "created", "1", "updated", "1", "expires", "0"},
	} {
		do(t, r, "FLUSHALL")
		do(t, r, set...)
		if _, err := s.Load(t.Context(), u1); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: Load: %v, want ErrCorrupt", what, err)
		}
		for _, id := range []string{"", "x"} {
			c := replace(u1, &cart.Cart{ID: id}, `{}`)
			if _, err := s.Commit(t.Context(), c); !errors.Is(err, storage.ErrCorrupt) {
				t.Errorf("%s: Commit on %q: %v, want ErrCorrupt", what, id, err)
			}
		}
		if n := do(t, r, "DBSIZE"); n != "1" {
			t.Errorf("%s: %s keys are there, want 1", what, n)
		}
	}
	do(t, r, "FLUSHALL")
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{}`))
	do(t, r, "SET", "queue.cart.u1.default", "x")
	if _, err := s.Commit(t.Context(), replace(u1, mustLoad(t, s, u1), `{"a":1}`)); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("damaged queue: %v, want ErrCorrupt", err)
	}
	if c := mustLoad(t, s, u1); c.Version != 1 {
		t.Errorf("damaged queue: the commit was made")
	}
	do(t, r, "DEL", "queue.cart.u1.default")
	do(t, r, "HSET", "cart.u1.default", "items", "[")
	if _, err := s.Load(t.Context(), u1); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("damaged items: %v, want ErrCorrupt", err)
	}
}

// TestKill: acknowledged changes are there after a crash, and the store finds the server again by itself.
func TestKill(t *testing.T) {
	r := testserver.StartRedis(t, testserver.WithAOF())
	s := open(t, Config{Addresses: []string{r.Addr}})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	claim := claimOf(cart.PartItems)
	g, err := s.Acquire(t.Context(), u1, claim, false)
	if err != nil {
		t.Fatal(err)
	}
	was := g.Cart
	r.Kill()
	wantUnavailable(t, s, "killed")
	if _, err := s.Load(t.Context(), u1); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("killed: Load: %v, want ErrUnavailable", err)
	}
	r.Restart()
	if now := mustLoad(t, s, u1); describe(now) != describe(was) {
		t.Errorf("after the crash %s, was %s", describe(now), describe(was))
	}
	c := replace(u1, was, `{"b":1}`)
	mustCommit(t, s, storage.Locked, c)
	c.Locks.Token, c.Locks.MustHold = claim.Token, true
	mustCommit(t, s, storage.Committed, c)
}

// TestFrozen: a server that does not answer holds up no call for longer than the timeouts.
func TestFrozen(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}, ReadTimeout: 100 * time.Millisecond, WriteTimeout: 100 * time.Millisecond, DialTimeout: 100 * time.Millisecond})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{}`))
	connected(t, s)
	r.Pause()
	start := time.Now()
	wantUnavailable(t, s, "frozen")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Load(ctx, u1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Load beyond the deadline: %v, want DeadlineExceeded", err)
	}
	if took := time.Since(start); took > patient/2 {
		t.Errorf("three calls to a frozen server took %v", took)
	}
	r.Resume()
	await(t, "the server answers", func() bool { return s.Ping(t.Context()) == nil })
}

// TestLostWakeUp: while the subscription is broken, a waiter finds the lock by asking.
func TestLostWakeUp(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	first := claimOf(cart.PartItems)
	if _, err := s.Acquire(t.Context(), u1, first, false); err != nil {
		t.Fatal(err)
	}
	listen(t, s)
	done := acquireAgain(t, s, u1)
	// The release is done by hand, so that nobody publishes.
	do(t, r, "DEL", "lock.cart.u1.default.items")
	receive(t, done)
}

func TestCredentials(t *testing.T) {
	r := testserver.StartRedis(t, testserver.WithRedisArgs("--requirepass", "s3cret-one"))
	secret := func(text string) storage.Secret { return storage.NewSecret(text, "/s/file") }
	for _, c := range []Config{{}, {Password: secret("s3cret-two")}, {Username: secret("nobody"), Password: secret("s3cret-two")}} {
		c.Addresses = []string{r.Addr}
		s := open(t, c)
		err := s.Ping(t.Context())
		if !errors.Is(err, storage.ErrUnavailable) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("Ping as %q: %v, want ErrUnavailable without the password", c.Username, err)
		}
	}
	s := open(t, Config{Addresses: []string{r.Addr}, Username: secret("default"), Password: secret("s3cret-one")})
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping with credentials: %v", err)
	}
}

// Servers quote what they were sent: the user whom they refuse, and the words of a command that they do not know. The
// error shows the file's name instead.
func TestErrorsQuoteNoSecret(t *testing.T) {
	r := testserver.StartParrot(t)
	c := Config{
		Addresses: []string{r.Addr},
		Username:  storage.NewSecret("hush-hush", "/s/username"), Password: storage.NewSecret("s3cret-word", "/s/password"),
	}
	sentinel := Config{Addresses: []string{r.Addr}, Mode: Sentinel, MasterName: "shop", SentinelUsername: c.Username, SentinelPassword: c.Password}
	cluster := c
	cluster.Mode = Cluster
	for name, c := range map[string]Config{"standalone": c, "sentinel": sentinel, "cluster": cluster} {
		s := open(t, c)
		refused := map[string]error{"ping": s.Ping(t.Context()), "flush": s.Flush(t.Context())}
		_, refused["load"] = s.Load(t.Context(), u1)
		_, refused["commit"] = s.Commit(t.Context(), replace(u1, &cart.Cart{}, `{"a":1}`))
		_, refused["instances"] = s.Instances(t.Context(), u1.Identifier)
		_, refused["acquire"] = s.Acquire(t.Context(), u1, claimOf(cart.PartItems), false)
		for call, err := range refused {
			if !errors.Is(err, storage.ErrUnavailable) || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: %s: %v, want ErrUnavailable without user and password", name, call, err)
			}
		}
		if text := refused["ping"].Error(); name == "standalone" && !strings.Contains(text, "ERR refused: hello 2 auth (content of /s/username) (content of /s/password)") {
			t.Errorf("the server's own words are lost: %s", text)
		}
		if text := fmt.Sprintf("%v %+v %#v", c, c, s.secrets); strings.Contains(text, "hush") || strings.Contains(text, "s3cret") {
			t.Errorf("the configuration prints secrets: %s", text)
		}
	}
}

func TestSentinel(t *testing.T) {
	master := testserver.StartRedis(t)
	sentinel := testserver.StartSentinel(t, master)
	s := open(t, Config{Addresses: []string{sentinel.Addr}, Mode: Sentinel, MasterName: testserver.SentinelMaster})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	if do(t, master, "EXISTS", "cart.u1.default") != "1" {
		t.Error("the cart is not on the master")
	}
	first := claimOf(cart.PartItems)
	if _, err := s.Acquire(t.Context(), u1, first, false); err != nil {
		t.Fatal(err)
	}
	done := acquireAgain(t, s, u1)
	if err := s.Abandon(t.Context(), u1, first.Token); err != nil {
		t.Fatal(err)
	}
	if c := receive(t, done); c.Version != 1 {
		t.Errorf("acquired version %d", c.Version)
	}
	unknown := open(t, Config{Addresses: []string{sentinel.Addr}, Mode: Sentinel, MasterName: "other"})
	wantUnavailable(t, unknown, "unknown master")
}

// TestFlushLeavesOthers: a flush removes only the keys of this prefix.
func TestFlushLeavesOthers(t *testing.T) {
	r := testserver.StartRedis(t)
	c := testserver.StartRedisCluster(t, 3)
	for name, config := range map[string]Config{
		"Standalone": {Addresses: []string{r.Addr}},
		"Cluster":    {Addresses: c.Addrs(), Mode: Cluster},
	} {
		t.Run(name, func(t *testing.T) {
			config.Prefix = "a"
			s := open(t, config)
			config.Prefix = "a.b"
			other := open(t, config)
			for _, identifier := range []string{"u1", "items", "b", "x.y", "z"} {
				for _, instance := range []string{"default", "items", "metadata"} {
					for _, s := range []*Store{s, other} {
						key := cart.Key{Identifier: identifier, Instance: instance}
						mustCommit(t, s, storage.Committed, replace(key, &cart.Cart{}, `{}`))
						for _, claim := range []storage.Claim{claimOf(cart.PartItems), leaseOf(cart.PartMetadata("items"))} {
							if _, err := s.Acquire(t.Context(), key, claim, false); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
			}
			const perCart, carts, identifiers = 5, 15, 5
			mine := perCart*carts + identifiers
			foreign := []string{"a", "a.one", "ab.u1.default", "lock.a", "user.a.u1.default", "x.a.b.c", "fence.a.u1"}
			for _, k := range foreign {
				if err := s.client.Set(t.Context(), k, "1", 0).Err(); err != nil {
					t.Fatal(err)
				}
			}
			all := func() (n int) {
				for _, node := range nodes(name, r, c) {
					n += len(strings.Fields(do(t, node, "EVAL", "return table.concat(redis.call('KEYS', '*'), ' ')", "0")))
				}
				return n
			}
			if got, want := all(), 2*mine+len(foreign); got != want {
				t.Fatalf("%d keys before Flush, want %d", got, want)
			}
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, want := all(), mine+len(foreign); got != want {
				t.Errorf("%d keys after Flush, want %d", got, want)
			}
			if list, err := other.Instances(t.Context(), "b"); err != nil || len(list) != 3 {
				t.Errorf("the other prefix has %v, %v", list, err)
			}
			if list, err := s.Instances(t.Context(), "b"); err != nil || len(list) != 0 {
				t.Errorf("after Flush there are %v, %v", list, err)
			}
			if err := other.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := all(); got != len(foreign) {
				t.Errorf("%d keys after both, want %d", got, len(foreign))
			}
		})
	}
}

func nodes(name string, r *testserver.Redis, c *testserver.RedisCluster) []*testserver.Redis {
	if name == "Cluster" {
		return c.Nodes
	}
	return []*testserver.Redis{r}
}

// TestNotSentTwice: a commit whose answer did not come in time may have been made, so it must not be sent again.
func TestNotSentTwice(t *testing.T) {
	r := testserver.StartRedis(t)
	c := testserver.StartRedisCluster(t, 3)
	for name, config := range map[string]Config{
		"Standalone": {Addresses: []string{r.Addr}},
		"Cluster":    {Addresses: c.Addrs(), Mode: Cluster},
	} {
		t.Run(name, func(t *testing.T) {
			config.ReadTimeout = time.Second
			s := open(t, config)
			await(t, "the server is quick enough", func() bool {
				_, err := s.Commit(t.Context(), replace(u1, &cart.Cart{}, `{"a":1}`))
				return err == nil
			})
			connected(t, s)
			was := mustLoad(t, s, u1)
			var node *testserver.Redis
			for _, n := range nodes(name, r, c) {
				if _, err := n.Do("EXISTS", s.space.names(u1).cart); err == nil {
					node = n
				}
			}
			// Idle connections, over which it could be sent again.
			do(t, node, "CLIENT", "PAUSE", "200", "ALL")
			var loads sync.WaitGroup
			for range 8 {
				loads.Go(func() { _, _ = s.Load(t.Context(), u1) })
			}
			loads.Wait()
			do(t, node, "CONFIG", "RESETSTAT")
			node.Pause()
			_, err := s.Commit(t.Context(), replace(u1, was, `{"b":1}`))
			node.Resume()
			if !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("Commit: %v, want ErrUnavailable", err)
			}
			await(t, "the commit is made", func() bool {
				now, err := s.Load(t.Context(), u1)
				return err == nil && now.Version == 2
			})
			if n := calls(t, node)["evalsha"]; n != 1 {
				t.Errorf("the server got the commit %d times", n)
			}
		})
	}
}
