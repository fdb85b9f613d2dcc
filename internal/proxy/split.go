package proxy

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"time"
)

// preface begins every HTTP/2 connection, and so every gRPC connection.
var preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

// prefaceTimeout is how long a client may take to show what it speaks.
const prefaceTimeout = 10 * time.Second

// splitter divides the connections of one listener between two: one for those that begin with the preface, one for all
// others.
type splitter struct {
	net.Listener
	http2, http1 *branch

	mu      sync.Mutex
	waiting map[net.Conn]struct{} // connections that have not shown yet what they speak; nil once closed
}

func newSplitter(l net.Listener) *splitter {
	return &splitter{Listener: l, http2: newBranch(l.Addr()), http1: newBranch(l.Addr()), waiting: map[net.Conn]struct{}{}}
}

// run accepts until the listener is closed.
func (s *splitter) run() error {
	for {
		c, err := s.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err // the door below retries passing errors
		}
		go s.sort(c)
	}
}

// close stops accepting. Connections that a branch has live on.
func (s *splitter) close() error {
	err := s.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.waiting {
		_ = c.Close()
	}
	s.waiting = nil
	return err
}

// sort reads enough of a connection to know what it speaks.
func (s *splitter) sort(c net.Conn) {
	s.mu.Lock()
	if s.waiting == nil {
		s.mu.Unlock()
		_ = c.Close()
		return
	}
	s.waiting[c] = struct{}{}
	s.mu.Unlock()
	_ = c.SetReadDeadline(time.Now().Add(prefaceTimeout))
	head := make([]byte, 0, len(preface))
	for len(head) < len(preface) && bytes.HasPrefix(preface, head) {
		n, err := c.Read(head[len(head):cap(head)])
		if head = head[:len(head)+n]; err != nil && n == 0 {
			_ = c.Close()
			break
		}
	}
	_ = c.SetReadDeadline(time.Time{})
	s.mu.Lock()
	delete(s.waiting, c)
	s.mu.Unlock()
	to := s.http1
	if bytes.Equal(head, preface) {
		to = s.http2
	}
	to.give(&begunConn{Conn: c, head: head})
}

// branch is a listener that gets its connections from a splitter.
type branch struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newBranch(addr net.Addr) *branch {
	return &branch{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (b *branch) give(c net.Conn) {
	select {
	case b.conns <- c:
	case <-b.closed:
		_ = c.Close()
	}
}

// Accept implements [net.Listener].
func (b *branch) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (b *branch) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// Addr implements [net.Listener].
func (b *branch) Addr() net.Addr { return b.addr }

// begunConn is a connection whose first bytes were read already.
type begunConn struct {
	net.Conn
	head []byte
}

func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	c.head = c.head[n:]
	return n, nil
}
