package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
)

// sharedPipe is a shared connection whose other end the test plays.
func sharedPipe(t *testing.T, timeout time.Duration) (*shared, net.Conn) {
	ours, theirs := net.Pipe()
	s := newShared(ours, timeout, func(*shared) {})
	t.Cleanup(func() {
		_ = theirs.Close()
		<-s.ended
	})
	return s, theirs
}

// outcome is what became of a call.
type outcome struct {
	text string
	sent bool
	err  error
}

// call makes a call in the background.
func (s *shared) call(ctx context.Context, word string) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		r, sent, err := s.do(ctx, []any{word})
		done <- outcome{r.text, sent, err}
	}()
	return done
}

func read(t *testing.T, conn net.Conn) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func command(words ...string) (text string) {
	for _, word := range words {
		text += fmt.Sprintf("*1\r\n$%d\r\n%s\r\n", len(word), word)
	}
	return text
}

// TestBatch: a lone command is written at once, those that come while it is being written go together, and each caller
// gets the reply to its own.
func TestBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, time.Second)
		a := s.call(t.Context(), "a")
		synctest.Wait() // it is being written
		b := s.call(t.Context(), "b")
		synctest.Wait()
		c := s.call(t.Context(), "c")
		synctest.Wait()
		if got := read(t, server); got != command("a") {
			t.Errorf("first %q was written", got)
		}
		if got := read(t, server); got != command("b", "c") {
			t.Errorf("then %q was written", got)
		}
		write(t, server, "+A\r\n$1\r\nB\r\n:3\r\n")
		for want, done := range map[string]<-chan outcome{"A": a, "B": b, "3": c} {
			if got := <-done; got != (outcome{want, true, nil}) {
				t.Errorf("%+v, want the reply %s", got, want)
			}
		}
	})
}

// TestBrokenBatch: when a connection breaks, what was written may have been made, and what was not was not.
func TestBrokenBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, time.Second)
		answered := s.call(t.Context(), "a")
		synctest.Wait()
		read(t, server)
		sent := s.call(t.Context(), "b")
		synctest.Wait()
		read(t, server)
		half := s.call(t.Context(), "c")
		synctest.Wait()
		waits := s.call(t.Context(), "d")
		synctest.Wait()
		write(t, server, "+A\r\n")
		if _, err := io.ReadFull(server, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		_ = server.Close()
		if got := <-answered; got != (outcome{"A", true, nil}) {
			t.Errorf("the call that was answered: %+v", got)
		}
		for what, done := range map[string]<-chan outcome{"written": sent, "written in part": half} {
			if got := <-done; !got.sent || got.err == nil {
				t.Errorf("the call that was %s: %+v, want an error", what, got)
			}
		}
		if got := <-waits; got.sent || got.err == nil {
			t.Errorf("the call that was not written: %+v, want one that was not sent", got)
		}
		if got := <-s.call(t.Context(), "e"); got.sent {
			t.Errorf("a call on the broken connection: %+v, want one that was not sent", got)
		}
	})
}

// TestOverdue: a call fails when its own time is up. Another that began later still gets its reply, and none begins any
// more. When the last has ended, the connection is closed.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, 500*time.Millisecond)
		start := time.Now()
		first := s.call(t.Context(), "a")
		synctest.Wait()
		read(t, server)
		time.Sleep(300 * time.Millisecond)
		second := s.call(t.Context(), "b")
		synctest.Wait()
		read(t, server)
		got := <-first
		if timeout, ok := errors.AsType[net.Error](got.err); !ok || !timeout.Timeout() || !got.sent || time.Since(start) != 500*time.Millisecond {
			t.Errorf("after %v: %+v, want a timeout after 500ms", time.Since(start), got)
		}
		if got := <-s.call(t.Context(), "c"); got.sent {
			t.Errorf("a call after one was overdue: %+v, want one that was not sent", got)
		}
		write(t, server, "+A\r\n+B\r\n")
		if got := <-second; got != (outcome{"B", true, nil}) {
			t.Errorf("the later call: %+v", got)
		}
		<-s.ended
	})
}

// TestHalfOpen: a server that is gone without a word, or that no longer reads, costs each caller its own timeout or
// deadline, and then the connection is closed.
func TestHalfOpen(t *testing.T) {
	for what, reads := range map[string]bool{"silent": true, "not reading": false} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const timeout, apart, short = 500 * time.Millisecond, 100 * time.Millisecond, 20 * time.Millisecond
				s, server := sharedPipe(t, timeout)
				var crowd sync.WaitGroup
				for i, within := range []time.Duration{short, timeout, timeout, short, timeout} {
					crowd.Go(func() {
						ctx, cancel := t.Context(), func() {}
						if within == short {
							ctx, cancel = context.WithTimeout(ctx, short)
						}
						defer cancel()
						start := time.Now()
						_, sent, err := s.do(ctx, []any{"a"})
						if !sent || !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != within {
							t.Errorf("call %d: sent %v, %v after %v, want a timeout after %v", i, sent, err, time.Since(start), within)
						}
					})
					synctest.Wait()
					if reads {
						read(t, server)
					}
					time.Sleep(apart)
				}
				crowd.Wait()
				<-s.ended
			})
		})
	}
}

// TestFullQueue: commands that a server does not take wait in bounded memory. A call beyond that is not sent, at once,
// and the connection is good for more once the server has taken them.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, time.Second)
		word := strings.Repeat("x", mostShared-100)
		var crowd sync.WaitGroup
		full := 0
		for range 2 * mostWaiting / mostShared {
			done := s.call(t.Context(), word)
			synctest.Wait()
			select {
			case got := <-done:
				if got.sent {
					t.Errorf("a call ended with %+v, want one that was not sent", got)
				}
				full++
			default:
				crowd.Go(func() {
					if got := <-done; got != (outcome{"A", true, nil}) {
						t.Errorf("a call that waited: %+v", got)
					}
				})
			}
		}
		if n := len(s.out); full == 0 || n > mostWaiting+mostShared {
			t.Errorf("%d calls were not sent, %d bytes wait", full, n)
		}
		go func() {
			for {
				n, err := server.Read(make([]byte, 2*mostWaiting))
				if err != nil {
					return
				}
				for range (n + mostShared/2) / mostShared {
					_, _ = server.Write([]byte("+A\r\n"))
				}
			}
		}()
		crowd.Wait()
		if got := <-s.call(t.Context(), word); got != (outcome{"A", true, nil}) {
			t.Errorf("a call after that: %+v", got)
		}
	})
}

// TestLateReply: a caller whose deadline is over has gone. Its reply is nobody else's. A caller that was cancelled
// learns what became of its command.
func TestLateReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := sharedPipe(t, time.Second)
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		gone := s.call(short, "a")
		synctest.Wait()
		read(t, server)
		if got := <-gone; !errors.Is(got.err, context.DeadlineExceeded) || !got.sent {
			t.Errorf("beyond its deadline: %+v", got)
		}
		ctx, stop := context.WithCancel(t.Context())
		cancelled := s.call(ctx, "b")
		synctest.Wait()
		read(t, server)
		stop()
		synctest.Wait()
		write(t, server, "+A\r\n+B\r\n")
		if got := <-cancelled; got != (outcome{"B", true, nil}) {
			t.Errorf("the cancelled call: %+v", got)
		}
	})
}

// TestUnexpectedBytes: a reply that nobody asked for, or that is none, ends the connection, since all that follows would
// go to the wrong callers.
func TestUnexpectedBytes(t *testing.T) {
	for _, text := range []string{"+A\r\n+B\r\n", "?\r\n", "\r\n", "$x\r\n", "$-2\r\n", "*1\r\n*0\r\n", "$1\r\nxyz\r\n", strings.Repeat("+", replyBuffer+1)} {
		synctest.Test(t, func(t *testing.T) {
			s, server := sharedPipe(t, time.Second)
			done := s.call(t.Context(), "a")
			synctest.Wait()
			read(t, server)
			_, _ = server.Write([]byte(text))
			<-s.ended
			if got := <-done; (got.err == nil) != (text[:1] == "+" && len(text) < 10) {
				t.Errorf("%.20q: %+v", text, got)
			}
			if s.alive() {
				t.Errorf("%.20q: the connection is still used", text)
			}
		})
	}
}

// FuzzReplies: replies are the same however the bytes arrive, and no bytes make it panic.
func FuzzReplies(f *testing.F) {
	for _, text := range []string{"+OK\r\n", "-ERR no\r\n", ":5\r\n$3\r\nabc\r\n", "*2\r\n$1\r\na\r\n:1\r\n", "*-1\r\n$-1\r\n", "$5\r\nab", "*3\r\n"} {
		f.Add([]byte(text))
	}
	all := func(from io.Reader) (list []reply) {
		in := newReplies(from)
		for {
			r, err := in.next()
			if err != nil {
				return list
			}
			list = append(list, r)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		whole, bytewise := all(bytes.NewReader(text)), all(iotest.OneByteReader(bytes.NewReader(text)))
		if !reflect.DeepEqual(whole, bytewise) {
			t.Errorf("%q: %+v at once, %+v byte by byte", text, whole, bytewise)
		}
	})
}

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

// TestLargeCarts: a large command has a connection for itself, and the reply to a read as well once the cart is known to
// be large. So a small read waits for none.
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
