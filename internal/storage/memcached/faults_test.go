package memcached

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/testserver"
)

var key = cart.Key{Identifier: "u1", Instance: "default"}

// put changes the cart of key by one step from at, to items.
func put(ctx context.Context, s storage.Store, key cart.Key, at *cart.Cart, items string) (storage.Outcome, error) {
	outs, err := s.Commit(ctx, storage.Commit{
		Key: key, Expect: storage.Expect{ID: at.ID, Version: at.Version},
		Change: storage.Change{
			NewID: newID(), Steps: 1, TTL: time.Hour, Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(items), Step: 1}},
		},
		Locks: storage.Locks{Parts: []cart.Part{cart.PartItems}},
	})
	if err != nil {
		return storage.Outcome{}, err
	}
	return outs[0], nil
}

func mustPut(t *testing.T, s storage.Store, key cart.Key, items string) *cart.Cart {
	t.Helper()
	out, err := put(t.Context(), s, key, load(t, s, key), items)
	if err != nil || out.Status != storage.Committed {
		t.Fatalf("Commit: %+v, %v", out, err)
	}
	return load(t, s, key)
}

func load(t *testing.T, s storage.Store, key cart.Key) *cart.Cart {
	t.Helper()
	c, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

var ids struct {
	sync.Mutex
	n int
}

func newID() string {
	ids.Lock()
	defer ids.Unlock()
	ids.n++
	return fmt.Sprintf("00000000-0000-4000-8000-%012d", ids.n)
}

func do(t *testing.T, m *testserver.Memcached, command string) string {
	t.Helper()
	answer, err := m.Do(command)
	if err != nil {
		t.Fatalf("%.40q: %v", command, err)
	}
	return answer
}

// TestUniqueOfAnotherProcess: a unique that was read before a restart does not hit the value that has the same unique
// after it.
func TestUniqueOfAnotherProcess(t *testing.T) {
	m := testserver.StartMemcached(t)
	before, after := newDriver(Config{Addresses: []string{m.Addr}, Prefix: "cart"}), newDriver(Config{Addresses: []string{m.Addr}, Prefix: "cart"})
	defer before.Close()
	defer after.Close()
	ends := time.Now().Add(time.Hour)
	swap := func(d *driver, revision uint64, value string, want bool) {
		t.Helper()
		if swapped, err := d.Swap(t.Context(), key, revision, []byte(value), ends); swapped != want || err != nil {
			t.Fatalf("Swap to %q: %v, %v, want %v", value, swapped, err, want)
		}
	}
	get := func(d *driver) (string, uint64) {
		t.Helper()
		value, revision, err := d.Get(t.Context(), key)
		if err != nil {
			t.Fatalf("Get: %v", err)
		}
		return string(value), revision
	}
	const unique = 1<<uniqueBits - 1
	swap(before, 0, "first", true)
	for i := range 5 {
		_, revision := get(before)
		swap(before, revision, fmt.Sprint("old ", i), true)
	}
	_, stale := get(before)

	m.Restart()
	swap(after, 0, "created", true)
	for i := 0; ; i++ {
		_, revision := get(after)
		if revision&unique == stale&unique {
			break
		}
		if revision&unique > stale&unique {
			t.Fatal("the server does not count anew: this test shows nothing")
		}
		swap(after, revision, fmt.Sprint("acknowledged ", i), true)
	}
	want, _ := get(after)
	// A call that cannot be in doubt makes the connection anew, so that only the epoch is in the way.
	if value, _ := get(before); value != want {
		t.Fatalf("read %q, want %q", value, want)
	}
	swap(before, stale, "lost update", false)
	if value, _ := get(after); value != want {
		t.Errorf("%q was overwritten by %q", want, value)
	}
}

// TestRestartUnderLoad: no change of a cart that is gone is acknowledged. Each version of each cart is acknowledged
// once at most, and the carts that a server has at the end are no older.
func TestRestartUnderLoad(t *testing.T) {
	m := testserver.StartMemcached(t)
	addresses := []string{m.Addr}
	stores := []*cell.Store{open(t, addresses, "cart"), open(t, addresses, "cart"), open(t, addresses, "cart")}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var (
		mu           sync.Mutex
		acknowledged = map[string]map[uint64]bool{} // the versions of each id
		total        int
	)
	enough := make(chan struct{}, 1)
	var all sync.WaitGroup
	for i, s := range stores {
		for n := range 2 {
			all.Go(func() {
				key := cart.Key{Identifier: "shared", Instance: fmt.Sprint(n)}
				at := &cart.Cart{}
				for ctx.Err() == nil {
					out, err := put(ctx, s, key, at, fmt.Sprintf(`{"n":%d}`, at.Version+1))
					if err != nil {
						if ctx.Err() == nil && !errors.Is(err, storage.ErrUnavailable) {
							t.Errorf("store %d: %v", i, err)
						}
						if c, err := s.Load(ctx, key); err == nil {
							at = c
						}
						continue
					}
					if out.Status != storage.Committed {
						at = out.Cart
						continue
					}
					mu.Lock()
					at = &cart.Cart{ID: out.ID, Version: out.Base + 1}
					// Where an answer was lost a version may be missing here, but none comes twice.
					if acknowledged[out.ID] == nil {
						acknowledged[out.ID] = map[uint64]bool{}
					}
					if acknowledged[out.ID][at.Version] {
						t.Errorf("version %d of %s was acknowledged twice", at.Version, out.ID)
					}
					acknowledged[out.ID][at.Version] = true
					if total++; total%300 == 0 {
						select {
						case enough <- struct{}{}:
						default:
						}
					}
					mu.Unlock()
				}
			})
		}
	}
	for range 4 {
		<-enough
		m.Kill()
		m.Restart()
	}
	<-enough
	stop()
	all.Wait()
	for n := range 2 {
		c := load(t, open(t, addresses, "cart"), cart.Key{Identifier: "shared", Instance: fmt.Sprint(n)})
		for version := range acknowledged[c.ID] {
			if version > c.Version {
				t.Errorf("version %d of %s is there, %d was acknowledged", c.Version, c.ID, version)
			}
		}
		if want := fmt.Sprintf(`{"n":%d}`, c.Version); string(c.Items.Object.Bytes()) != want {
			t.Errorf("version %d has %s", c.Version, c.Items.Object.Bytes())
		}
	}
	if len(acknowledged) < 5 {
		t.Errorf("only %d carts were made, in five lives of the server", len(acknowledged))
	}
}

// TestAfterRestart: the first call finds that the cart is gone, without an error. A change that was computed from it
// conflicts, an earlier lease is unknown, and the next lease has a greater fence.
func TestAfterRestart(t *testing.T) {
	m := testserver.StartMemcached(t)
	s := open(t, []string{m.Addr}, "cart")
	was := mustPut(t, s, key, `{"a":1}`)
	claim := storage.Claim{Token: "before", Parts: []cart.Part{cart.PartAll}, Duration: time.Hour, Leased: true}
	before, err := s.Acquire(t.Context(), key, claim, false)
	if err != nil {
		t.Fatal(err)
	}
	m.Restart()
	if c := load(t, s, key); c.Exists() {
		t.Errorf("%+v outlived the server", c)
	}
	if out, err := put(t.Context(), s, key, was, `{"a":2}`); err != nil || out.Status != storage.Conflict || out.Cart.Exists() {
		t.Errorf("a change of the cart that was: %+v, %v", out, err)
	}
	if _, err := s.Lease(t.Context(), key, "before"); !errors.Is(err, storage.ErrLockUnknown) {
		t.Errorf("the lease that was: %v", err)
	}
	claim.Token = "after"
	after, err := s.Acquire(t.Context(), key, claim, false)
	if err != nil || after.Fence <= before.Fence {
		t.Errorf("fence %d after %d, %v", after.Fence, before.Fence, err)
	}
}

// TestChangeAfterRestart: the first change after a restart begins with a swap of what was stored just before, on a
// connection that has ended. It finds that out before it sends the swap, so its outcome is known.
func TestChangeAfterRestart(t *testing.T) {
	m := testserver.StartMemcached(t)
	d := newDriver(Config{Addresses: []string{m.Addr}, Prefix: "cart", Dial: patient, Read: patient, Write: patient})
	s := cell.New(cell.Swapping(d))
	defer s.Close()
	was := mustPut(t, s, key, `{"a":1}`)
	value, revision, ok := d.Recall(key)
	if !ok {
		t.Fatal("the value that was stored is not recalled")
	}
	m.Restart()
	if swapped, err := d.Swap(t.Context(), key, revision, value, time.Time{}); swapped || err != nil {
		t.Errorf("Swap of a value that has gone: %v, %v", swapped, err)
	}
	if out, err := put(t.Context(), s, key, was, `{"a":2}`); err != nil || out.Status != storage.Conflict {
		t.Errorf("Commit: %+v, %v", out, err)
	}
}

// TestFrozen: a server that does not answer is unavailable, as soon as the timeout says, on connections that were there
// and on new ones; a call that is cancelled, or whose deadline comes, ends at once.
func TestFrozen(t *testing.T) {
	m := testserver.StartMemcached(t)
	s := New(Config{Addresses: []string{m.Addr}, Prefix: "cart", Dial: patient, Read: 200 * time.Millisecond, Write: 200 * time.Millisecond})
	defer s.Close()
	was := mustPut(t, s, key, `{"a":1}`)
	m.Pause()
	for n := range 3 { // the first on a connection that was there
		begin := time.Now()
		if _, err := s.Load(t.Context(), key); !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), m.Addr) {
			t.Errorf("Load %d: %v", n, err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("Load %d took %v", n, took)
		}
	}
	if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Ping: %v", err)
	}
	slow := open(t, []string{m.Addr}, "cart")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	begin := time.Now()
	if _, err := slow.Load(ctx, key); !errors.Is(err, context.Canceled) || time.Since(begin) > patient/2 {
		t.Errorf("Load that was cancelled: %v, after %v", err, time.Since(begin))
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin = time.Now()
	if _, err := slow.Load(ctx, key); !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > patient/2 {
		t.Errorf("Load with a deadline: %v, after %v", err, time.Since(begin))
	}
	m.Resume()
	if c := load(t, open(t, []string{m.Addr}, "cart"), key); c.ID != was.ID {
		t.Errorf("%+v after the server went on", c)
	}
}

// TestLostAnswer: a change whose answer did not come says that it may have been made.
func TestLostAnswer(t *testing.T) {
	m := testserver.StartMemcached(t)
	d := newDriver(Config{Addresses: []string{m.Addr}, Prefix: "cart", Dial: patient, Read: 200 * time.Millisecond, Write: 200 * time.Millisecond})
	s := cell.New(cell.Swapping(freezer{d, m.Pause}))
	defer s.Close()
	if _, err := put(t.Context(), s, key, &cart.Cart{}, `{"a":1}`); !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, cell.ErrOutcomeUnknown) {
		t.Errorf("Commit: %v", err)
	}
	m.Resume()
}

// TestAnswerCut: a change was made, and its connection ended before the answer. It is not sent again: it would meet its
// own value and seem to have lost a race, or be made twice.
func TestAnswerCut(t *testing.T) {
	m := testserver.StartMemcached(t)
	address, cut := cutter(t, m.Addr, "cas ")
	s, direct := open(t, []string{address}, "cart"), open(t, []string{m.Addr}, "cart")
	was := mustPut(t, s, key, `{"a":1}`)
	cut.Store(true)
	if out, err := put(t.Context(), s, key, was, `{"a":2}`); !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, cell.ErrOutcomeUnknown) {
		t.Errorf("Commit: %+v, %v", out, err)
	}
	if c := load(t, direct, key); c.Version != was.Version+1 || string(c.Items.Object.Bytes()) != `{"a":2}` {
		t.Errorf("version %d after %d: %s", c.Version, was.Version, c.Items.Object.Bytes())
	}
}

// cutter is a way to a server. Once cut is set, a connection on which the next command was sent ends before its answer.
func cutter(t *testing.T, server, command string) (address string, cut *atomic.Bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	cut = new(atomic.Bool)
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go relay(client, server, command, cut)
		}
	}()
	return l.Addr().String(), cut
}

func relay(client net.Conn, address, command string, cut *atomic.Bool) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var last atomic.Bool // the answer that comes next is not passed on
	go func() {
		defer func() { _ = server.Close() }()
		for b := make([]byte, 64<<10); ; {
			n, err := client.Read(b)
			if err != nil {
				return
			}
			if strings.HasPrefix(string(b[:n]), command) && cut.CompareAndSwap(true, false) {
				last.Store(true)
			}
			if _, err := server.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	for b := make([]byte, 64<<10); ; {
		n, err := server.Read(b)
		if err != nil || last.Load() {
			return
		}
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}

// freezer is a driver whose server is frozen before a swap.
type freezer struct {
	*driver
	freeze func()
}

func (f freezer) Swap(ctx context.Context, key cart.Key, revision uint64, value []byte, ends time.Time) (bool, error) {
	f.freeze()
	return f.driver.Swap(ctx, key, revision, value, ends)
}

// TestOneServerDown: its carts are unavailable, the others are not, and nothing moves.
func TestOneServerDown(t *testing.T) {
	var servers []*testserver.Memcached
	var addresses []string
	for range 3 {
		m := testserver.StartMemcached(t)
		servers, addresses = append(servers, m), append(addresses, m.Addr)
	}
	s, d := open(t, addresses, "cart"), newDriver(Config{Addresses: addresses, Prefix: "cart"})
	defer d.Close()
	const down = 1
	share := make([]int, 3)
	all := make([]cart.Key, 60)
	for i := range all {
		all[i] = cart.Key{Identifier: fmt.Sprint("u", i), Instance: "default"}
		mustPut(t, s, all[i], `{"a":1}`)
		share[d.ring.server(d.names.cart(all[i]))]++
	}
	if slices.Min(share) == 0 {
		t.Fatalf("the carts are spread as %v", share)
	}
	servers[down].Kill()
	for _, key := range all {
		name := d.names.cart(key)
		c, err := s.Load(t.Context(), key)
		if d.ring.server(name) != down {
			if err != nil || !c.Exists() {
				t.Errorf("%q, on a server that runs: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), addresses[down]) {
			t.Errorf("%q, on the one that does not: %v", name, err)
		}
		if _, err := put(t.Context(), s, key, &cart.Cart{}, `{"a":2}`); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("a change of %q: %v", name, err)
		}
		for i, m := range servers {
			if i != down && strings.Contains(do(t, m, "gets "+name), "VALUE") {
				t.Errorf("%q has moved to server %d", name, i)
			}
		}
	}
	if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), addresses[down]) {
		t.Errorf("Ping: %v", err)
	}
	if err := s.Beat(t.Context()); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("Beat: %v", err)
	}
	servers[down].Restart()
	for _, key := range all {
		mustPut(t, s, key, `{"a":3}`)
	}
}

// TestConnections: however many calls there are, a server has a bounded number of connections. A call that finds all of
// them busy is told so, no later than its answer would be due.
func TestConnections(t *testing.T) {
	m := testserver.StartMemcached(t)
	d := newDriver(Config{Addresses: []string{m.Addr}, Prefix: "cart", Dial: patient, Read: patient, Write: patient})
	defer d.Close()
	s := d.servers[0]
	var lent []*session
	for range maxSessions {
		c, err := s.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		lent = append(lent, c)
	}
	s.timeouts.read = 50 * time.Millisecond
	if _, _, err := d.Get(t.Context(), key); !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "busy") {
		t.Errorf("one more: %v", err)
	}
	s.timeouts.read = patient
	s.give(lent[0], false)
	if _, _, err := d.Get(t.Context(), key); err != nil {
		t.Errorf("when one is free again: %v", err)
	}
	if n := len(s.idle); n != 1 {
		t.Errorf("%d connections are kept, of one that is free", n)
	}
	for _, c := range lent[1:] {
		s.give(c, false)
	}
}

// TestDialEndsInTime: if the time of a call ends while a connection is made, there is an error or a connection.
func TestDialEndsInTime(t *testing.T) {
	d := newDriver(Config{Addresses: []string{testserver.StartMemcached(t).Addr}, Prefix: "cart"})
	defer d.Close()
	server := d.servers[0]
	longest := time.Millisecond // that a dial takes
	for range 3000 {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*longest))
		c, err := server.dial(ctx)
		cancel()
		if (c == nil) == (err == nil) {
			t.Fatalf("a dial of %v ended with %v, %v", time.Since(begun), c, err)
		}
		if c != nil {
			longest = time.Since(begun)
			_ = c.Close()
		}
	}
}
