package redis

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
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
		return heard{conn}, nil
	}
}

// heard is a connection that tells why a server closed it. A server that turns a client away says so before it hears
// anything of it. The driver takes this for the answer to its greeting, which it ignores, or it learns only that the
// connection is broken, when it writes.
type heard struct{ net.Conn }

// heardSocket is one without TLS. The driver looks whether the server has closed it before it uses it again.
type heardSocket struct {
	heard
	syscall.Conn
}

// farewells are replies after which the server closes the connection, and what they mean.
var farewells = []struct {
	reply []byte
	words string
}{
	{[]byte("-ERR max number of clients reached"), "ERR max number of clients reached"},
	// A server says so of every command with more than ten arguments, as most of ours are.
	{[]byte("-ERR Protocol error: unauthenticated"), "NOAUTH Authentication required."},
}

// Read is that of the connection, and fails where it reads a farewell.
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

// Write is that of the connection. The alert of TLS that asks for a certificate comes after the handshake.
func (h heard) Write(p []byte) (int, error) {
	n, err := h.Conn.Write(p)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	return n, h.farewell(err)
}

// farewell is what the server said, or otherwise err.
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
