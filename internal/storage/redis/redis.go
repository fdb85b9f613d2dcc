package redis

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

// Store keeps carts in Redis. It is safe for concurrent use.
type Store struct {
	client goredis.UniversalClient
	space  space

	// heartbeat is how often a waiter renews its place; tests make it endless.
	heartbeat time.Duration
	waiters   waiters

	mu     sync.Mutex
	closed bool
	done   chan struct{}  // closed by Close
	tasks  sync.WaitGroup // what Close must wait for
}

var _ storage.Locker = (*Store)(nil)

// New makes a store. It does not dial, so that a server that is down is no error here: ask
// Ping. The error names every field that is wrong.
func New(_ context.Context, c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	s := &Store{
		client:    c.connect(),
		space:     space{prefix: c.Prefix, cluster: c.Mode == Cluster},
		heartbeat: storage.Heartbeat,
		done:      make(chan struct{}),
	}
	s.waiters.channel = "wake." + c.Prefix + "." + randomName()
	return s, nil
}

// randomName is 128 random bits as 22 characters, as tokens of bsm/redislock are.
func randomName() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// Load reads the cart by one HGETALL.
func (s *Store) Load(ctx context.Context, key cart.Key) (*cart.Cart, error) {
	cmd := onceList{goredis.NewStringSliceCmd(ctx, "hgetall", s.space.names(key).cart)}
	if err := s.client.Process(ctx, cmd); err != nil {
		return nil, s.translate(ctx, err, "load", key)
	}
	c, err := decodeCart(cmd.Val())
	return c, s.translate(ctx, err, "load", key)
}

// onceList is [once] for lists.
type onceList struct{ *goredis.StringSliceCmd }

// NoRetry makes the client leave it at one attempt, so that an error comes when it happens.
func (onceList) NoRetry() bool { return true }

// Commit runs one script.
func (s *Store) Commit(ctx context.Context, commits ...storage.Commit) ([]storage.Outcome, error) {
	if s.isClosed() {
		return nil, s.translate(ctx, goredis.ErrClosed, "commit", keysOf(commits)...)
	}
	if len(commits) == 2 && !s.Atomic(commits[0].Key, commits[1].Key) {
		return nil, fmt.Errorf("redis: commit %v: two slots in one step: %w", keysOf(commits), storage.ErrUnsupported)
	}
	for i := range commits {
		if claim := commits[i].Claim; claim != nil {
			s.waiters.join(claim.Token) // before the claim can be granted
		}
	}
	outs, err := s.commit(ctx, commits)
	for i := range commits {
		claim := commits[i].Claim
		if claim == nil || err == nil && outs[i].Claimed.Queued {
			continue
		}
		s.waiters.leave(claim.Token)
		if err != nil {
			// What was claimed, if anything, nobody will hear of.
			s.abandonLater(ctx, commits[i].Key, claim.Token)
		}
	}
	if err != nil {
		return nil, s.translate(ctx, err, "commit", keysOf(commits)...)
	}
	return outs, nil
}

func (s *Store) commit(ctx context.Context, commits []storage.Commit) ([]storage.Outcome, error) {
	reply, err := s.run(ctx, commitScript, s.commitArgs(commits))
	if err != nil {
		return nil, err
	}
	outs := make([]storage.Outcome, len(commits))
	if numbers, ok := strings.CutPrefix(reply, "+"); ok {
		outs[0], err = decodeQuick(numbers, commits[0].Expect.ID)
		return outs, err
	}
	u := &unpacker{rest: reply}
	u.next()
	for i := range commits {
		var g granted
		if outs[i], g, err = decodeOutcome(u); err != nil {
			return nil, err
		}
		if outs[i].Claimed.Queued {
			s.waiters.queued(commits[i].Claim.Token, g)
		}
	}
	return outs, nil
}

func keysOf(commits []storage.Commit) []cart.Key {
	keys := make([]cart.Key, len(commits))
	for i := range commits {
		keys[i] = commits[i].Key
	}
	return keys
}

// commitArgs is the twin of read_commit in commit.lua.
func (s *Store) commitArgs(commits []storage.Commit) []any {
	var ns [2]names
	room, nkeys := 1, 4*len(commits)
	locks := s.space.cluster || len(commits) == 1
	for i := range commits {
		c := &commits[i]
		ns[i] = s.space.names(c.Key)
		room += 20 + 2*len(c.Parts) + 2*len(c.Expect.Parts) + 3*len(c.Writes)
		if locks {
			nkeys += len(c.Parts)
		}
	}
	args := append(make([]any, 0, 3+nkeys+room), "evalsha", commitScript.sha, nkeys)
	for i := range commits {
		args = append(args, ns[i].cart, ns[i].index, ns[i].queue, ns[i].lock)
	}
	for i := range commits {
		for _, p := range commits[i].Parts {
			if locks {
				args = append(args, ns[i].lockKey(p))
			}
		}
	}
	if len(commits) == 1 && isQuick(&commits[0]) {
		args = append(args, "q")
	} else {
		args = append(args, len(commits))
	}
	for i := range commits {
		args = s.appendCommit(args, &commits[i], ns[i].instance)
	}
	return args
}

func (s *Store) appendCommit(args []any, c *storage.Commit, instance string) []any {
	args = append(args, instance, c.Expect.ID, c.Expect.Version, c.NewID, c.Steps, millis(c.TTL), flags(c), c.Token)
	args = appendParts(args, c.Parts)
	args = append(args, len(c.Expect.Parts))
	first := len(args)
	for p := range c.Expect.Parts {
		args = append(args, versionField(p))
	}
	for _, field := range args[first:] {
		args = append(args, c.Expect.Parts[partOf(field.(string))])
	}
	args = append(args, len(c.Writes))
	for _, w := range c.Writes {
		step, value := int64(w.Step), w.Value
		if value == nil {
			step, value = -max(step, 1), []byte{}
		}
		args = append(args, string(w.Part), step, value)
	}
	if c.Claim == nil {
		return append(args, "")
	}
	return s.appendClaim(args, c.Claim)
}

// isQuick reports whether a commit is one that quick.lua can make.
func isQuick(c *storage.Commit) bool {
	if c.Expect.ID == "" || c.Steps == 0 || c.TTL <= 0 || c.Forget || c.Token != "" || slices.Contains(c.Parts, cart.PartAll) {
		return false
	}
	for p := range c.Expect.Parts {
		if p != cart.PartItems && p != cart.PartConditions {
			return false
		}
	}
	for _, w := range c.Writes {
		if w.Part != cart.PartItems && w.Part != cart.PartConditions {
			return false
		}
	}
	return true
}

// versionField is the field of a part's version; partOf is its inverse.
func versionField(p cart.Part) string {
	if p == cart.PartAll {
		return string(p)
	}
	return "v:" + string(p)
}

func partOf(field string) cart.Part { return cart.Part(strings.TrimPrefix(field, "v:")) }

func (s *Store) appendClaim(args []any, c *storage.Claim) []any {
	life := s.heartbeat * time.Duration(storage.WaiterLife/storage.Heartbeat)
	args = append(args, c.Token, c.Holder, millis(c.Lease), s.waiters.channel, millis(life))
	return appendParts(args, c.Parts)
}

func appendParts(args []any, parts []cart.Part) []any {
	args = append(args, len(parts))
	for _, p := range parts {
		args = append(args, string(p))
	}
	return args
}

func flags(c *storage.Commit) string {
	f := ""
	if c.Forget {
		f += "f"
	}
	if c.Touch {
		f += "t"
	}
	if c.Lease {
		f += "l"
	}
	if c.Release {
		f += "r"
	}
	return f
}

// millis rounds down, as far as a millisecond, which is the least.
func millis(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return max(d.Milliseconds(), 1)
}

// Atomic holds for any two carts, in a Cluster for those whose identifiers are of
// one slot.
func (s *Store) Atomic(a, b cart.Key) bool {
	return !s.space.cluster || a.Identifier == b.Identifier || slot(escape(a.Identifier)) == slot(escape(b.Identifier))
}

// Instances asks the index, and which of its carts are there still.
func (s *Store) Instances(ctx context.Context, identifier string) ([]string, error) {
	doing := "list carts of " + strconv.Quote(identifier)
	index, before := s.space.owner(identifier)
	reply, err := s.run(ctx, instancesScript, append(scriptArgs(instancesScript, 1, index), before))
	if err != nil {
		return nil, s.translate(ctx, err, doing)
	}
	u := &unpacker{rest: reply}
	list := u.texts()
	for i, component := range list {
		name, err := unescape(component)
		if err != nil {
			return nil, fmt.Errorf("redis: %s: %w: %w", doing, storage.ErrCorrupt, err)
		}
		list[i] = name
	}
	slices.Sort(list)
	return list, s.translate(ctx, u.err, doing)
}

// Flush looks at every key of every master once.
func (s *Store) Flush(ctx context.Context) error {
	var err error
	if c, ok := s.client.(*goredis.ClusterClient); ok {
		err = c.ForEachMaster(ctx, func(ctx context.Context, node *goredis.Client) error { return s.flushNode(ctx, node) })
	} else {
		err = s.flushNode(ctx, s.client)
	}
	return s.translate(ctx, err, "flush")
}

// flushNode lets the server sort out most keys by a pattern, which no character of a prefix can
// disturb, and then reads each exactly.
func (s *Store) flushNode(ctx context.Context, node goredis.Cmdable) error {
	const page = 1000
	var cursor uint64
	for {
		keys, next, err := node.Scan(ctx, cursor, "*"+s.space.prefix+".*", page).Result()
		if err != nil {
			return err
		}
		pipe := node.Pipeline() // one command per key: a node of a Cluster has many slots
		for _, k := range keys {
			if s.space.owns(k) {
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

// Ping runs a script that a replica, or a server that cannot write, refuses.
func (s *Store) Ping(ctx context.Context) error {
	reply, err := s.run(ctx, pingScript, scriptArgs(pingScript, 0, "fence."+s.space.prefix+".ping"))
	if err == nil && reply != "0" {
		err = fmt.Errorf("unexpected answer %q", reply)
	}
	return s.translate(ctx, err, "ping")
}

// Capabilities are those of Redis. Whether a change is on disk when it is acknowledged is the
// server's setting; Durable says that it does not depend on this process.
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

// begin notes a task that Close must wait for, which then calls s.tasks.Done; false after Close.
func (s *Store) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.tasks.Add(1)
	return true
}
