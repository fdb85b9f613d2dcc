package redis

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/storagetest"
	"github.com/sidecart/sidecart/internal/testserver"
)

// replicated are a server and a Cluster, each master with one replica.
func replicated(t *testing.T) map[string]struct {
	config            Config
	masters, replicas []*testserver.Redis
} {
	t.Helper()
	master := testserver.StartRedis(t)
	cluster := testserver.StartRedisCluster(t, 3)
	return map[string]struct {
		config            Config
		masters, replicas []*testserver.Redis
	}{
		"Standalone": {Config{Addresses: []string{master.Addr}, MinReplicas: 1}, []*testserver.Redis{master}, []*testserver.Redis{testserver.StartRedisReplica(t, master)}},
		"Cluster":    {Config{Addresses: cluster.Addrs(), Mode: Cluster, MinReplicas: 1}, cluster.Nodes, cluster.AddReplicas(t)},
	}
}

// TestMinReplicas: an acknowledged change is on a replica. If no replica confirms a change, its outcome is reported as
// unknown.
func TestMinReplicas(t *testing.T) {
	for name, servers := range replicated(t) {
		t.Run(name, func(t *testing.T) {
			s := open(t, servers.config)
			onReplica := func(key string) bool {
				for _, r := range servers.replicas {
					// A replica of a Cluster answers for its master to those who say READONLY; scripts of its own do
					// not.
					if strings.Contains(do(t, r, "EVAL", "#!lua flags=no-writes,allow-cross-slot-keys\nreturn table.concat(redis.call('KEYS', '*'), ' ')", "0"), key) {
						return true
					}
				}
				return false
			}
			connected(t, s) // which no change may use
			mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
			if !onReplica(s.space.names(u1).cart) {
				t.Error("a change was acknowledged that no replica has")
			}
			lease := leaseOf(cart.PartConditions)
			mustLease(t, s, u1, lease)
			if !onReplica(s.space.names(u1).lockKey(cart.PartConditions)) {
				t.Error("a lease was acknowledged that no replica has")
			}
			if err := s.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}

			// Frozen, the replicas confirm nothing, although they are connected.
			for _, r := range servers.replicas {
				r.Pause()
			}
			brief := servers.config
			brief.WriteTimeout = 100 * time.Millisecond
			b := open(t, brief)
			connected(t, b)
			was := mustLoad(t, b, u1)
			_, commit := b.Commit(t.Context(), replace(u1, was, `{"b":1}`))
			_, acquire := b.Acquire(t.Context(), u1, leaseOf(cart.PartItems), false)
			_, renew := b.Renew(t.Context(), u1, lease.Token, time.Hour)
			for doing, err := range map[string]error{"Commit": commit, "Acquire": acquire, "Renew": renew, "Release": b.Release(t.Context(), u1, lease.Token)} {
				if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "0 of the 1 replicas that minReplicas asks for confirmed it within 100ms") {
					t.Errorf("%s: %v, want ErrUnavailable that says why", doing, err)
				}
				if _, refused := storage.RefusalOf(err); refused {
					t.Errorf("%s: %v says that nothing was changed", doing, err)
				}
			}
			if now := mustLoad(t, b, u1); now.Version != was.Version+1 {
				t.Errorf("the master has version %d, want %d", now.Version, was.Version+1)
			}
			for asking, err := range map[string]error{"Ping": b.Ping(t.Context()), "Beat": b.Beat(t.Context())} {
				if words, ok := storage.RefusalOf(err); !errors.Is(err, storage.ErrUnavailable) || !ok || !strings.Contains(words, "minReplicas asks for 1 replicas that confirm it, and 0 did within 100ms") {
					t.Errorf("%s: %v, want a refusal that says why", asking, err)
				}
			}
			for _, m := range servers.masters {
				await(t, "the probes leave nothing", func() bool {
					return !strings.Contains(do(t, m, "EVAL", "#!lua flags=no-writes,allow-cross-slot-keys\nreturn table.concat(redis.call('KEYS', '*'), ' ')", "0"), probeComponent)
				})
			}
			for _, r := range servers.replicas {
				r.Resume()
			}
			await(t, "the replicas confirm again", func() bool { return b.Ping(t.Context()) == nil })
			mustCommit(t, b, storage.Committed, replace(u1, mustLoad(t, b, u1), `{"c":1}`))
		})
	}
}

// TestMinReplicasAsksBehindEachScript: WAIT follows exactly the scripts that may acknowledge something, over the same
// connection.
func TestMinReplicasAsksBehindEachScript(t *testing.T) {
	for name, servers := range replicated(t) {
		t.Run(name, func(t *testing.T) {
			s := open(t, servers.config)
			mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
			for _, m := range servers.masters {
				do(t, m, "CONFIG", "RESETSTAT")
			}
			for range 10 {
				mustCommit(t, s, storage.Committed, replace(u1, mustLoad(t, s, u1), `{"a":1}`))
			}
			scripts, waits := 0, 0
			for _, m := range servers.masters {
				n := calls(t, m)
				scripts, waits = scripts+n["evalsha"]+n["eval"], waits+n["wait"]
			}
			if scripts != 10 || waits != 10 {
				t.Errorf("%d scripts and %d times WAIT, want 10 of each", scripts, waits)
			}
		})
	}
}

// TestConformanceWithMinReplicas: a store that waits for replicas keeps the whole contract.
func TestConformanceWithMinReplicas(t *testing.T) {
	master := testserver.StartRedis(t)
	testserver.StartRedisReplica(t, master)
	storagetest.Run(t, harness(Config{Addresses: []string{master.Addr}, MinReplicas: 1}), storagetest.Caps{})
}

// TestMinReplicasNeedsTheRight: a user who may not wait for replicas is told so by name.
func TestMinReplicasNeedsTheRight(t *testing.T) {
	master := testserver.StartRedis(t)
	testserver.StartRedisReplica(t, master)
	do(t, master, "ACL", "SETUSER", "sidecart", "on", ">PASSWORD", "~*", "&*", "+@all", "-wait")
	s := open(t, Config{
		Addresses: []string{master.Addr}, MinReplicas: 1,
		Username: storage.NewSecret("sidecart", "/s/user"), Password: storage.NewSecret("PASSWORD", "/s/password"),
	})
	if words, ok := storage.RefusalOf(s.Ping(t.Context())); !ok || !strings.Contains(words, "'wait'") {
		t.Errorf("Ping: %q, want it to name wait", words)
	}
	if _, err := s.Commit(t.Context(), replace(u1, &cart.Cart{}, `{}`)); !errors.Is(err, storage.ErrUnavailable) || strings.Contains(err.Error(), "sidecart") {
		t.Errorf("Commit: %v, want ErrUnavailable without the user's name", err)
	}
}

// TestSentinelsWithPasswords: servers and sentinels ask for a password each, and a failover is followed. The master
// that was replaced is not written to when it comes back.
func TestSentinelsWithPasswords(t *testing.T) {
	master := testserver.StartRedis(t, testserver.WithPassword("s3cret-word"))
	replica := testserver.StartRedisReplica(t, master, testserver.WithPassword("s3cret-word"))
	var addrs []string
	for _, sentinel := range testserver.StartSentinels(t, 3, master, 1) {
		addrs = append(addrs, sentinel.Addr)
	}
	password := storage.NewSecret("s3cret-word", "/s/password")
	c := Config{Addresses: addrs, Mode: Sentinel, MasterName: testserver.SentinelMaster, Password: password}
	wantUnavailable(t, open(t, c), "no password for the sentinels")
	c.SentinelPassword = password
	s := open(t, c)
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	await(t, "the replica has it", func() bool { return do(t, replica, "EXISTS", s.space.names(u1).cart) == "1" })

	master.Kill()
	await(t, "the replica is the master", func() bool { return s.Ping(t.Context()) == nil })
	replica.AwaitRole("master")
	was := mustLoad(t, s, u1)
	mustCommit(t, s, storage.Committed, replace(u1, was, `{"b":1}`))

	master.Restart()
	for n := range 20 {
		mustCommit(t, s, storage.Committed, replace(u1, mustLoad(t, s, u1), `{"n":`+strconv.Itoa(n)+`}`))
	}
	if n := calls(t, master)["evalsha"] + calls(t, master)["eval"]; n != 0 {
		t.Errorf("the replaced master was asked %d times", n)
	}
	if now := mustLoad(t, s, u1); now.Version != was.Version+21 {
		t.Errorf("version %d, want %d", now.Version, was.Version+21)
	}
}

// TestWokenWaiterAsksReplicas: the cart that comes with a wake-up may be on no replica yet. A change that is computed
// from it must not be acknowledged then.
func TestWokenWaiterAsksReplicas(t *testing.T) {
	master := testserver.StartRedis(t)
	replica := testserver.StartRedisReplica(t, master)
	c := Config{Addresses: []string{master.Addr}, MinReplicas: 1}
	first := claimOf(cart.PartItems)
	s := open(t, c)
	if _, err := s.Acquire(t.Context(), u1, first, false); err != nil {
		t.Fatal(err)
	}
	c.WriteTimeout = 200 * time.Millisecond
	waits := open(t, c)
	listen(t, waits)
	second := claimOf(cart.PartItems)
	second.Duration = storage.WaiterTTL // a longer one is claimed again in any case
	granted := make(chan error, 1)
	go func() {
		_, err := waits.Acquire(t.Context(), u1, second, false)
		granted <- err
	}()
	await(t, "the second waits", func() bool {
		return strings.Contains(do(t, master, "GET", s.space.names(u1).queue), `"waiting":[{`)
	})
	replica.Pause()
	if err := s.Abandon(t.Context(), u1, first.Token); err != nil {
		t.Fatal(err)
	}
	if err := <-granted; !errors.Is(err, storage.ErrUnavailable) || !isUnconfirmed(err) {
		t.Errorf("Acquire: %v, want ErrUnavailable, since no replica confirmed", err)
	}
	replica.Resume()
}
