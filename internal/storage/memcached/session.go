package memcached

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sidecart/sidecart/internal/storage"
)

// session is one connection to a server, for one call at a time. It is the only connection of its client, which speaks
// the protocol over it.
type session struct {
	net.Conn
	client *memcache.Client
	epoch  uint16 // what the server's process is called here
	reused bool   // it has served a call before

	// answer is the beginning of what the server said to what it was sent last.
	answer []byte
	// broken says that the connection is closed, or not to be used again.
	broken bool
}

func newSession(conn net.Conn) *session {
	s := &session{Conn: conn}
	s.client = memcache.NewFromSelector(only{conn.RemoteAddr()})
	dialed := false
	s.client.DialContext = func(context.Context, string, string) (net.Conn, error) {
		if dialed {
			return nil, net.ErrClosed
		}
		dialed = true
		return s, nil
	}
	return s
}

// only selects the one server there is.
type only struct{ net.Addr }

func (o only) PickServer(string) (net.Addr, error)     { return o.Addr, nil }
func (o only) Each(f func(net.Addr) error) (err error) { return f(o.Addr) }

// SetDeadline does nothing: the client would put its own timeout in place of the call's deadline.
func (s *session) SetDeadline(time.Time) error { return nil }

// Close is what the client does after every error but those of a condition.
func (s *session) Close() error {
	s.broken = true
	return s.Conn.Close()
}

// maxAnswer is how much of an answer is kept: an error is one line.
const maxAnswer = 256

func (s *session) Write(b []byte) (int, error) {
	s.answer = s.answer[:0]
	return s.Conn.Write(b)
}

func (s *session) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if free := maxAnswer - len(s.answer); free > 0 {
		s.answer = append(s.answer, b[:min(n, free)]...)
	}
	return n, err
}

// exchange calls f, which talks to the server, and ends it when ctx ends or the timeout is over.
func (s *session) exchange(ctx context.Context, timeout time.Duration, f func() error) error {
	s.answer = s.answer[:0]
	if err := s.Conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		s.broken = true
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		s.broken = true // its deadline may be set at any time from now on
	}
	return s.refused(err)
}

// refused tells an error that the server answered from one of the connection.
func (s *session) refused(err error) error {
	line, _, _ := strings.Cut(string(s.answer), "\r\n")
	switch {
	case err == nil, isCondition(err):
		return err
	case strings.HasPrefix(line, "SERVER_ERROR object too large"):
		return errTooLarge
	case strings.HasPrefix(line, "SERVER_ERROR"), strings.HasPrefix(line, "CLIENT_ERROR"), strings.HasPrefix(line, "ERROR"):
		return &storage.Refusal{Words: line}
	}
	return err
}

// isCondition reports whether the server did what it was asked, and a condition did not hold.
func isCondition(err error) bool {
	return errors.Is(err, memcache.ErrCacheMiss) || errors.Is(err, memcache.ErrNotStored) || errors.Is(err, memcache.ErrCASConflict)
}

// stale reports whether a call failed since the connection had ended before it. Nothing was done then, or it cannot be
// known.
func (s *session) stale(err error) bool {
	return s.reused && s.broken && len(s.answer) == 0 && !errors.Is(err, os.ErrDeadlineExceeded)
}

// stats are what the server says of itself. The client cannot ask for them.
func (s *session) stats(kind string) (map[string]string, error) {
	if _, err := io.WriteString(s, strings.TrimSpace("stats "+kind)+"\r\n"); err != nil {
		s.broken = true
		return nil, err
	}
	all := map[string]string{}
	for lines := bufio.NewScanner(s); lines.Scan(); {
		name, value, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "STAT "), " ")
		if name == "END" {
			return all, nil
		}
		if !strings.HasPrefix(lines.Text(), "STAT ") {
			s.broken = true
			return nil, fmt.Errorf("unexpected answer to stats: %q", lines.Text())
		}
		all[name] = value
	}
	s.broken = true
	return nil, io.ErrUnexpectedEOF
}
