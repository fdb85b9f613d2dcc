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

// Write writes to the connection. The TLS alert that asks for a certificate comes after the handshake, so a write may
// be the first to meet it.
func (h heard) Write(p []byte) (int, error) {
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
