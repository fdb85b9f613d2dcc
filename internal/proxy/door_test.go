package proxy

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testlog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// fakeConn is a connection of a host, which notes that it was closed.
type fakeConn struct {
	net.Conn
	host   string
	mu     sync.Mutex
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.ParseIP(c.host)} }
func (c *fakeConn) SetDeadline(time.Time) error      { return nil }
func (c *fakeConn) SetReadDeadline(time.Time) error  { return nil }
func (c *fakeConn) SetWriteDeadline(time.Time) error { return nil }
func (c *fakeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *fakeConn) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// crowdOf lets connections of hosts in, which came long ago.
func crowdOf(most int, hosts ...string) (*crowd, []*fakeConn, []*guest) {
	d := &crowd{name: "test", max: most, log: slog.New(slog.DiscardHandler)}
	var conns []*fakeConn
	var guests []*guest
	for _, h := range hosts {
		c := &fakeConn{host: h}
		g := d.admit(c)
		g.came = time.Now().Add(-time.Hour)
		conns, guests = append(conns, c), append(guests, g)
	}
	return d, conns, guests
}

func who(conns []*fakeConn) (gone []int) {
	for i, c := range conns {
		if c.gone() {
			gone = append(gone, i)
		}
	}
	return gone
}

func TestWhoMakesRoom(t *testing.T) {
	many := func(n int, host string) []string { return strings.Fields(strings.Repeat(host+" ", n)) }
	t.Run("the oldest that is not answered", func(t *testing.T) {
		d, conns, guests := crowdOf(3, "10.0.0.1", "10.0.0.1", "10.0.0.1")
		guests[0].busy.Store(true)
		d.admit(&fakeConn{host: "10.0.0.1"})
		if got := who(conns); len(got) != 1 || got[0] != 1 {
			t.Errorf("%v made room", got)
		}
	})
	t.Run("of the host that has most", func(t *testing.T) {
		d, conns, _ := crowdOf(4, "10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2")
		d.admit(&fakeConn{host: "10.0.0.3"})
		if got := who(conns); len(got) != 1 || got[0] != 1 {
			t.Errorf("%v made room", got)
		}
	})
	t.Run("newcomers have a moment, but not without end", func(t *testing.T) {
		d, _, _ := crowdOf(4)
		for range 100 {
			d.admit(&fakeConn{host: "10.0.0.1"})
		}
		if n := d.in.Len(); n != 2*d.max {
			t.Errorf("%d are in", n)
		}
	})
	t.Run("nobody who is answered, where answers take their time", func(t *testing.T) {
		d, conns, guests := crowdOf(4, many(4, "10.0.0.1")...)
		for _, g := range guests {
			g.busy.Store(true)
		}
		for range 20 {
			d.admit(&fakeConn{host: "10.0.0.1"})
		}
		if got := who(conns); len(got) != 0 || d.in.Len() != 2*d.max {
			t.Errorf("%v made room, %d are in", got, d.in.Len())
		}
	})
	t.Run("those who do not read, where answers are quick", func(t *testing.T) {
		d, conns, guests := crowdOf(8, many(8, "10.0.0.1")...)
		d.brief = true
		for _, g := range guests {
			g.busy.Store(true)
		}
		probe := &fakeConn{host: "10.0.0.2"}
		for range 2 * d.max {
			d.admit(&fakeConn{host: "10.0.0.1"}).busy.Store(true)
		}
		d.admit(probe)
		if probe.gone() || !conns[0].gone() || d.in.Len() > 2*d.max {
			t.Errorf("the probe: %t, the oldest: %t, %d are in", probe.gone(), conns[0].gone(), d.in.Len())
		}
	})
}

// broke is a listener that has no descriptors for a while.
type broke struct {
	net.Listener
	left int
}

func (b *broke) Accept() (net.Conn, error) {
	if b.left > 0 {
		b.left--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: &net.AddrError{Err: "wrapped"}, Source: nil, Addr: nil}
	}
	return b.Listener.Accept()
}

type emfile struct{ broke }

func (b *emfile) Accept() (net.Conn, error) {
	if b.left > 0 {
		b.left--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return b.Listener.Accept()
}

// Out of descriptors a front waits, says so once, and goes on; any other error is the end.
func TestAcceptOutOfDescriptors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := new(testlog.Buffer)
	d := newDoor(&emfile{broke{Listener: l, left: 5}}, "http", 10, slog.New(slog.NewTextHandler(log, nil)))
	defer d.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := d.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Close()
	if n := strings.Count(log.String(), "cannot take connections"); n != 1 {
		t.Errorf("said %d times: %s", n, log)
	}
	if _, err := newDoor(&broke{Listener: l, left: 1}, "http", 10, slog.New(slog.DiscardHandler)).Accept(); err == nil {
		t.Error("another error is no end")
	}
	waiting := newDoor(&emfile{broke{Listener: l, left: 1 << 30}}, "http", 10, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { _, err := waiting.Accept(); ended <- err }()
	_ = waiting.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed while it waits: %v", err)
	}
}

// Half-sent requests, on whichever front, hold off neither a probe nor a call.
func TestHalfSentRequestsHoldOffNobody(t *testing.T) {
	w := start(t, realBackend(t))
	for _, front := range []string{"admin", "http", "grpc"} {
		t.Run(front, func(t *testing.T) {
			for range 1200 {
				c, err := net.Dial("tcp", w.Addr(front))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				_, _ = io.WriteString(c, "PRI ")
			}
			if r := admin(t, w, "/livez", ""); r.http != 200 {
				t.Errorf("livez: %d", r.http)
			}
			if r := w.http(ask{rpc: "GetCart"}); r.code != 0 {
				t.Errorf("HTTP: %s", r.message)
			}
			conn, err := grpc.NewClient("passthrough:"+w.Addr("grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
				t.Errorf("gRPC: %v", err)
			}
			// Whoever was connected before still is.
			if r := w.grpc(ask{rpc: "GetCart"}); r.code != 0 {
				t.Errorf("an old connection: %s", r.message)
			}
		})
	}
}

// Streams that last are bounded over all connections and both fronts.
func TestStreamsAreBounded(t *testing.T) {
	w := start(t, realBackend(t))
	w.service.streams.Store(maxStreams - 1)
	h := w.hold(t, "grpc", `{"leaseDuration":"1h"}`)
	h.lease(t)
	for _, front := range []string{"grpc", "http"} {
		_, f, err := w.hold(t, front, `{}`).next()
		if err != nil || f == nil || f.code != codes.ResourceExhausted || f.reason != "TOO_MANY_STREAMS" || front == "http" && f.http != 429 {
			t.Errorf("%s: %+v, %v", front, f, err)
		}
	}
	watch, err := healthpb.NewHealthClient(w.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); failed(t, err).reason != "TOO_MANY_STREAMS" {
		t.Errorf("watched health: %v", err)
	}
	if r := w.http(ask{rpc: "GetCart"}); r.code != 0 {
		t.Errorf("an ordinary call: %s", r.message)
	}
	h.leave()
	until(t, "an end", func() bool { return w.service.streams.Load() == maxStreams-1 })
	w.hold(t, "http", `{"leaseDuration":"1h"}`).lease(t)
}

// One page is made for few at once, and who reads slowly holds up nobody.
func TestPagesAreMadeForFew(t *testing.T) {
	entered, open := make(chan struct{}, 10), make(chan struct{})
	h := few(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-open
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write([]byte("page"))
	}))
	stuck := make(chan struct{})
	defer close(stuck)
	for range atOnce {
		go h.ServeHTTP(&stuckWriter{header: http.Header{}, stuck: stuck}, new(http.Request))
		<-entered
	}
	third := make(chan int)
	go func() {
		w := &stuckWriter{header: http.Header{}}
		h.ServeHTTP(w, new(http.Request))
		third <- w.status
	}()
	select {
	case <-entered:
		t.Fatal("a third is made at once")
	case status := <-third: // after pageWait
		if status != http.StatusServiceUnavailable {
			t.Errorf("a third: %d", status)
		}
	}
	close(open) // the two are made, and nobody reads them
	w := &stuckWriter{header: http.Header{}}
	h.ServeHTTP(w, new(http.Request))
	if w.status != http.StatusAccepted || w.text != "page" || w.header.Get("Content-Length") != "4" {
		t.Errorf("beside slow readers: %d %q %v", w.status, w.text, w.header)
	}
}

type stuckWriter struct {
	header http.Header
	status int
	text   string
	stuck  chan struct{}
}

func (s *stuckWriter) Header() http.Header { return s.header }
func (s *stuckWriter) WriteHeader(status int) {
	if s.stuck == nil {
		s.status = status
	}
}

func (s *stuckWriter) Write(p []byte) (int, error) {
	if s.stuck != nil {
		<-s.stuck
		return len(p), nil
	}
	s.text += string(p)
	return len(p), nil
}
