package redis

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

func codes(t *testing.T, s *Store) (list []string) {
	t.Helper()
	advice, err := s.Advice(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range advice {
		list = append(list, a.Code)
	}
	return list
}

// TestAdvice: a server that may lose carts is reported, whatever the reason.
func TestAdvice(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want []string
	}{
		{"all is well", []string{"--appendonly", "yes"}, nil},
		{"snapshots", []string{"--save", "3600 1"}, nil},
		{"nothing is written", nil, []string{storage.AdviceNotPersistent}},
		{"nobody may ask", []string{"--rename-command", "CONFIG", ""}, []string{storage.AdviceUnknownPersistence}},
		{"a limit, and changes are refused", []string{"--appendonly", "yes", "--maxmemory", "100mb"}, nil},
		{"a policy without a limit", []string{"--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"}, nil},
		{"a policy that takes all", []string{"--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"}, []string{storage.AdviceEvictionPolicy}},
		{"a policy that takes what ends", []string{"--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"}, []string{storage.AdviceEvictionPolicy}},
		{"nothing is told", []string{"--appendonly", "yes", "--rename-command", "INFO", ""}, []string{storage.AdviceUnknownEviction, storage.AdviceUnknownPersistence}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := testserver.StartRedis(t, testserver.WithRedisArgs(test.args...))
			s := open(t, Config{Addresses: []string{r.Addr}})
			if got := codes(t, s); !slices.Equal(got, test.want) {
				t.Errorf("advice is %v, want %v", got, test.want)
			}
		})
	}
	t.Run("one master of a Cluster", func(t *testing.T) {
		c := testserver.StartRedisCluster(t, 3)
		s := open(t, Config{Addresses: c.Addrs(), Mode: Cluster})
		before := codes(t, s)
		do(t, c.Nodes[1], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
		do(t, c.Nodes[1], "CONFIG", "SET", "maxmemory", "100mb")
		if got := codes(t, s); !slices.Contains(got, storage.AdviceEvictionPolicy) || slices.Contains(before, storage.AdviceEvictionPolicy) {
			t.Errorf("advice is %v, and was %v", got, before)
		}
	})
	t.Run("nobody answers", func(t *testing.T) {
		r := testserver.StartRedis(t)
		s := open(t, Config{Addresses: []string{r.Addr}})
		r.Kill()
		if advice, err := s.Advice(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("advice is %v, %v, want ErrUnavailable", advice, err)
		}
	})
}

// TestEvictedCarts: evictions are reported, and the remaining carts of an identifier are found without the index.
func TestEvictedCarts(t *testing.T) {
	r := testserver.StartRedis(t, testserver.WithAOF())
	s := open(t, Config{Addresses: []string{r.Addr}})
	used, _ := strconv.Atoi(strings.TrimSpace(infoOf(t, r, "used_memory")))
	do(t, r, "CONFIG", "SET", "maxmemory", strconv.Itoa(used+4<<20))
	do(t, r, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	items := `{"a":"` + strings.Repeat("x", 2000) + `"}`
	const identifiers, instances = 500, 5
	for i := range identifiers {
		for j := range instances {
			key := cart.Key{Identifier: fmt.Sprint("u", i), Instance: fmt.Sprint(j)}
			mustCommit(t, s, storage.Committed, replace(key, &cart.Cart{}, items))
		}
	}
	if got := codes(t, s); !slices.Equal(got, []string{storage.AdviceCartsEvicted, storage.AdviceEvictionPolicy}) {
		t.Errorf("advice is %v", got)
	}
	left, lostIndex := 0, 0
	for i := range identifiers {
		identifier := fmt.Sprint("u", i)
		var there []string
		for j := range instances {
			if do(t, r, "EXISTS", "cart."+identifier+"."+fmt.Sprint(j)) == "1" {
				there = append(there, fmt.Sprint(j))
			}
		}
		left += len(there)
		if len(there) > 0 && do(t, r, "EXISTS", "index.cart."+identifier) == "0" {
			lostIndex++
		}
		list, err := s.Instances(t.Context(), identifier)
		if err != nil || !slices.Equal(list, there) {
			t.Fatalf("instances of %s are %v, %v, there are %v", identifier, list, err, there)
		}
	}
	t.Logf("%d of %d carts are left, %d identifiers had lost their index", left, identifiers*instances, lostIndex)
	if left == 0 || left == identifiers*instances {
		t.Errorf("%d carts are left of %d: nothing was tried", left, identifiers*instances)
	}
}

func infoOf(t *testing.T, r *testserver.Redis, name string) string {
	t.Helper()
	for line := range strings.Lines(do(t, r, "INFO")) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return value
		}
	}
	t.Fatalf("INFO says nothing of %s", name)
	return ""
}

// TestLostIndex: an index that was lost without notice is mended by the next call that lists the carts or changes one.
func TestLostIndex(t *testing.T) {
	r := testserver.StartRedis(t)
	c := testserver.StartRedisCluster(t, 3)
	for name, config := range map[string]Config{
		"Standalone": {Addresses: []string{r.Addr}, Namespace: "n:"},
		"Cluster":    {Addresses: c.Addrs(), Mode: Cluster},
	} {
		t.Run(name, func(t *testing.T) {
			for _, node := range nodes(name, r, c) {
				do(t, node, "CONFIG", "SET", "maxmemory-policy", "volatile-lru")
				do(t, node, "CONFIG", "SET", "maxmemory", "1gb")
			}
			s := open(t, config)
			config.Prefix = "cart.a" // of which a pattern must not take the carts for those of cart
			other := open(t, config)
			const identifier = `u*?[x]\.y`
			all := []string{"default", "gift.wrap", "items", "ü{}"}
			key := func(i int) cart.Key { return cart.Key{Identifier: identifier, Instance: all[i]} }
			index, _ := s.space.owner(identifier)
			for i := range all {
				mustCommit(t, s, storage.Committed, replace(key(i), &cart.Cart{}, `{}`))
				mustCommit(t, s, storage.Committed, replace(cart.Key{Identifier: "uABx\\.y", Instance: all[i]}, &cart.Cart{}, `{}`))
				mustCommit(t, other, storage.Committed, replace(key(i), &cart.Cart{}, `{}`))
			}
			lose := func() {
				t.Helper()
				if n, err := s.client.Del(t.Context(), index).Result(); err != nil || n != 1 {
					t.Fatalf("%d, %v", n, err)
				}
			}
			for range 2 {
				lose()
				if list, err := s.Instances(t.Context(), identifier); err != nil || !slices.Equal(list, all) {
					t.Errorf("instances are %q, %v, want %q", list, err, all)
				}
			}
			members := func() int64 { return s.client.SCard(t.Context(), index).Val() }
			if n := members(); n != int64(len(all)) {
				t.Errorf("after a list the index has %d members, want %d", n, len(all))
			}
			if life, cart := s.client.PTTL(t.Context(), index).Val(), s.client.PTTL(t.Context(), s.space.names(key(0)).cart).Val(); life < cart {
				t.Errorf("the index lives %v, the cart %v", life, cart)
			}
			lose()
			for i := range all {
				change := replace(key(i), mustLoad(t, s, key(i)), `{"a":1}`)
				mustCommit(t, s, storage.Committed, change)
				if n := members(); n != int64(i)+1 {
					t.Errorf("after %d changes the index has %d members", i+1, n)
				}
			}
			// A cart that does not expire: nor does its index.
			forever := replace(key(0), mustLoad(t, s, key(0)), `{"b":1}`)
			forever.Change.TTL = 0
			mustCommit(t, s, storage.Committed, forever)
			lose()
			if list, err := s.Instances(t.Context(), identifier); err != nil || !slices.Equal(list, all) {
				t.Errorf("instances are %q, %v, want %q", list, err, all)
			}
			if life := s.client.PTTL(t.Context(), index).Val(); life != -1 {
				t.Errorf("the index of a cart without end lives %v", life)
			}
		})
	}
}

// TestIndexIsTrusted: a server that evicts nothing is not searched.
func TestIndexIsTrusted(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{}`))
	do(t, r, "CONFIG", "RESETSTAT")
	const lists = 100
	start := time.Now()
	for range lists {
		if list, err := s.Instances(t.Context(), u1.Identifier); err != nil || len(list) != 1 {
			t.Fatalf("instances are %v, %v", list, err)
		}
	}
	got := calls(t, r)
	if got["scan"] != 0 || got["evalsha"]+got["eval"] > lists+1 || got["info"] > 2+int(time.Since(start)/healthLife) {
		t.Errorf("%d lists took %v", lists, got)
	}
}
