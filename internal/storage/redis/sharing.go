package redis

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// sharing are the shared connections of a store: one for each server that it talks to. They only make calls cheaper.
// While there is none, calls take connections of the driver's pool, and a call that went well has one made in the
// background. So the driver alone finds servers, follows redirections, and meets what is wrong with a server.
type sharing struct {
	client  goredis.UniversalClient
	timeout time.Duration
	// single is the client of the only server; nil in a Cluster.
	single *goredis.Client
	// off says that the pool has no connection to spare.
	off bool
	// large are keys whose last reply would have held up others.
	large largeKeys

	mu    sync.Mutex
	seats map[*goredis.Client]*seat // by the client of a server
	// open are all connections, including those on which calls only end.
	open    map[*shared]struct{}
	closing context.Context
	close   context.CancelFunc
	tasks   sync.WaitGroup
}

// seat is the place of one server's shared connection.
type seat struct {
	conn atomic.Pointer[shared]
	// making says that a connection is being made. rest is until when none is made, since the last try failed.
	making bool
	rest   time.Time
}

// isFree reports whether a connection may be made.
func (s *seat) isFree() bool {
	conn := s.conn.Load()
	return !s.making && (conn == nil || !conn.alive()) && !time.Now().Before(s.rest)
}

// makeTimeout bounds how long a shared connection may take to be made, and makeRest is how long to wait after a
// failure.
const (
	makeTimeout = 5 * time.Second
	makeRest    = time.Second
)

func newSharing(c *Config, client goredis.UniversalClient) *sharing {
	s := &sharing{
		client: client, timeout: c.timeouts().read, off: c.PoolSize == 1,
		seats: map[*goredis.Client]*seat{}, open: map[*shared]struct{}{},
	}
	s.single, _ = client.(*goredis.Client)
	s.closing, s.close = context.WithCancel(context.Background())
	return s
}

// server returns the client of the server that has a key; nil if that is not known.
func (s *sharing) server(ctx context.Context, key string) *goredis.Client {
	if s.single != nil {
		return s.single
	}
	cluster, ok := s.client.(*goredis.ClusterClient)
	if !ok || key == "" {
		return nil
	}
	node, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return nil
	}
	return node
}

// do sends a command over the shared connection of the server that has key. sent is false if it cannot have reached
// that server.
func (s *sharing) do(ctx context.Context, key string, args []any) (r reply, sent bool, err error) {
	if conn := s.conn(ctx, key); conn != nil {
		return conn.do(ctx, args)
	}
	return reply{}, false, nil
}

// conn returns the shared connection for a call about key; nil if the call has to do without.
func (s *sharing) conn(ctx context.Context, key string) *shared {
	if s.off || ctx.Err() != nil || s.large.has(key) {
		return nil
	}
	server := s.server(ctx, key)
	if server == nil {
		return nil
	}
	s.mu.Lock()
	at := s.seats[server]
	s.mu.Unlock()
	if at == nil {
		return nil
	}
	return at.conn.Load()
}

// offer has a shared connection made to the server that has key, where there is none.
func (s *sharing) offer(ctx context.Context, key string) {
	if s.off {
		return
	}
	server := s.server(ctx, key)
	if server == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.seats[server]
	if at == nil {
		// A server without connection may have left the Cluster.
		maps.DeleteFunc(s.seats, func(_ *goredis.Client, at *seat) bool { return at.isFree() })
		at = &seat{}
		s.seats[server] = at
	}
	if s.closing.Err() != nil || !at.isFree() {
		return
	}
	at.making = true
	s.tasks.Go(func() { s.make(server, at) })
}

func (s *sharing) make(server *goredis.Client, at *seat) {
	ctx, cancel := context.WithTimeout(s.closing, makeTimeout)
	defer cancel()
	hold := server.EphemeralConn()
	conn, err := taken(ctx, hold)
	s.mu.Lock()
	at.making = false
	if err != nil || s.closing.Err() != nil {
		at.rest = time.Now().Add(makeRest)
		s.mu.Unlock()
		_ = hold.Close()
		return
	}
	defer s.mu.Unlock()
	s.tasks.Add(1)
	made := newShared(conn, s.timeout, func(ended *shared) {
		defer s.tasks.Done()
		_ = hold.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, ended)
		at.conn.CompareAndSwap(ended, nil)
	})
	s.open[made] = struct{}{}
	at.conn.Store(made)
}

// end closes all shared connections.
func (s *sharing) end() {
	s.mu.Lock()
	s.close()
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, conn := range open {
		conn.fail(goredis.ErrClosed)
		<-conn.ended
	}
	s.tasks.Wait()
}

// largeKeys are keys with large replies, as far as they are known: mostLarge at most.
type largeKeys struct {
	n    atomic.Int32 // how many there are
	mu   sync.Mutex
	keys map[string]struct{}
}

const mostLarge = 1000

func (l *largeKeys) has(key string) bool {
	if l.n.Load() == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.keys[key]
	return ok
}

// note remembers whether the reply for a key was large.
func (l *largeKeys) note(key string, large bool) {
	if !large && l.n.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !large:
		delete(l.keys, key)
	case l.keys == nil || len(l.keys) == mostLarge:
		l.keys = map[string]struct{}{key: {}} // those that are forgotten are noted again
	default:
		l.keys[key] = struct{}{}
	}
	l.n.Store(int32(len(l.keys)))
}
