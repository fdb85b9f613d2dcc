package redis

import (
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// What Laravel puts before the name of a lock, unless it is told otherwise: the prefix of its Redis connections
// (database.redis.options.prefix), and that of its cache (cache.prefix).
const (
	laravelConnection = "laravel_database_"
	laravelCache      = "laravel_cache_"
)

func laravel(t *testing.T) foreignLock {
	for _, f := range foreignLocks {
		if f.name == "Laravel" {
			return f
		}
	}
	t.Fatal("no locks of Laravel")
	return foreignLock{}
}

// TestLaravelNamespace: with a namespace that is both of Laravel's prefixes, its locks and Sidecart's hold each other
// off, both ways. With any other namespace they do not, as docs/locks.md says.
func TestLaravelNamespace(t *testing.T) {
	r := testserver.StartRedis(t)
	foreign := laravel(t)
	const name = "lock.cart.u1.default.items" // as a PHP program says it
	for _, test := range []struct {
		namespace string
		excludes  bool
	}{
		{laravelConnection + laravelCache, true},
		{laravelConnection, false},
		{laravelCache, false},
		{"", false},
	} {
		t.Run("namespace "+test.namespace, func(t *testing.T) {
			do(t, r, "FLUSHALL")
			s := open(t, Config{Addresses: []string{r.Addr}, Namespace: test.namespace})
			mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))

			release, ok, err := foreign.obtain(t.Context(), s, laravelConnection+laravelCache+name, time.Hour)
			if err != nil || !ok {
				t.Fatalf("Laravel does not obtain a free lock: %v", err)
			}
			want := storage.Committed
			if test.excludes {
				want = storage.Locked
			}
			mustCommit(t, s, want, replace(u1, mustLoad(t, s, u1), `{"b":1}`))
			if !release(t.Context()) {
				t.Fatal("Laravel's lock was touched")
			}

			claim := leaseOf(cart.PartItems)
			mustLease(t, s, u1, claim)
			release, ok, err = foreign.obtain(t.Context(), s, laravelConnection+laravelCache+name, time.Hour)
			if err != nil || ok == test.excludes {
				t.Fatalf("Laravel obtains what Sidecart has leased: %v, %v", ok, err)
			}
			if ok && !release(t.Context()) {
				t.Error("Laravel's lock was touched")
			}
			if err := s.Release(t.Context(), u1, claim.Token); err != nil {
				t.Fatal(err)
			}
			if test.excludes {
				if release, ok, err = foreign.obtain(t.Context(), s, laravelConnection+laravelCache+name, time.Hour); err != nil || !ok || !release(t.Context()) {
					t.Errorf("after Release Laravel obtains %v, %v", ok, err)
				}
			}
		})
	}
}

// TestNamespaceOfAllKeys: no key is outside of the namespace, and Flush stays within it.
func TestNamespaceOfAllKeys(t *testing.T) {
	r := testserver.StartRedis(t)
	c := testserver.StartRedisCluster(t, 3)
	for name, config := range map[string]Config{
		"Standalone": {Addresses: []string{r.Addr}},
		"Cluster":    {Addresses: c.Addrs(), Mode: Cluster},
	} {
		t.Run(name, func(t *testing.T) {
			plain := open(t, config)
			config.Namespace = "shop:1."
			s := open(t, config)
			fill := func(s *Store) {
				t.Helper()
				mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{}`))
				mustLease(t, s, u1, leaseOf(cart.PartItems))
				mustLease(t, s, u1, leaseOf(cart.PartMetadata("m")))
				if list, err := s.Instances(t.Context(), u1.Identifier); err != nil || len(list) != 1 {
					t.Errorf("Instances = %v, %v", list, err)
				}
			}
			keys := func() (all []string) {
				for _, node := range nodes(name, r, c) {
					all = append(all, strings.Fields(do(t, node, "EVAL", "return table.concat(redis.call('KEYS', '*'), ' ')", "0"))...)
				}
				return all
			}
			fill(s)
			const kinds = 6 // cart, index, queue, fence, two locks
			if all := keys(); len(all) != kinds {
				t.Errorf("keys are %q, want %d", all, kinds)
			}
			for _, k := range keys() {
				if !strings.HasPrefix(k, "shop:1.") {
					t.Errorf("key %q is outside of the namespace", k)
				}
			}
			if c := mustLoad(t, plain, u1); c.Exists() {
				t.Error("the cart is seen without the namespace")
			}
			fill(plain)
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if all := keys(); len(all) != kinds {
				t.Errorf("after Flush keys are %q, want the %d of the other", all, kinds)
			}
			if err := plain.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
