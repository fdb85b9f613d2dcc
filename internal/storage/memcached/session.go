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

	// answer is the beginning of the server's answer to what it was sent last.
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

// store stores an item by add, or by cas where it has a unique, and reads in the same round trip what is there then:
// the item itself with its new unique, or the one that was in its way, or nil. The client would need two round trips.
// The errors are those of the client.
//
// The meta command ms would answer with the unique as well. But where the server has no memory left for the new value,
// it deletes the old one.
func (s *session) store(item *memcache.Item) (there *memcache.Item, err error) {
	verb, unique := "add", ""
	if item.CasID != 0 {
		verb, unique = "cas", fmt.Sprint(" ", item.CasID)
	}
	b := make([]byte, 0, len(item.Value)+2*len(item.Key)+64)
	b = fmt.Appendf(b, "%s %s 0 %d %d%s\r\n", verb, item.Key, item.Expiration, len(item.Value), unique)
	b = append(b, item.Value...)
	b = fmt.Appendf(b, "\r\ngets %s\r\n", item.Key)
	s.broken = true // until all of the answer is read
	if _, err := s.Write(b); err != nil {
		return nil, err
	}
	r := bufio.NewReader(s)
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	switch answer := strings.TrimSpace(line); answer {
	case "STORED":
	case "NOT_STORED":
		err = memcache.ErrNotStored
	case "EXISTS":
		err = memcache.ErrCASConflict
	case "NOT_FOUND":
		err = memcache.ErrCacheMiss
	default:
		return nil, fmt.Errorf("unexpected answer to %s: %q", verb, answer)
	}
	there, failed := readItem(r, item.Key)
	s.broken = failed != nil // what became of the item is known all the same
	return there, err
}

// readItem reads the answer to a gets of one key; nil is no item.
func readItem(r *bufio.Reader, key string) (*memcache.Item, error) {
	line, err := r.ReadString('\n')
	if err != nil || line == "END\r\n" {
		return nil, err
	}
	item, size, flags := &memcache.Item{Key: key}, 0, 0
	if _, err := fmt.Sscanf(line, "VALUE "+key+" %d %d %d\r\n", &flags, &size, &item.CasID); err != nil || size < 0 || size > maxValue {
		return nil, fmt.Errorf("unexpected answer to gets: %q", line)
	}
	const end = "\r\nEND\r\n"
	item.Value = make([]byte, size+len(end))
	if _, err := io.ReadFull(r, item.Value); err != nil {
		return nil, err
	}
	if string(item.Value[size:]) != end {
		return nil, errors.New("unexpected end of the answer to gets")
	}
	item.Value = item.Value[:size]
	return item, nil
}

// maxValue is the largest value that a server can be told to take, by -I.
const maxValue = 1 << 30

// isCondition reports whether the server did what it was asked, and a condition did not hold.
func isCondition(err error) bool {
	return errors.Is(err, memcache.ErrCacheMiss) || errors.Is(err, memcache.ErrNotStored) || errors.Is(err, memcache.ErrCASConflict)
}

// stale reports whether a call failed because the connection had ended before it. Then nothing was done, or that cannot
// be known.
func (s *session) stale(err error) bool {
	return s.reused && s.broken && len(s.answer) == 0 && !errors.Is(err, os.ErrDeadlineExceeded)
}

// stats are the server's statistics and settings. The client cannot ask for them.
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
