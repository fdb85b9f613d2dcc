package redis

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// dialer dials with TLS where the configuration asks for it.
func (c *Config) dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	plain := &net.Dialer{
		Timeout:         c.timeouts().dial,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4},
	}
	dial := plain.DialContext
	if c.TLS != nil {
		dial = (&tls.Dialer{NetDialer: plain, Config: c.TLS}).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if socket, ok := conn.(syscall.Conn); ok {
			return heardSocket{heard{conn}, socket}, nil
		}
		if secure, ok := conn.(*tls.Conn); ok {
			if socket, ok := secure.NetConn().(syscall.Conn); ok {
				return &heardTLS{heard: heard{conn}, socket: socket}, nil
			}
		}
		return heard{conn}, nil
	}
}

// heard is a connection that tells why a server closed it. A server that turns a client away says so before it has read
// anything. The driver would ignore these words as the answer to its greeting, or would only notice at a write that the
// connection is broken.
type heard struct{ net.Conn }

// heardSocket is a heard without TLS. It gives the driver access to the socket, so that the driver can check whether
// the server has closed it before it uses it again.
type heardSocket struct {
	heard
	syscall.Conn
}

// heardTLS is a heard with TLS. It tells the driver whether the server has closed it, as heardSocket does. Without
// that, the first call on each connection that the server closed would fail.
type heardTLS struct {
	heard
	socket syscall.Conn
	// began says that something was read. Before, the socket may hold session tickets, which the first read takes in.
	began atomic.Bool
}

// Read reads from the connection, and fails if it reads a farewell.
func (h *heardTLS) Read(p []byte) (int, error) {
	n, err := h.heard.Read(p)
	if n > 0 {
		h.began.Store(true)
	}
	return n, err
}

// SyscallConn fails if the server has closed the connection, or has sent what nobody asked for. The driver calls it
// before it uses the connection again, while no reply is due. It must not look at the socket itself: it would take a
// record of TLS for a reply, and wait for the rest.
func (h *heardTLS) SyscallConn() (syscall.RawConn, error) {
	raw, err := h.socket.SyscallConn()
	if err != nil || !h.began.Load() {
		return lookedAt{raw}, err
	}
	var found error
	err = raw.Read(func(fd uintptr) bool {
		_, _, found = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	if err == nil && !errors.Is(found, syscall.EAGAIN) {
		err = net.ErrClosed
	}
	return lookedAt{raw}, err
}

// lookedAt is a socket that was looked at already.
type lookedAt struct{ syscall.RawConn }

// Read does nothing.
func (lookedAt) Read(func(fd uintptr) bool) error { return nil }

// farewells are replies after which the server closes the connection, and what they mean.
var farewells = []struct {
	reply []byte
	words string
}{
	{[]byte("-ERR max number of clients reached"), "ERR max number of clients reached"},
	// Before authentication, a server says this of every command with more than ten arguments, as most of ours have.
	{[]byte("-ERR Protocol error: unauthenticated"), "NOAUTH Authentication required."},
}

// Read reads from the connection, and fails if it reads a farewell.
func (h heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if n > 0 && p[0] == '-' {
		for _, f := range farewells {
			if bytes.HasPrefix(p[:n], f.reply) {
				return 0, &farewellError{f.words}
			}
		}
	}
	return n, err
}

// Write writes to the connection, and shows it to whoever wants it. The TLS alert that asks for a certificate comes
// after the handshake, so a write may be the first to meet it.
func (h heard) Write(p []byte) (int, error) {
	if wanted.Load() > 0 {
		show(h, p)
	}
	n, err := h.Conn.Write(p)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	return n, h.farewell(err)
}

// farewell returns what the server said last, or err if it said nothing.
func (h heard) farewell(err error) error {
	const soon, most = 20 * time.Millisecond, 512
	_ = h.SetReadDeadline(time.Now().Add(soon))
	_, cause := h.Read(make([]byte, most))
	if farewell, ok := errors.AsType[*farewellError](cause); ok {
		return farewell
	}
	if alert, ok := errors.AsType[*net.OpError](cause); ok && alert.Op == "remote error" {
		return alert
	}
	return err
}

// farewellError is a reply of the server after which it closed the connection. It is no error of the driver's kind,
// since the driver would go on using the connection.
type farewellError struct{ words string }

func (e *farewellError) Error() string { return e.words }

// The driver does not give out its connections. But it writes what it is told: a PING with a word that only one caller
// knows shows that caller the connection that the driver holds for it.
var (
	wanted atomic.Int32 // how many words are in byWord
	byWord sync.Map     // of chan net.Conn
)

// taken dials by the driver, which also introduces itself to the server, and returns the connection that hold then
// holds, without deadlines. The driver no longer uses it, but still closes it when it must not be used: when sentinels
// name another master, say.
//
// It is the connection without [heard]. A server says farewell only before it serves a client. What looks like that
// later is part of a document, and must not tell others that their commands were refused.
func taken(ctx context.Context, hold *goredis.Conn) (net.Conn, error) {
	word, shown := randomName(), make(chan net.Conn, 1)
	byWord.Store(word, shown)
	wanted.Add(1)
	defer func() {
		wanted.Add(-1)
		byWord.Delete(word)
	}()
	if err := hold.Do(ctx, "ping", word).Err(); err != nil {
		return nil, err
	}
	select {
	case conn := <-shown:
		return conn, conn.SetDeadline(time.Time{})
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// show shows the connection to the caller whose word is being written to it.
func show(h heard, p []byte) {
	word, ping := bytes.CutPrefix(p, []byte("*2\r\n$4\r\nping\r\n"))
	if !ping {
		return
	}
	if _, word, _ = bytes.Cut(word, []byte("\r\n")); len(word) > 2 {
		if shown, ok := byWord.LoadAndDelete(string(word[:len(word)-2])); ok {
			shown.(chan net.Conn) <- h.Conn
		}
	}
}
