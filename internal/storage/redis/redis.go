package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Store keeps carts in Redis. It is safe for concurrent use.
type Store struct {
	client  goredis.UniversalClient
	sharing *sharing
	master  string // what the sentinels call it
	space   space
	secrets []storage.Secret // what no error may quote
	// scripts are those of the space's namespace; see scriptsOf.
	scripts map[string]script

	// heartbeat is how often a waiter renews its place. Tests make it very long.
	heartbeat time.Duration
	confirms  bool // replicas must confirm what is acknowledged
	waiters   *waiters
	watching  *watching
	eviction  eviction
	// probing holds an element while a probe is under way. Probes of one store use the same keys.
	probing       chan struct{}
	probeInstance string
	// mute says why the last probe could not publish a wake-up; "" if it could.
	mute atomic.Pointer[string]

	mu     sync.Mutex
	closed bool
	done   chan struct{}  // closed by Close
	tasks  sync.WaitGroup // what Close must wait for
}

var _ storage.Locker = (*Store)(nil)

// New makes a store. It does not dial, so that a server that is down is no error here: ask Ping. The error names every
// field that is wrong.
func New(_ context.Context, c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	s := &Store{
		client: c.connect(), master: c.MasterName,
		secrets:   c.secrets(),
		space:     space{namespace: c.Namespace, prefix: c.Prefix, cluster: c.Mode == Cluster},
		scripts:   scriptsOf(c.Namespace),
		heartbeat: storage.Heartbeat,
		confirms:  c.MinReplicas > 0,
		waiters:   newWaiters(c.Namespace + "wake." + c.Prefix + "." + randomName()),
		done:      make(chan struct{}),
		probing:   make(chan struct{}, 1), probeInstance: probeName + randomName(),
	}
	s.sharing = newSharing(&c, s.client)
	s.watching = newWatching(s)
	return s, nil
}

// randomName is the last part of a name that nobody else uses.
func randomName() string { return storage.NewToken() }

// Load reads the cart by one HGETALL.
func (s *Store) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	name := s.space.cart(key)
	r, err := s.exchange(ctx, name, []any{"hgetall", name}, true)
	if err != nil {
		return nil, s.translate(ctx, err, "load", key)
	}
	s.sharing.large.note(name, r.size() > mostShared)
	c, err := decodeCart(r.list)
	return c, s.translate(ctx, err, "load", key)
}

// Atomic is true for any two carts, and in a Cluster for those whose identifiers are in one slot.
func (s *Store) Atomic(a, b cart.Key) bool {
	return !s.space.cluster || a.Identifier == b.Identifier || slot(escape(a.Identifier)) == slot(escape(b.Identifier))
}

// Instances reads the index, and checks which of its carts still exist. If the server may have evicted an index, it
// looks for the carts themselves and mends the index.
func (s *Store) Instances(ctx context.Context, identifier string) ([]string, error) {
	doing := "list carts of " + strconv.Quote(identifier)
	var found []string
	evicts, err := s.mayEvict(ctx)
	if err == nil && evicts {
		found, err = s.walk(ctx, identifier)
	}
	var list []string
	if err == nil {
		list, err = s.instances(ctx, identifier, found...)
	}
	if err != nil {
		return nil, s.translate(ctx, err, doing)
	}
	for i, component := range list {
		name, err := unescape(component)
		if err != nil {
			return nil, fmt.Errorf("redis: %s: %w: %w", doing, storage.ErrCorrupt, err)
		}
		list[i] = name
	}
	list = slices.DeleteFunc(list, func(name string) bool { return cart.Key{Identifier: identifier, Instance: name}.Reserved() })
	slices.Sort(list)
	return list, nil
}

// instances returns those in the index whose carts exist, escaped as in keys. found are instances that were found
// without the index; they are added to it.
func (s *Store) instances(ctx context.Context, identifier string, found ...string) ([]string, error) {
	index, before := s.space.owner(identifier)
	args := append(scriptArgs(instancesScript, 1+len(found), index), before)
	for _, instance := range found {
		args = append(args, instance)
	}
	reply, err := s.run(ctx, instancesScript, args)
	if err != nil {
		return nil, err
	}
	u := &unpacker{rest: reply}
	return u.texts(), u.err
}

// Flush looks at every key of every master once.
func (s *Store) Flush(ctx context.Context) error {
	var err error
	if c, ok := s.client.(*goredis.ClusterClient); ok {
		err = c.ForEachMaster(ctx, func(ctx context.Context, node *goredis.Client) error { return s.flushNode(ctx, node) })
	} else {
		err = s.flushNode(ctx, s.client)
	}
	s.watching.changedAll()
	return s.translate(ctx, err, "flush")
}

// flushNode lets the server filter the keys by a pattern, in which no character of a prefix has a meaning, and then
// checks each key exactly.
func (s *Store) flushNode(ctx context.Context, node goredis.Cmdable) error {
	const page = 1000
	var cursor uint64
	for {
		keys, next, err := node.Scan(ctx, cursor, s.space.namespace+"*"+s.space.prefix+".*", page).Result()
		if err != nil {
			return err
		}
		pipe := node.Pipeline() // one command per key: a node of a Cluster has many slots
		for _, k := range keys {
			if s.space.owns(k) || s.space.probes(k) {
				pipe.Unlink(ctx, k)
			}
		}
		if pipe.Len() > 0 {
			if _, err := pipe.Exec(ctx); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// Capabilities are those of Redis. Whether a change is on disk when it is acknowledged is the server's setting; Durable
// says that it does not depend on this process.
func (s *Store) Capabilities() storage.Capabilities {
	return storage.Capabilities{Backend: "Redis", Shared: true, Locks: true, Durable: true}
}

// Close ends waiting calls, gives back what they were granted, and closes the connections.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	s.mu.Unlock()
	s.tasks.Wait()
	s.waiters.close()
	s.sharing.end()
	if err := s.client.Close(); err != nil {
		return fmt.Errorf("redis: close: %w: %w", storage.ErrUnavailable, err)
	}
	return nil
}

func (s *Store) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// begin notes a task that Close must wait for; the task then calls s.tasks.Done. It returns false after Close.
func (s *Store) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.tasks.Add(1)
	return true
}
