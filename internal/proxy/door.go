package proxy

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// How many connections a front has. A connection costs about 20 KiB before its first request, and a gRPC connection 40
// KiB.
const (
	maxHTTPConns   = 512
	maxGRPCConns   = 256
	maxSocketConns = 512
	maxAdminConns  = 256
)

// newcomer is how long a connection has for its first request before it must make room for others. With newcomers there
// may be twice as many connections as above.
const newcomer = 100 * time.Millisecond

// How long to wait after a failed accept. Descriptors become free when connections end.
const (
	acceptPause    = 5 * time.Millisecond
	maxAcceptPause = time.Second
	// acceptReport is the least time between two log lines about it.
	acceptReport = 10 * time.Second
)

// door is a listener that bounds how many connections are open at once. When it is full, it closes the oldest
// connection that is not being answered. So an incomplete request keeps nobody out, and a client that sends its request
// at once, as a probe does, is answered.
//
// An accept that fails for lack of descriptors is tried again and never ends the listener.
type door struct {
	net.Listener
	*crowd
	closed chan struct{}
	once   sync.Once
	told   time.Time // of the last line about accepts; Accept's own
}

// crowd is the set of connections that the doors of one front have accepted.
type crowd struct {
	name string
	max  int
	// brief says that every answer is quick. If an answer then takes long, its client does not read, and its connection
	// must make room too.
	brief bool
	log   *slog.Logger

	mu sync.Mutex
	in list.List // of *guest, the oldest first
	// lasting is how many of them have streams. Streams have their own bound, so these connections do not count against
	// the others.
	lasting int
}

func newDoor(l net.Listener, name string, most int, log *slog.Logger) *door {
	return &door{Listener: l, crowd: &crowd{name: name, max: most, log: log}, closed: make(chan struct{})}
}

// beside returns a second door to the same crowd.
func (d *door) beside(l net.Listener) *door {
	return &door{Listener: l, crowd: d.crowd, closed: make(chan struct{})}
}

// Accept implements [net.Listener].
func (d *door) Accept() (net.Conn, error) {
	pause := acceptPause
	for {
		c, err := d.Listener.Accept()
		if err == nil {
			return d.admit(c), nil
		}
		if !passing(err) {
			return nil, err
		}
		if time.Since(d.told) > acceptReport {
			d.told = time.Now()
			d.log.Warn("cannot take connections, trying again", "front", d.name, "error", err)
		}
		d.turnOut(true) // to free its descriptor
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-d.closed:
			t.Stop()
			return nil, net.ErrClosed
		}
		pause = min(2*pause, maxAcceptPause)
	}
}

// passing reports whether an accept may succeed a little later.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Close implements [net.Listener]. Connections live on.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

func (d *crowd) admit(c net.Conn) *guest {
	g := &guest{Conn: c, crowd: d, came: time.Now()}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		g.host = string(a.IP)
	}
	d.mu.Lock()
	full := d.in.Len()-d.lasting >= d.max
	g.place = d.in.PushBack(g)
	d.mu.Unlock()
	if full {
		d.turnOut(false)
	}
	return g
}

// turnOut closes one connection, if one can be spared. If must is set, it may be a newcomer.
func (d *crowd) turnOut(must bool) {
	d.mu.Lock()
	out := d.spared(must || d.in.Len()-d.lasting > 2*d.max)
	d.mu.Unlock()
	if out != nil {
		_ = out.Close()
	}
}

// spared is the oldest idle connection of the host that has most of them. So one host with many connections does not
// crowd out a probe.
func (d *crowd) spared(must bool) *guest {
	var idle []*guest
	byHost, most := map[string]int{}, 0
	for e := d.in.Front(); e != nil; e = e.Next() {
		if g := e.Value.(*guest); !g.busy.Load() {
			idle = append(idle, g)
			byHost[g.host]++
			most = max(most, byHost[g.host])
		}
	}
	if must && d.brief && 2*len(idle) < d.in.Len() { // most clients do not read their answers
		return d.in.Front().Value.(*guest)
	}
	for _, g := range idle {
		if byHost[g.host] < most {
			continue
		}
		if must || time.Since(g.came) > newcomer {
			return g
		}
		break // those that follow came later
	}
	return nil
}

// guest is a connection that a door accepted.
type guest struct {
	net.Conn
	crowd *crowd
	host  string // the peer's address; "" on a Unix socket
	came  time.Time
	place *list.Element
	gone  sync.Once
	// streams is how many lasting streams it has; guarded by the mutex of crowd.
	streams int
	// busy says that a handler is answering, or that gRPC has taken over the connection. A busy connection is not
	// closed to make room.
	busy atomic.Bool
	// plain, if not nil, replaces an answer that net/http makes itself.
	plain func(status []byte) []byte
}

// Close implements [net.Conn].
func (g *guest) Close() error {
	g.gone.Do(func() {
		g.crowd.mu.Lock()
		defer g.crowd.mu.Unlock()
		g.crowd.in.Remove(g.place)
	})
	return g.Conn.Close()
}

// CloseWrite lets net/http end a connection before it has read the whole request, so that the answer still arrives.
func (g *guest) CloseWrite() error {
	if c, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetDeadline implements [net.Conn]. gRPC removes the deadline when the client has shown that it speaks HTTP/2. From
// then on the connection counts as busy.
func (g *guest) SetDeadline(t time.Time) error {
	if t.IsZero() && g.plain == nil {
		g.busy.Store(true)
	}
	return g.Conn.SetDeadline(t)
}

// lasts marks the connection of a call as having a stream, until end is called.
func lasts(ctx context.Context) (end func()) {
	g, _ := ctx.Value(guestKey{}).(*guest)
	if g == nil {
		return func() {}
	}
	add := func(n int) {
		g.crowd.mu.Lock()
		defer g.crowd.mu.Unlock()
		was := min(g.streams, 1)
		g.streams += n
		g.crowd.lasting += min(g.streams, 1) - was
	}
	add(1)
	return func() { add(-1) }
}

type guestKey struct{}

// withGuest is a ConnContext of net/http.
func withGuest(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, guestKey{}, guestOf(c))
}

// guestOf is nil for a connection that came through no door.
func guestOf(c net.Conn) *guest {
	switch c := c.(type) {
	case *guest:
		return c
	case *begunConn:
		return guestOf(c.Conn)
	}
	return nil
}
