package redis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// told watches a cart, and returns a channel of its changes once the store hears of them.
func told(t *testing.T, s *Store, key cart.Key) <-chan struct{} {
	t.Helper()
	news := make(chan struct{}, 100)
	t.Cleanup(s.Watch(key, func() { news <- struct{}{} }))
	await(t, "the store hears", func() bool { return s.Hears(key) })
	hear(t, news) // that it does so
	return news
}

// published is how many messages servers were asked to publish.
func published(t *testing.T, servers ...*testserver.Redis) (text string) {
	t.Helper()
	for _, r := range servers {
		for line := range strings.Lines(do(t, r, "INFO", "commandstats")) {
			if strings.HasPrefix(line, "cmdstat_publish:") || strings.HasPrefix(line, "cmdstat_spublish:") {
				command, _, _ := strings.Cut(line, ",usec")
				text += strings.TrimPrefix(command, "cmdstat_") + " "
			}
		}
	}
	return text
}

// Whichever way a commit takes, each watcher of the cart is told once. If nobody watches the cart, nothing is
// published.
func TestWatch(t *testing.T) {
	for _, mode := range []Mode{Standalone, Cluster} {
		t.Run(string(mode), func(t *testing.T) {
			c := Config{Mode: mode}
			var servers []*testserver.Redis
			if mode == Cluster {
				servers = testserver.StartRedisCluster(t, 3).Nodes
			} else {
				servers = []*testserver.Redis{testserver.StartRedis(t)}
			}
			for _, r := range servers {
				c.Addresses = append(c.Addresses, r.Addr)
			}
			writer, reader := open(t, c), open(t, c)
			commits := func(key cart.Key) {
				t.Helper()
				was := &cart.Cart{}
				change := replace(key, was, `{"a":1}`)
				mustCommit(t, writer, storage.Committed, change)                                            // the general way
				mustCommit(t, writer, storage.Committed, replace(key, mustLoad(t, writer, key), `{"b":1}`)) // the quick one
				forget := replace(key, mustLoad(t, writer, key), "")
				forget.Change = storage.Change{Forget: true}
				mustCommit(t, writer, storage.Committed, forget)
				mustCommit(t, writer, storage.Conflict, replace(key, &cart.Cart{ID: "another", Version: 9}, `{"c":1}`))
			}
			keys := []cart.Key{u1, {Identifier: "u2", Instance: "a.b"}, {Identifier: "u{3", Instance: "default"}, {Identifier: "u4", Instance: "default"}}
			unwatched := cart.Key{Identifier: "alone", Instance: "default"}
			before := published(t, servers...)
			commits(unwatched)
			if after := published(t, servers...); after != before {
				t.Errorf("of a cart that nobody watches is published: %q, before %q", after, before)
			}
			for _, key := range keys {
				news := told(t, reader, key)
				commits(key)
				for range 3 {
					hear(t, news)
				}
				if len(news) > 0 {
					t.Errorf("%s: told %d times too often", key, len(news))
				}
			}
			before = published(t, servers...)
			commits(unwatched)
			if after := published(t, servers...); after != before || before == "" {
				t.Errorf("of a cart that nobody watches is published: %q, before %q", after, before)
			}
			if mode == Cluster && strings.Contains(before, "cmdstat_publish") {
				t.Errorf("not by shard channels: %q", before)
			}
		})
	}
}

// However many readers there are, a process has one subscription for all watched carts, or in a Cluster one on each
// master. A process that watches nothing has none.
func TestOneSubscription(t *testing.T) {
	for _, mode := range []Mode{Standalone, Cluster} {
		t.Run(string(mode), func(t *testing.T) {
			c := Config{Mode: mode}
			servers := []*testserver.Redis{}
			if mode == Cluster {
				servers = testserver.StartRedisCluster(t, 3).Nodes
			} else {
				servers = append(servers, testserver.StartRedis(t))
			}
			for _, r := range servers {
				c.Addresses = append(c.Addresses, r.Addr)
			}
			idle, reader := open(t, c), open(t, c)
			mustCommit(t, idle, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
			for i := range 60 {
				key := cart.Key{Identifier: fmt.Sprint("u", i/2), Instance: "default"}
				t.Cleanup(reader.Watch(key, func() {}))
				await(t, "the store hears", func() bool { return reader.Hears(key) })
			}
			for _, r := range servers {
				list := strings.TrimSpace(do(t, r, "CLIENT", "LIST", "TYPE", "pubsub"))
				if n := strings.Count(list, "id="); n != 1 {
					t.Errorf("%s has %d subscribers, want 1:\n%s", r.Addr, n, list)
				}
			}
		})
	}
}

// A commit costs the server nothing more if other carts are watched.
func TestUnwatchedCommitsCostNothing(t *testing.T) {
	r := testserver.StartRedis(t)
	c := Config{Addresses: []string{r.Addr}}
	writer, reader := open(t, c), open(t, c)
	calls := func(key cart.Key) (text string) {
		do(t, r, "CONFIG", "RESETSTAT")
		for range 20 {
			mustCommit(t, writer, storage.Committed, replace(key, mustLoad(t, writer, key), `{"a":1}`))
		}
		for line := range strings.Lines(do(t, r, "INFO", "commandstats")) {
			name, stats, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
			switch name {
			case "hget", "hmget", "hset", "mget", "get", "publish", "spublish", "pexpireat", "pexpire", "evalsha", "time", "exists", "hgetall":
				n, _, _ := strings.Cut(stats, ",")
				text += name + " " + n + " "
			}
		}
		return text
	}
	unwatched := cart.Key{Identifier: "alone", Instance: "default"}
	mustCommit(t, writer, storage.Committed, replace(unwatched, &cart.Cart{}, `{"a":1}`))
	nobody := calls(unwatched)
	for i := range 20 {
		told(t, reader, cart.Key{Identifier: fmt.Sprint("u", i), Instance: "default"})
	}
	if others := calls(unwatched); others != nobody || strings.Contains(nobody, "publish") || !strings.Contains(nobody, "evalsha calls=") {
		t.Errorf("20 commits while others are watched make %q, want %q", others, nobody)
	}
	told(t, reader, unwatched)
	if watched := calls(unwatched); !strings.Contains(watched, "publish calls=20") {
		t.Errorf("20 commits of a cart that is watched make %q", watched)
	}
}

// After watching ends, nothing more is told, and nothing of it is left on a server.
func TestWatchEnds(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	news := make(chan struct{}, 100)
	stop := s.Watch(u1, func() { news <- struct{}{} })
	await(t, "the store hears", func() bool { return s.Hears(u1) })
	stop()
	channel := s.space.names(u1).channel
	await(t, "the subscription ends", func() bool {
		return do(t, r, "EVAL", "return redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2]", "0", channel) == "0"
	})
	for len(news) > 0 {
		<-news
	}
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	if len(news) > 0 || s.Hears(u1) {
		t.Error("it is still told")
	}
	told(t, s, u1) // and may begin again
}

// When the connection of the subscription breaks, the store knows that it does not hear, and still tells of its own
// changes. Then it hears again, and says so.
func TestWatchBroken(t *testing.T) {
	for _, mode := range []Mode{Standalone, Cluster} {
		t.Run(string(mode), func(t *testing.T) {
			c := Config{Mode: mode}
			var servers []*testserver.Redis
			if mode == Cluster {
				servers = testserver.StartRedisCluster(t, 3).Nodes
			} else {
				servers = []*testserver.Redis{testserver.StartRedis(t)}
			}
			for _, r := range servers {
				c.Addresses = append(c.Addresses, r.Addr)
			}
			writer, reader := open(t, c), open(t, c)
			news := told(t, reader, u1)
			other := told(t, reader, cart.Key{Identifier: "u9", Instance: "default"}) // of another shard
			for round := range 2 {
				for _, r := range servers {
					do(t, r, "CLIENT", "KILL", "TYPE", "pubsub")
				}
				hear(t, news) // it hears again, and may have missed something
				hear(t, other)
				await(t, "the store hears", func() bool { return reader.Hears(u1) })
				mustCommit(t, writer, storage.Committed, replace(u1, mustLoad(t, writer, u1), strings.Replace(`{"a":N}`, "N", string(rune('1'+round)), 1)))
				hear(t, news)
			}
		})
	}
}

// If the server lets nobody subscribe, or the user may not, the store tells only of its own changes.
func TestWatchRefused(t *testing.T) {
	r := testserver.StartRedis(t)
	do(t, r, "ACL", "SETUSER", "default", "-subscribe", "-ssubscribe")
	s := open(t, Config{Addresses: []string{r.Addr}})
	news := make(chan struct{}, 100)
	t.Cleanup(s.Watch(u1, func() { news <- struct{}{} }))
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	hear(t, news)
	if s.Hears(u1) {
		t.Error("it says that it hears")
	}
}

// A look shows whether a cart has changed, and when it will be gone. A key that holds something else hides no cart.
func TestGlance(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	k := mustLoad(t, s, u1)
	broken, absent := cart.Key{Identifier: "broken", Instance: "default"}, cart.Key{Identifier: "absent", Instance: "default"}
	do(t, r, "SET", s.space.names(broken).cart, "x")
	all, err := s.Glance(t.Context(), []cart.Key{absent, broken, u1})
	if err != nil {
		t.Fatal(err)
	}
	if all[0] != (storage.Glimpse{}) || all[1] != (storage.Glimpse{}) || all[2].ID != k.ID || all[2].Version != 1 {
		t.Errorf("got %+v", all)
	}
	if left := time.Until(k.ExpiresAt); !k.ExpiresAt.IsZero() && (all[2].Left < left-time.Second || all[2].Left > left+time.Second) {
		t.Errorf("left are %v, want %v", all[2].Left, left)
	}
}

func hear(t *testing.T, news <-chan struct{}) {
	t.Helper()
	select {
	case <-news:
	case <-time.After(patient):
		t.Fatal("nothing is told")
	}
}
