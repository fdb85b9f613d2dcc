package memcached

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// maxSessions is how many connections a server is given at most: one for each call under way, and Memcached takes 1024
// of all its clients. A call takes well under a millisecond, so these are enough.
const maxSessions = 32

// server is one server with the connections to it, all of which lead to the same process.
type server struct {
	address  string
	names    names
	timeouts timeouts
	slots    chan struct{} // has one for each connection that is lent
	closing  <-chan struct{}

	mu     sync.Mutex
	idle   []*session // all of this epoch
	closed bool
	known  process
	forgot time.Time // when the server was last seen to have lost its epoch; zero for never
}

type timeouts struct{ dial, read, write time.Duration }

// process is what is known of the process that runs.
type process struct {
	epoch string
	// number tells the process from the last 65,536 that this client has met.
	number uint16
	// maxItem is the size of an item, with its key and what the server adds.
	maxItem int
}

// errStale is returned by a call that has seen that the connection's epoch has gone.
var errStale = errors.New("the server has lost its epoch")

// call lends f a connection. again says that f may be called a second time, on a new connection, if the first had
// ended. Otherwise f gets no connection that is known to have ended.
func (s *server) call(ctx context.Context, timeout time.Duration, again bool, f func(c *session) error) error {
	for {
		c, err := s.take(ctx)
		if err != nil {
			return s.translate(ctx, err)
		}
		if !again && c.reused && c.ended() { // nobody could tell whether f was done
			s.give(c, true)
			continue
		}
		err = c.exchange(ctx, timeout, func() error { return f(c) })
		stale := c.stale(err) || errors.Is(err, errStale)
		s.give(c, stale)
		if stale && again && ctx.Err() == nil {
			again = false
			continue
		}
		return s.translate(ctx, err)
	}
}

// take borrows a connection.
func (s *server) take(ctx context.Context) (*session, error) {
	if err := s.waitForSlot(ctx); err != nil {
		return nil, err
	}
	if c := s.pop(); c != nil {
		return c, nil
	}
	c, err := s.dial(ctx)
	if err != nil {
		<-s.slots
	}
	return c, err
}

// waitForSlot waits no longer than for an answer: if all connections are busy for that long, so is the server.
func (s *server) waitForSlot(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(s.timeouts.read)
	defer timer.Stop()
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return storage.ErrClosed
	case <-timer.C:
		return fmt.Errorf("all %d connections are busy", cap(s.slots))
	}
}

func (s *server) pop() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.idle) - 1
	if last < 0 {
		return nil
	}
	c := s.idle[last]
	s.idle = s.idle[:last]
	c.reused = true
	return c
}

// give takes a connection back. If it had ended, the idle connections most likely have too.
func (s *server) give(c *session, stale bool) {
	defer func() { <-s.slots }()
	s.mu.Lock()
	defer s.mu.Unlock()
	if stale || c.broken && len(c.answer) == 0 {
		s.drop()
	}
	if s.closed || stale || c.broken || c.epoch != s.known.number {
		_ = c.Close()
		return
	}
	s.idle = append(s.idle, c)
}

func (s *server) drop() {
	for _, c := range s.idle {
		_ = c.Close()
	}
	s.idle = nil
}

func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.drop()
}

// dial makes a connection and finds out to which process it leads.
func (s *server) dial(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeouts.dial)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	c := newSession(conn)
	err = c.exchange(ctx, s.timeouts.read, func() error { return s.greet(c) })
	if err == nil && c.broken { // the time ended just as the last answer arrived
		err = cmp.Or(context.Cause(ctx), net.ErrClosed)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// greet reads the epoch, and the settings that matter if the process is new.
func (s *server) greet(c *session) error {
	epoch, err := s.readEpoch(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	same := epoch == s.known.epoch
	c.epoch = s.known.number
	s.mu.Unlock()
	if same {
		return nil
	}
	settings, err := c.stats("settings")
	if err != nil {
		return err
	}
	if settings["cas_enabled"] == "no" {
		return errNoCAS
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch != s.known.epoch { // nobody else has noted it yet
		if s.known.epoch != "" {
			s.forgot = time.Now()
		}
		s.drop()
		s.known = process{epoch: epoch, number: s.known.number + 1, maxItem: itemSize(settings)}
	}
	c.epoch = s.known.number
	return nil
}

// readEpoch adds an epoch where there is none.
func (s *server) readEpoch(c *session) (string, error) {
	for {
		item, err := c.client.Get(s.names.epoch())
		if err == nil {
			return string(item.Value), nil
		}
		if !errors.Is(err, memcache.ErrCacheMiss) {
			return "", err
		}
		epoch := rand.Text()
		err = c.client.Add(&memcache.Item{Key: s.names.epoch(), Value: []byte(epoch)})
		if err == nil {
			return epoch, nil
		}
		if !errors.Is(err, memcache.ErrNotStored) {
			return "", err
		}
	}
}

// itemSize is the size of the largest item. If a server does not report it, it is the default of every version.
func itemSize(settings map[string]string) int {
	if n, err := strconv.Atoi(settings["item_size_max"]); err == nil && n > 0 {
		return n
	}
	return 1 << 20
}

// itemOverhead is more than what a server adds to key and value, in every version: some 60 bytes.
const itemOverhead = 128

// fits refuses a value that the server would not take.
func (s *server) fits(key string, value []byte) error {
	s.mu.Lock()
	limit := s.known.maxItem - itemOverhead - len(key)
	s.mu.Unlock()
	if len(value) <= limit {
		return nil
	}
	return fmt.Errorf("%w: %w", errTooLarge, cart.TooLargef("cart", int64(limit), int64(len(value)),
		"takes %d bytes with its locks, an item of memcached at most %d: start it with a greater -I, or keep less in the cart", len(value), limit))
}
