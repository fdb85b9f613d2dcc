package redis

import (
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

// connected waits until a store has a shared connection.
func connected(t *testing.T, s *Store) *shared {
	t.Helper()
	var conn *shared
	await(t, "there is a shared connection", func() bool {
		mustLoad(t, s, u1)
		conn = s.sharing.conn(t.Context(), s.space.names(u1).cart)
		return conn != nil && conn.alive()
	})
	return conn
}

// TestCrowdOnOneConnection: each of many callers gets its own cart, and the server sees only a few connections.
func TestCrowdOnOneConnection(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	conn := connected(t, s)
	do(t, r, "CONFIG", "RESETSTAT")
	var crowd sync.WaitGroup
	const callers, turns = 50, 20
	for i := range callers {
		crowd.Go(func() {
			key := cart.Key{Identifier: fmt.Sprint("crowd", i), Instance: "default"}
			was := &cart.Cart{}
			for n := range turns {
				text := fmt.Sprintf(`{"%d":"%s"}`, n, strings.Repeat(key.Identifier, 100))
				outs, err := s.Commit(t.Context(), replace(key, was, text))
				if err != nil || outs[0].Status != storage.Committed {
					t.Errorf("%v: %+v, %v", key, outs, err)
					return
				}
				if was, err = s.Load(t.Context(), key); err != nil || string(was.Items.Object.Bytes()) != text {
					t.Errorf("%v: %v, %v, want %s", key, was, err, text)
					return
				}
			}
		})
	}
	crowd.Wait()
	if !conn.alive() {
		t.Error("the connection was given up")
	}
	if stats := do(t, r, "INFO", "stats"); !strings.Contains(stats, "total_connections_received:1\r\n") {
		t.Errorf("new connections were made, other than that of this question:\n%s", stats)
	}
}

// TestServerClosesSharedConnection: a connection that the server closed while nobody used it fails no call, and the
// next one is made by itself.
func TestServerClosesSharedConnection(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	for range 3 {
		conn := connected(t, s)
		do(t, r, "CLIENT", "KILL", "TYPE", "normal")
		<-conn.ended
		if s.sharing.conn(t.Context(), s.space.cart(u1)) == conn {
			t.Error("the connection is not forgotten")
		}
		mustLoad(t, s, u1)
	}
}

// TestOneConnection: however many calls find that there is none, one connection is made, and none where there is one.
func TestOneConnection(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	key := s.space.cart(u1)
	settled := func() *shared {
		await(t, "none is being made", func() bool {
			s.sharing.mu.Lock()
			defer s.sharing.mu.Unlock()
			at := s.sharing.seats[s.sharing.single]
			return at != nil && !at.making && at.conn.Load() != nil
		})
		return s.sharing.conn(t.Context(), key)
	}
	for range 10 {
		do(t, r, "CONFIG", "RESETSTAT")
		var crowd sync.WaitGroup
		for range 20 {
			crowd.Go(func() { s.sharing.offer(t.Context(), key) })
		}
		crowd.Wait()
		conn := settled()
		s.sharing.offer(t.Context(), key)
		if again := settled(); again != conn {
			t.Error("a second connection took the place of the first")
		}
		if n := calls(t, r)["ping"]; n != 1 {
			t.Fatalf("%d connections were made, want 1", n)
		}
		conn.fail(net.ErrClosed)
		<-conn.ended
	}
}

// TestCloseEndsSharedConnections: Close ends the calls under way and all connections, whether they come or go.
func TestCloseEndsSharedConnections(t *testing.T) {
	r := testserver.StartRedis(t)
	for range 20 {
		s := open(t, Config{Addresses: []string{r.Addr}})
		connected(t, s)
		key := s.space.cart(u1)
		var crowd sync.WaitGroup
		crowd.Go(func() {
			for !s.isClosed() {
				if conn := s.sharing.conn(t.Context(), key); conn != nil {
					conn.fail(net.ErrClosed)
				}
			}
		})
		ended := make(chan error, 8)
		for range cap(ended) {
			crowd.Go(func() {
				for {
					_, err := s.Load(t.Context(), u1)
					if errors.Is(err, storage.ErrClosed) {
						ended <- err
						return
					}
				}
			})
		}
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patient):
			t.Fatal("Close does not end")
		}
		crowd.Wait()
		if n := len(s.sharing.open); n > 0 {
			t.Errorf("%d connections are open", n)
		}
	}
}

// TestDocumentLikeAFarewell: what a server says when it turns a client away may also stand in a document. Where a part
// of a reply begins with it, nobody is told that the server refused something.
func TestDocumentLikeAFarewell(t *testing.T) {
	const farewell = "-ERR max number of clients reached"
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	conn := connected(t, s)
	key := cart.Key{Identifier: "u2", Instance: "default"}
	was := &cart.Cart{}
	for pad := range len(farewell) {
		text := `{"a":"` + strings.Repeat("x", pad) + strings.Repeat(farewell, 2*replyBuffer/len(farewell)) + `"}`
		mustCommit(t, s, storage.Committed, replace(key, was, text))
		if was = mustLoad(t, s, key); string(was.Items.Object.Bytes()) != text {
			t.Fatal("the document was changed on its way")
		}
	}
	if !conn.alive() {
		t.Error("the connection was given up")
	}
}

// TestCutOffCommit: a commit whose connection breaks is answered as not known, and was made once or not at all.
func TestCutOffCommit(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
	connected(t, s)
	was := mustLoad(t, s, u1)
	do(t, r, "CLIENT", "PAUSE", "10000", "WRITE")
	done := make(chan error, 1)
	go func() {
		_, err := s.Commit(t.Context(), replace(u1, was, `{"b":1}`))
		done <- err
	}()
	await(t, "the commit waits", func() bool { return strings.Contains(do(t, r, "INFO", "clients"), "blocked_clients:1") })
	do(t, r, "CLIENT", "KILL", "TYPE", "normal")
	do(t, r, "CLIENT", "UNPAUSE") // a commit that is sent again would be made
	err := <-done
	if _, refused := storage.RefusalOf(err); !errors.Is(err, storage.ErrUnavailable) || refused {
		t.Errorf("%v, want ErrUnavailable that does not say that nothing was changed", err)
	}
	if now := mustLoad(t, s, u1); now.Version > was.Version+1 {
		t.Errorf("the commit was made %d times", now.Version-was.Version)
	}
}

// TestLargeCarts: a large command has a connection for itself, and the reply to a read as well once the cart is known
// to be large. So a small read waits for none.
func TestLargeCarts(t *testing.T) {
	r := testserver.StartRedis(t)
	s := open(t, Config{Addresses: []string{r.Addr}})
	conn := connected(t, s)
	text := `{"a":"` + strings.Repeat("x", 3*mostShared) + `"}`
	mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, text))
	key := s.space.cart(u1)
	load := func(want string, shared bool) {
		t.Helper()
		if _, sent, _ := s.sharing.do(t.Context(), key, []any{"exists", key}); sent != shared {
			t.Errorf("shares a connection: %v, want %v", sent, shared)
		}
		if c := mustLoad(t, s, u1); string(c.Items.Object.Bytes()) != want {
			t.Error("the document was changed on its way")
		}
	}
	load(text, true)
	load(text, false)
	mustCommit(t, s, storage.Committed, replace(u1, mustLoad(t, s, u1), `{"a":1}`))
	load(`{"a":1}`, false)
	load(`{"a":1}`, true)
	for what, arg := range map[string]any{"large command": text, "command with an argument of another type": 1.5} {
		if _, sent, _ := conn.do(t.Context(), []any{"echo", arg}); sent {
			t.Errorf("a %s was sent with the others", what)
		}
	}
	if r, sent, err := conn.do(t.Context(), []any{"echo", "after those"}); r.text != "after those" || !sent || err != nil {
		t.Errorf("a command after those: %+v, %v, %v", r, sent, err)
	}
	if !conn.alive() {
		t.Error("the connection was given up")
	}
	for i := range 3 * mostLarge {
		s.sharing.large.note(fmt.Sprint(i), true)
	}
	if n := len(s.sharing.large.keys); n > mostLarge {
		t.Errorf("%d keys are remembered, want %d at most", n, mostLarge)
	}
}

// TestSharedConnectionFollowsTheMaster: after a failover nobody goes on with the old master, also where nobody can end
// its connections but the driver: it would go on as a master of its own.
func TestSharedConnectionFollowsTheMaster(t *testing.T) {
	for what, options := range map[string][]testserver.RedisOption{
		"that ends its connections":  nil,
		"that knows of no successor": {testserver.WithRedisArgs("--rename-command", "CLIENT", "")},
	} {
		t.Run("old master "+what, func(t *testing.T) {
			master := testserver.StartRedis(t, options...)
			replica := testserver.StartRedisReplica(t, master)
			sentinel := testserver.StartSentinels(t, 1, master, 1)[0]
			s := open(t, Config{Addresses: []string{sentinel.Addr}, Mode: Sentinel, MasterName: testserver.SentinelMaster})
			mustCommit(t, s, storage.Committed, replace(u1, &cart.Cart{}, `{"a":1}`))
			old := connected(t, s)
			await(t, "the sentinel knows the replica well enough", func() bool {
				_, err := sentinel.Do("SENTINEL", "FAILOVER", testserver.SentinelMaster)
				return err == nil
			})
			replica.AwaitRole("master")
			await(t, "a commit is made", func() bool {
				was, err := s.Load(t.Context(), u1)
				if err != nil {
					return false
				}
				outs, err := s.Commit(t.Context(), replace(u1, was, `{"b":1}`))
				return err == nil && outs[0].Status == storage.Committed && do(t, replica, "HGET", s.space.names(u1).cart, "items") == `{"b":1}`
			})
			<-old.ended
			if at := connected(t, s).conn.RemoteAddr().String(); at != replica.Addr {
				t.Errorf("the shared connection leads to %s, want the new master %s", at, replica.Addr)
			}
		})
	}
}
