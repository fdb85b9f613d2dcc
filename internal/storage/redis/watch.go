package redis

import (
	"context"
	"errors"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Watcher = (*Store)(nil)

const (
	// interestLife is how long the key of a watch lasts that is not renewed, and interestRenewal how often it is.
	interestLife    = 30 * time.Second
	interestRenewal = interestLife / 3
	// settleTimeout bounds one round of subscribing and renewing.
	settleTimeout = 2 * time.Second
)

// watching is the carts that this process watches: who asks for them, and how it hears of their changes. That is by one
// subscription, or in a Cluster by one on each master that has such carts.
type watching struct {
	store   *Store
	watches storage.Watches
	wake    chan struct{}
	begin   sync.Once

	mu    sync.Mutex
	carts map[string]*watchedCart // by channel
	ears  map[string]*ear         // by the address of the server; "" for the only one
	// plain says that a Cluster has no shard channels.
	plain bool
	// rest is how long to wait before the next try to subscribe, and until is when that is over.
	rest  time.Duration
	until time.Time
}

// watchedCart is one cart that is watched.
type watchedCart struct {
	key   cart.Key
	names names
	ear   *ear // nil where it is not subscribed to
	// heard says that the server has confirmed the subscription, and known that writers know of it.
	heard, known bool
	renew        time.Time
}

func newWatching(s *Store) *watching {
	return &watching{store: s, wake: make(chan struct{}, 1), carts: map[string]*watchedCart{}, ears: map[string]*ear{}}
}

// Watch implements [storage.Watcher].
func (s *Store) Watch(key cart.Key, changed func()) (stop func()) {
	w, n := s.watching, s.space.names(key)
	w.mu.Lock()
	defer w.mu.Unlock()
	first, remove := w.watches.Add(key, changed)
	if first {
		w.carts[n.channel] = &watchedCart{key: key, names: n}
	}
	w.begin.Do(func() {
		if s.begin() {
			go w.run()
		}
	})
	w.kick()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if remove() {
			delete(w.carts, n.channel)
			w.kick()
		}
	}
}

// Hears implements [storage.Watcher].
func (s *Store) Hears(key cart.Key) bool {
	w := s.watching
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.carts[s.space.names(key).channel]
	return c != nil && c.heard && c.known
}

// Glance implements [storage.Watcher], in one round trip.
func (s *Store) Glance(ctx context.Context, keys []cart.Key) ([]storage.Glimpse, error) {
	pipe := s.client.Pipeline()
	answers := make([]*goredis.SliceCmd, len(keys))
	for i, key := range keys {
		answers[i] = pipe.HMGet(ctx, s.space.names(key).cart, "id", "version", "expires")
	}
	_, err := pipe.Exec(ctx)
	all := make([]storage.Glimpse, len(keys))
	good := len(keys) == 0
	for i, a := range answers {
		if a.Err() != nil {
			continue // a key that holds something else hides no other cart
		}
		good = true
		all[i] = glimpseOf(a.Val())
	}
	if !good {
		return nil, s.translate(ctx, err, "look at carts")
	}
	return all, nil
}

func glimpseOf(fields []any) (g storage.Glimpse) {
	text := func(i int) string {
		v, _ := fields[i].(string)
		return v
	}
	g.ID = text(0)
	g.Version, _ = strconv.ParseUint(text(1), 10, 64)
	if ends, _ := strconv.ParseInt(text(2), 10, 64); ends != 0 && g.ID != "" {
		// The sidecar's clock may differ: then it looks a little too early or too late.
		g.Left = max(time.Until(time.UnixMilli(ends)), 1)
	}
	return g
}

// kick has run look at once.
func (w *watching) kick() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// changedHere tells of a change that this process made and would not hear of.
func (w *watching) changedHere(key cart.Key) {
	if w.watches.Any() && !w.store.Hears(key) {
		w.watches.Tell(key)
	}
}

func (w *watching) changedAll() {
	for _, key := range w.watches.Keys() {
		w.watches.Tell(key)
	}
}

// run subscribes and renews for as long as the store is open.
func (w *watching) run() {
	defer w.store.tasks.Done()
	defer w.endAll()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-w.store.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-w.store.done:
			return
		case <-w.wake:
		case <-timer.C:
		}
		round, end := context.WithTimeout(ctx, settleTimeout)
		timer.Reset(w.settle(round))
		end()
	}
}

// settle brings subscriptions and watch keys in line with the carts that are watched, and returns how long to wait
// before the next time.
func (w *watching) settle(ctx context.Context) time.Duration {
	w.unsubscribe(ctx)
	now := time.Now()
	var fresh, due []*watchedCart
	w.mu.Lock()
	next := interestRenewal
	for _, c := range w.carts {
		if c.ear == nil {
			fresh = append(fresh, c)
		}
		if left := c.renew.Sub(now); left <= 0 {
			due = append(due, c)
		} else {
			next = min(next, left)
		}
	}
	rests := w.until.Sub(now)
	w.mu.Unlock()
	if rests <= 0 {
		w.subscribe(ctx, fresh)
	} else if len(fresh) > 0 {
		next = min(next, rests)
	}
	if !w.declare(ctx, due) {
		next = min(next, settleTimeout)
	}
	return next
}

// declare writes the keys by which writers know that somebody watches. It reports whether all could be written.
func (w *watching) declare(ctx context.Context, carts []*watchedCart) bool {
	if len(carts) == 0 {
		return true
	}
	w.mu.Lock()
	kind := "p"
	if w.sharded() {
		kind = "s"
	}
	w.mu.Unlock()
	pipe := w.store.client.Pipeline()
	answers := make([]*goredis.StatusCmd, len(carts))
	for i, c := range carts {
		answers[i] = pipe.Set(ctx, c.names.watch, kind+c.names.channel, interestLife)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	all, now := true, time.Now()
	for i, c := range carts {
		good := answers[i].Err() == nil
		all = all && good
		w.note(func() bool {
			was := c.heard && c.known
			c.known = good
			if good {
				c.renew = now.Add(interestRenewal)
			}
			return !was && c.heard && c.known
		}, c.key)
	}
	return all
}

// note changes what is known of a watch. If change says that the cart is heard of from now on, note tells of the cart.
func (w *watching) note(change func() bool, key cart.Key) {
	w.mu.Lock()
	begins := change()
	w.mu.Unlock()
	if begins {
		w.watches.Tell(key)
	}
}

// sharded reports whether channels are those of shards. The caller holds the mutex.
func (w *watching) sharded() bool { return w.store.space.cluster && !w.plain }

// ear is the subscription on one server.
type ear struct {
	sub      *goredis.PubSub
	sharded  bool
	channels map[string]bool // guarded by the mutex of watching
}

// subscribe subscribes to the channels of carts, each on its server.
func (w *watching) subscribe(ctx context.Context, carts []*watchedCart) {
	type server struct {
		client   goredis.UniversalClient
		channels []string
	}
	servers := map[string]*server{}
	for _, c := range carts {
		addr, client := "", w.store.client
		if cluster, ok := client.(*goredis.ClusterClient); ok {
			node, err := cluster.MasterForKey(ctx, c.names.channel)
			if err != nil {
				w.tryLater(err)
				return
			}
			addr, client = node.Options().Addr, node
		}
		if servers[addr] == nil {
			servers[addr] = &server{client: client}
		}
		servers[addr].channels = append(servers[addr].channels, c.names.channel)
	}
	for addr, server := range servers {
		w.mu.Lock()
		e, isNew := w.ears[addr], false
		if e == nil {
			e, isNew = &ear{sub: server.client.Subscribe(ctx), sharded: w.sharded(), channels: map[string]bool{}}, true
			w.ears[addr] = e
		}
		for _, channel := range server.channels {
			e.channels[channel] = true
			if c := w.carts[channel]; c != nil {
				c.ear, c.heard = e, false
			}
		}
		w.mu.Unlock()
		err := e.subscribe(ctx, server.channels)
		if isNew && w.store.begin() {
			go w.hear(e)
		}
		if err != nil {
			w.lose(e, err)
		}
	}
}

// subscribe asks the server. It confirms each channel by a message.
func (e *ear) subscribe(ctx context.Context, channels []string) error {
	if !e.sharded {
		return e.sub.Subscribe(ctx, channels...)
	}
	for _, channel := range channels { // one command may name channels of one slot only
		if err := e.sub.SSubscribe(ctx, channel); err != nil {
			return err
		}
	}
	return nil
}

// unsubscribe leaves the channels of carts that are no longer watched.
func (w *watching) unsubscribe(ctx context.Context) {
	w.mu.Lock()
	ears := maps.Clone(w.ears)
	w.mu.Unlock()
	for _, e := range ears {
		var gone []string
		w.mu.Lock()
		for channel := range e.channels {
			if c := w.carts[channel]; c == nil || c.ear != e {
				gone = append(gone, channel)
				delete(e.channels, channel)
			}
		}
		w.mu.Unlock()
		for _, channel := range gone {
			leave := e.sub.Unsubscribe
			if e.sharded {
				leave = e.sub.SUnsubscribe
			}
			if err := leave(ctx, channel); err != nil {
				w.lose(e, err)
				break
			}
		}
	}
}

// hearLimit is how long a subscription may be silent before its connection is tried.
const hearLimit = 3 * time.Second

// hear handles the messages of a subscription, until it breaks or the store is closed.
func (w *watching) hear(e *ear) {
	defer w.store.tasks.Done()
	ctx := context.Background()
	tried := false
	for {
		message, err := e.sub.ReceiveTimeout(ctx, hearLimit)
		if isTimeout(err) && !tried {
			tried = true
			err = e.sub.Ping(ctx)
			if err == nil {
				continue
			}
		}
		if err != nil {
			w.lose(e, err)
			return
		}
		tried = false
		switch m := message.(type) {
		case *goredis.Subscription:
			w.confirm(e, m)
		case *goredis.Message:
			w.mu.Lock()
			c := w.carts[m.Channel]
			w.mu.Unlock()
			if c != nil {
				w.watches.Tell(c.key)
			}
		}
	}
}

// confirm handles the server's message that it has made or ended a subscription. The server ends that of a shard
// channel when the slot moves to another server.
func (w *watching) confirm(e *ear, m *goredis.Subscription) {
	w.mu.Lock()
	c := w.carts[m.Channel]
	w.mu.Unlock()
	if c == nil {
		return
	}
	w.note(func() bool {
		if c.ear != e {
			return false
		}
		was := c.heard && c.known
		if strings.HasSuffix(m.Kind, "unsubscribe") {
			if e.channels[m.Channel] {
				delete(e.channels, m.Channel)
				c.ear, c.heard = nil, false
				w.kick()
			}
			return false
		}
		w.rest = 0
		c.heard = true
		return !was && c.known
	}, c.key)
}

const (
	leastRest = 100 * time.Millisecond
	mostRest  = 2 * time.Second
	// refusedRest is how long to rest if the server does not let the sidecar subscribe.
	refusedRest = time.Minute
)

// lose gives up a subscription that broke. Its carts are subscribed to anew, after a rest.
func (w *watching) lose(e *ear, err error) {
	w.mu.Lock()
	lost := false
	for addr, other := range w.ears {
		if other == e {
			delete(w.ears, addr)
			lost = true
		}
	}
	for _, c := range w.carts {
		if c.ear == e {
			c.ear, c.heard = nil, false
		}
	}
	w.mu.Unlock()
	if lost {
		_ = e.sub.Close()
		w.tryLater(err)
	}
}

// tryLater decides when to subscribe again.
func (w *watching) tryLater(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = min(max(2*w.rest, leastRest), mostRest)
	rest := jitter(w.rest/2, w.rest)
	switch words := replyOf(err); {
	case words == "":
	case strings.HasPrefix(words, "MOVED"), strings.HasPrefix(words, "CROSSSLOT"), strings.HasPrefix(words, "CLUSTERDOWN"):
		if c, ok := w.store.client.(*goredis.ClusterClient); ok {
			c.ReloadState(context.Background())
		}
	case w.sharded() && strings.Contains(words, "unknown command"):
		w.plain, rest = true, 0
		for _, c := range w.carts {
			c.known, c.renew = false, time.Time{}
		}
	default:
		rest = refusedRest
	}
	w.until = time.Now().Add(rest)
	w.kick()
}

// endAll ends all subscriptions.
func (w *watching) endAll() {
	w.mu.Lock()
	ears := w.ears
	w.ears = map[string]*ear{}
	w.mu.Unlock()
	for _, e := range ears {
		_ = e.sub.Close()
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
