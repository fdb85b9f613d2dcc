package processes

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testserver"
)

// burden is a load of clients that add to carts, one request after the other, until it is taken off.
type burden struct {
	t     *testing.T
	fleet []*sidecar
	known []count // of each client, which has an item of its own in one cart
	carts []string

	mu        sync.Mutex
	acked     int
	failed    map[string]int // answers that are no success
	tried     int
	last      []time.Time   // the last success of each client
	gap, slow time.Duration // the longest time that a client was without success, and the longest call
	changed   chan struct{} // closed at each answer

	off     chan struct{}
	stop    func() // closes off
	clients sync.WaitGroup
}

// newBurden starts so many clients, which share the carts.
func newBurden(t *testing.T, fleet []*sidecar, clients int, carts ...string) *burden {
	b := &burden{
		t: t, fleet: fleet, carts: carts, known: make([]count, clients), failed: map[string]int{}, last: make([]time.Time, clients),
		changed: make(chan struct{}), off: make(chan struct{}),
	}
	b.stop = sync.OnceFunc(func() { close(b.off) })
	t.Cleanup(func() { // also where the test fails, and before the sidecars end
		b.stop()
		b.clients.Wait()
	})
	for n := range clients {
		b.last[n] = time.Now()
		b.clients.Go(func() { b.client(n) })
	}
	return b
}

func (b *burden) client(n int) {
	const pace = 20 * time.Millisecond // after a failure, so that a fleet without backend is not asked without end
	body := fmt.Sprintf(`{"item":{"id":"client-%d","quantity":1}}`, n)
	for {
		select {
		case <-b.off:
			return
		default:
		}
		start := time.Now()
		status, answer, err := b.fleet[n%len(b.fleet)].call(context.Background(), http.MethodPost, "/v1/carts/"+b.cart(n)+"/items", body)
		b.answered(n, start, status, answer, err)
		if status != http.StatusOK {
			pause(b.t.Context(), pace)
		}
	}
}

func (b *burden) cart(n int) string { return b.carts[n%len(b.carts)] + "/default" }

func (b *burden) answered(n int, start time.Time, status int, answer []byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.tried++
	b.slow = max(b.slow, now.Sub(start))
	switch {
	case err == nil && status == http.StatusOK:
		b.known[n].acknowledged++
		b.acked++
		b.gap = max(b.gap, now.Sub(b.last[n]))
		b.last[n] = now
	case err == nil && (status == http.StatusServiceUnavailable || status == http.StatusLocked):
		b.known[n].unknown++
		b.failed[fmt.Sprint(status)]++
	default:
		b.known[n].unknown++
		b.failed[fmt.Sprint(status, err)]++
		b.t.Errorf("add: %d %s %v", status, answer, err)
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// await returns when is returns true. It asks at each answer.
func (b *burden) await(what string, is func() bool) {
	b.t.Helper()
	const patience = time.Minute
	over := time.After(patience)
	for {
		b.mu.Lock()
		done, changed, acked, failed := is(), b.changed, b.acked, fmt.Sprint(b.failed)
		b.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-over:
			b.t.Fatalf("%s: not within %v; %d acknowledged, failed: %s", what, patience, acked, failed)
		}
	}
}

// more waits for so many more successes.
func (b *burden) more(what string, n int) {
	b.t.Helper()
	b.mu.Lock()
	want := b.acked + n
	b.mu.Unlock()
	b.await(what, func() bool { return b.acked >= want })
}

// attempts waits for so many more answers, whatever they are.
func (b *burden) attempts(what string, n int) {
	b.t.Helper()
	b.mu.Lock()
	want := b.tried + n
	b.mu.Unlock()
	b.await(what, func() bool { return b.tried >= want })
}

// tally says how the clients' adds ended.
type tally struct {
	acknowledged, unknown int
	lost                  int // acknowledged, and not in the cart
	doubled               int // in the cart, and neither acknowledged nor without an answer
	gap, slow             time.Duration
}

func (o tally) String() string {
	return fmt.Sprintf("%d acknowledged, %d without an answer, %d lost, %d doubled; %.1f s without success, longest call %.1f s",
		o.acknowledged, o.unknown, o.lost, o.doubled, o.gap.Seconds(), o.slow.Seconds())
}

// take ends the burden and counts.
func (b *burden) take() tally {
	b.t.Helper()
	b.stop()
	b.clients.Wait()
	o := tally{gap: b.gap, slow: b.slow}
	for n, k := range b.known {
		got := b.fleet[0].quantities(b.cart(n))[fmt.Sprintf("client-%d", n)]
		o.acknowledged, o.unknown = o.acknowledged+k.acknowledged, o.unknown+k.unknown
		o.lost += max(0, k.acknowledged-got)
		o.doubled += max(0, got-k.acknowledged-k.unknown)
	}
	return o
}

// replicaSet is the servers of a failover: the master that is struck, its replicas, and how sidecars find them.
type replicaSet struct {
	master    *testserver.Redis
	replicas  []*testserver.Redis
	sentinels []*testserver.Redis
	args      []string
}

// recovered returns once the servers serve again: a replica is the master, every sentinel names it, and so many
// replicas follow it.
func (s *replicaSet) recovered(ctx context.Context, minReplicas int) {
	for {
		for _, r := range s.replicas {
			text, err := r.Do("INFO", "replication")
			if err == nil && strings.Contains(text, "role:master\r\n") && strings.Count(text, "state=online") >= minReplicas && s.named(r.Addr) {
				return
			}
		}
		if pause(ctx, 20*time.Millisecond); ctx.Err() != nil {
			return
		}
	}
}

// named reports whether every sentinel names the server at that address as the master.
func (s *replicaSet) named(address string) bool {
	for _, sentinel := range s.sentinels {
		if text, err := sentinel.Do("INFO", "sentinel"); err != nil || !strings.Contains(text, ",address="+address+",") {
			return false
		}
	}
	return true
}

// forms are the two in which Redis fails over by itself. Each master has two replicas, so that its successor has one.
var forms = map[string]func(t *testing.T) replicaSet{
	"Sentinel": func(t *testing.T) replicaSet {
		s := replicaSet{master: testserver.StartRedis(t)}
		for range 2 {
			s.replicas = append(s.replicas, testserver.StartRedisReplica(t, s.master))
		}
		s.args = []string{"--redis-mode", "sentinel", "--redis-master-name", testserver.SentinelMaster}
		s.sentinels = testserver.StartSentinels(t, 3, s.master, len(s.replicas))
		for _, sentinel := range s.sentinels {
			s.args = append(s.args, "--redis-address", sentinel.Addr)
		}
		return s
	},
	"Cluster": func(t *testing.T) replicaSet {
		c := testserver.StartRedisCluster(t, 3)
		s := replicaSet{master: c.Nodes[0], args: []string{"--redis-mode", "cluster", "--redis-address", strings.Join(c.Addrs(), ",")}}
		for range 2 {
			s.replicas = append(s.replicas, c.AddReplicas(t)[0])
		}
		return s
	},
}

// strikes are what can happen to a master.
var strikes = map[string]func(t *testing.T, s replicaSet, b *burden){
	"SIGKILL": func(_ *testing.T, s replicaSet, _ *burden) { s.master.Kill() },
	// It is frozen and comes back as a master that has been replaced. Nobody may write to it then.
	"SIGSTOP": func(t *testing.T, s replicaSet, b *burden) {
		s.master.Pause()
		b.await("the successor serves", b.eachServed())
		s.master.Resume()
		first := evals(t, s.master)
		s.master.AwaitRole("slave")
		if n := evals(t, s.master) - first; n > len(b.known) { // those that it had received when it froze
			t.Errorf("the replaced master ran %d scripts after it came back", n)
		}
	},
	// From then on, the changes that the master acknowledges are on no replica when one of them takes over.
	"replication breaks, then SIGKILL": func(t *testing.T, s replicaSet, b *burden) {
		for _, r := range s.replicas {
			r.Pause()
		}
		if _, err := s.master.Do("CLIENT", "KILL", "TYPE", "replica"); err != nil {
			t.Fatal(err)
		}
		b.attempts("changes go on", 40)
		s.master.Kill()
		for _, r := range s.replicas {
			r.Resume()
		}
	},
}

// evals is how many scripts a server has run.
func evals(t *testing.T, r *testserver.Redis) (n int) {
	t.Helper()
	info, err := r.Do("INFO", "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			_, _ = fmt.Sscan(strings.Replace(rest, ",", " ", 1), &n)
		}
	}
	return n
}

// failover is one form, one strike, and how many replicas must confirm.
type failover struct {
	form, strike string
	minReplicas  int
}

// ownShare bounds how long a client may be without success once the servers serve again. A turn that was granted
// without any sidecar knowing ends after 5 s, and a sidecar may need its timeouts to find the successor.
const ownShare = 8 * time.Second

// TestFailover strikes the master while clients add. An add that was acknowledged with minReplicas is never lost.
// Without, it may be. If replication was broken before, it is lost, which proves that this test notices a loss.
func TestFailover(t *testing.T) {
	for _, f := range failovers {
		t.Run(fmt.Sprintf("%s/%s/minReplicas=%d", f.form, f.strike, f.minReplicas), func(t *testing.T) {
			servers := forms[f.form](t)
			fleet := startFleet(t, append(servers.args, "--backend", "redis", "--redis-min-replicas", fmt.Sprint(f.minReplicas))...)
			b := newBurden(t, fleet, 12, "u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8")
			b.more("before the strike", 300)
			struck, recovered := time.Now(), make(chan time.Duration, 1)
			go func() {
				servers.recovered(t.Context(), f.minReplicas)
				recovered <- time.Since(struck)
			}()
			strikes[f.strike](t, servers, b)
			b.await("each client is served again", b.eachServed())
			o, took := b.take(), <-recovered
			t.Logf("%v, of which the servers took %.1f s", o, took.Seconds())
			if o.gap > took+ownShare {
				t.Errorf("a client was without success for %v, where the servers took %v", o.gap, took)
			}
			if o.doubled > 0 || f.minReplicas > 0 && o.lost > 0 {
				t.Errorf("%v", o)
			}
			if f.minReplicas == 0 && strings.HasPrefix(f.strike, "replication") && o.lost == 0 {
				t.Errorf("nothing was lost where it must be: %v", o)
			}
		})
	}
}

// eachServed returns a function that reports whether each client has had three successes from now on.
func (b *burden) eachServed() func() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	want := make([]int, len(b.known))
	for n, k := range b.known {
		want[n] = k.acknowledged + 3
	}
	return func() bool {
		for n, k := range b.known {
			if k.acknowledged < want[n] {
				return false
			}
		}
		return true
	}
}

// startFleet starts two sidecars.
func startFleet(t *testing.T, args ...string) []*sidecar {
	t.Helper()
	return []*sidecar{start(t, args...), start(t, args...)}
}

// TestResharding moves the slots of all carts to another master while clients add, in the classic way: key by key, slot
// by slot. No call fails.
func TestResharding(t *testing.T) {
	for _, minReplicas := range []int{0, 1} {
		t.Run(fmt.Sprintf("minReplicas=%d", minReplicas), func(t *testing.T) {
			c := testserver.StartRedisCluster(t, 3)
			if minReplicas > 0 {
				c.AddReplicas(t)
			}
			fleet := startFleet(t, "--backend", "redis", "--redis-mode", "cluster", "--redis-address", strings.Join(c.Addrs(), ","),
				"--redis-min-replicas", fmt.Sprint(minReplicas), "--read-timeout", "5s", "--write-timeout", "5s")
			b := newBurden(t, fleet, 12, ofFirstSlots(t, c.Nodes[0], 8, movedSlots)...)
			b.more("before the move", 300)
			from, to := nodeID(t, c.Nodes[0]), nodeID(t, c.Nodes[1])
			move := exec.CommandContext(t.Context(), "redis-cli", "--cluster", "reshard", c.Nodes[0].Addr,
				"--cluster-from", from, "--cluster-to", to, "--cluster-slots", fmt.Sprint(movedSlots), "--cluster-yes")
			if out, err := move.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", move, err, tail(string(out), 2000))
			}
			b.await("each client is served after the move", b.eachServed())
			o := b.take()
			t.Logf("%v", o)
			if o.unknown > 0 || o.lost > 0 || o.doubled > 0 {
				t.Errorf("%v", o)
			}
			// The probes go on there.
			if n, err := c.Nodes[0].Do("EVAL", "#!lua flags=no-writes,allow-cross-slot-keys\nreturn #redis.call('KEYS', '*default*')", "0"); err != nil || n != "0" {
				t.Errorf("%s keys are left on the node that gave its slots away, %v", n, err)
			}
		})
	}
}

// ofFirstSlots are n identifiers whose carts are in the first slots of a Cluster.
func ofFirstSlots(t *testing.T, node *testserver.Redis, n, slots int) (identifiers []string) {
	t.Helper()
	for i := 0; len(identifiers) < n; i++ {
		identifier := fmt.Sprint("u", i)
		text, err := node.Do("CLUSTER", "KEYSLOT", identifier)
		slot, bad := strconv.Atoi(text)
		if err != nil || bad != nil {
			t.Fatal(err, bad)
		}
		if slot < slots {
			identifiers = append(identifiers, identifier)
		}
	}
	return identifiers
}

func nodeID(t *testing.T, r *testserver.Redis) string {
	t.Helper()
	id, err := r.Do("CLUSTER", "MYID")
	if err != nil {
		t.Fatal(err)
	}
	return id
}
