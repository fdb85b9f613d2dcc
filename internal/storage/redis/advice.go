package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Advisor = (*Store)(nil)

// health is how well servers keep their data. Of several servers, each field has the worst value.
type health struct {
	// policy is the policy by which a server evicts keys; "" if none does. A policy without a limit on memory does not
	// count.
	policy string
	// evicted counts the keys that were evicted since the servers started.
	evicted uint64
	// unknown says that policy or evicted could not be read, and why.
	unknown string

	persistence persistence
}

type persistence int

const (
	persistent persistence = iota
	persistenceUnknown
	notPersistent
)

// evicts reports whether the servers may have evicted keys, or may do so.
func (h *health) evicts() bool { return h.policy != "" || h.evicted > 0 || h.unknown != "" }

// Advice asks every master. It needs the right to INFO, and to CONFIG GET if there is no append-only file.
func (s *Store) Advice(ctx context.Context) ([]storage.Advice, error) {
	h, err := s.health(ctx)
	if err != nil {
		return nil, s.translate(ctx, err, "ask how carts are kept")
	}
	s.noteHealth(h)
	var all []storage.Advice
	advise := func(code, format string, args ...any) {
		all = append(all, storage.Advice{Code: code, Message: fmt.Sprintf(format, args...)})
	}
	if h.evicted > 0 {
		advise(storage.AdviceCartsEvicted, "Redis has evicted %d keys since it started: carts that were acknowledged may be among them. Give it more memory, set maxmemory-policy to noeviction, and restart it or run CONFIG RESETSTAT.", h.evicted)
	}
	if h.policy != "" {
		advise(storage.AdviceEvictionPolicy, "Redis has a limit of memory and maxmemory-policy %s: when it is full it forgets carts instead of refusing changes. Set maxmemory-policy to noeviction.", h.policy)
	}
	if h.persistence == notPersistent {
		advise(storage.AdviceNotPersistent, "Redis writes neither an append-only file nor snapshots: when it restarts, all carts are gone. Set appendonly to yes.")
	}
	if why := s.cannotWake(ctx); why != "" {
		advise(storage.AdviceNoWakeUps, "Redis does not let the sidecar publish or subscribe (%s): a sidecar that waits for a lock is not woken, and asks every few milliseconds instead. Allow the commands PUBLISH and SUBSCRIBE and the channels %swake.%s.*.", why, s.space.namespace, s.space.prefix)
	}
	if h.unknown != "" {
		advise(storage.AdviceUnknownEviction, "Redis does not say whether it evicts keys (%s): allow the command INFO.", h.unknown)
	}
	if h.persistence == persistenceUnknown {
		advise(storage.AdviceUnknownPersistence, "Redis writes no append-only file, and does not say whether it writes snapshots: allow the command CONFIG GET, or set appendonly to yes.")
	}
	return all, nil
}

// health asks every master. An error means that none answered.
func (s *Store) health(ctx context.Context) (health, error) {
	c, ok := s.client.(*goredis.ClusterClient)
	if !ok {
		return s.healthOf(ctx, s.client)
	}
	var (
		mu  sync.Mutex
		all health
	)
	err := c.ForEachMaster(ctx, func(ctx context.Context, node *goredis.Client) error {
		h, err := s.healthOf(ctx, node)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if h.policy != "" {
			all.policy = h.policy
		}
		if h.unknown != "" {
			all.unknown = h.unknown
		}
		all.evicted += h.evicted
		all.persistence = max(all.persistence, h.persistence)
		return nil
	})
	return all, err
}

// healthOf reads what a server says in INFO, which every version and most rights allow.
func (s *Store) healthOf(ctx context.Context, node goredis.Cmdable) (health, error) {
	var h health
	text, err := node.Info(ctx).Result()
	switch {
	case isReply(err):
		return health{unknown: s.words(err), persistence: persistenceUnknown}, nil
	case err != nil:
		return health{}, err
	}
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	policy, limit := info["maxmemory_policy"], info["maxmemory"]
	if policy == "" || limit == "" || info["evicted_keys"] == "" {
		h.unknown = "INFO has no word about it"
	}
	if policy != "noeviction" && limit != "0" {
		h.policy = policy
	}
	h.evicted, _ = strconv.ParseUint(info["evicted_keys"], 10, 64)
	if info["aof_enabled"] == "1" {
		return h, nil
	}
	h.persistence = persistenceUnknown
	config, err := node.ConfigGet(ctx, "save").Result()
	save, known := config["save"]
	switch {
	case err != nil && !isReply(err):
		return health{}, err
	case err == nil && known && strings.TrimSpace(save) == "":
		h.persistence = notPersistent
	case err == nil && known:
		h.persistence = persistent
	}
	return h, nil
}

// healthLife is how long an answer about eviction is believed. A server that had evicted nothing before may evict an
// index within this time; a list of carts then lacks carts of that index.
const healthLife = time.Second

// eviction remembers whether the server evicts. Once it has, this stays true, even if the policy is changed and the
// counters begin anew: nothing tells which carts an evicted index had.
type eviction struct {
	seen  atomic.Bool
	asked atomic.Pointer[time.Time]
}

func (s *Store) noteHealth(h health) {
	now := time.Now()
	s.eviction.asked.Store(&now)
	if h.evicts() {
		s.eviction.seen.Store(true)
	}
}

// mayEvict reports whether an index may lack carts that exist.
func (s *Store) mayEvict(ctx context.Context) (bool, error) {
	if s.eviction.seen.Load() {
		return true, nil
	}
	if asked := s.eviction.asked.Load(); asked != nil && time.Since(*asked) < healthLife {
		return false, nil
	}
	h, err := s.health(ctx)
	if err != nil {
		return false, err
	}
	s.noteHealth(h)
	return h.evicts(), nil
}

// walk finds the instances of an identifier without the index, as in keys: it looks at every key of their server.
func (s *Store) walk(ctx context.Context, identifier string) ([]string, error) {
	index, before := s.space.owner(identifier)
	var node goredis.Cmdable = s.client
	if c, ok := s.client.(*goredis.ClusterClient); ok {
		master, err := c.MasterForKey(ctx, index)
		if err != nil {
			return nil, err
		}
		node = master
	}
	var found []string
	const page = 1000
	for cursor := uint64(0); ; {
		keys, next, err := node.Scan(ctx, cursor, globSigns.Replace(before)+"*", page).Result()
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if s.space.owns(k) { // not a cart of a longer prefix
				found = append(found, strings.TrimPrefix(k, before))
			}
		}
		if cursor = next; cursor == 0 {
			return found, nil
		}
	}
}

// globSigns are the characters with a meaning in a pattern of SCAN.
var globSigns = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `\`, `\\`)

// cannotWake says why waiters cannot be woken. It returns "" if they can, or if no server answers. The last probe knows
// whether messages can be published. Subscribing is tried here until it works once, and again after it failed for a
// waiter.
func (s *Store) cannotWake(ctx context.Context) string {
	if mute := s.mute.Load(); mute != nil && *mute != "" {
		return s.words(goredisError(*mute))
	}
	err := s.waiters.audible(ctx, s.client)
	if !isReply(err) {
		return ""
	}
	return s.words(err)
}

// goredisError is an error of the server that a script has passed on.
type goredisError string

func (e goredisError) Error() string { return string(e) }

// RedisError makes it a [goredis.Error].
func (goredisError) RedisError() {}

var _ goredis.Error = goredisError("")
