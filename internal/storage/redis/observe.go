package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// ErrNoEvents says that the server does not tell of written keys.
var ErrNoEvents = errors.New("the server does not tell of written keys: run CONFIG SET notify-keyspace-events K$gx, or observe by polling")

// Observer looks at the keys of another program. It writes nothing.
type Observer struct {
	// Pattern is that of the keys, as SCAN has it.
	Pattern string
	// Every is the pause between two looks at all keys. 0 has the server tell of every write instead (keyspace events).
	Every time.Duration
	// Found is told of each value that is there at the start. Saw is told of each that is written later, nil for none,
	// and Missed of each write whose value was replaced before it could be read. All are called from several
	// goroutines, one for each server of a Cluster.
	Found  func(key string, value []byte)
	Saw    func(key string, value []byte)
	Missed func(key string)
}

// Observe watches until ctx ends, which is no error, or the servers cannot be reached. Without [Observer.Every] it
// returns ErrNoEvents if the servers do not tell of writes.
func Observe(ctx context.Context, c Config, o Observer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	client := c.connect()
	defer func() { _ = client.Close() }()
	each := func(f func(ctx context.Context, node *goredis.Client) error) error {
		switch client := client.(type) {
		case *goredis.ClusterClient:
			return client.ForEachMaster(ctx, f) // at once
		case *goredis.Client:
			return f(ctx, client)
		}
		return fmt.Errorf("%T", client)
	}
	look := o.listen
	if o.Every > 0 {
		look = o.poll
	}
	err := each(look)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// listen reads each key of a server that the server says was written.
func (o *Observer) listen(ctx context.Context, node *goredis.Client) error {
	config, err := node.ConfigGet(ctx, "notify-keyspace-events").Result()
	if err != nil {
		return err
	}
	// K: by key. $: of strings, g: of DEL and the like, x: of keys that expire, A: of all.
	if flags := config["notify-keyspace-events"]; !strings.Contains(flags, "K") ||
		!strings.Contains(flags, "A") && !(strings.Contains(flags, "$") && strings.Contains(flags, "g") && strings.Contains(flags, "x")) {
		return ErrNoEvents
	}
	channel := fmt.Sprintf("__keyspace@%d__:", node.Options().DB)
	sub := node.PSubscribe(ctx, channel+o.Pattern)
	defer func() { _ = sub.Close() }()
	if _, err := sub.ReceiveTimeout(ctx, subscribeTimeout); err != nil {
		return err
	}
	// The first writes are compared with the values that are there already.
	if err := o.scan(ctx, node, map[string][]byte{}, o.Found); err != nil {
		return err
	}
	written := newBacklog()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer written.close()
	failed := make(chan error, 1)
	wg.Go(func() {
		for {
			key, more, ok := written.next()
			if !ok {
				return
			}
			for ; more > 1; more-- {
				o.Missed(key)
			}
			value, err := get(ctx, node, key)
			if err != nil {
				failed <- err
				return
			}
			o.Saw(key, value)
		}
	})
	messages := sub.Channel(goredis.WithChannelSize(10_000))
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case m, ok := <-messages:
			if !ok {
				return errors.New("the subscription has ended")
			}
			if writes(m.Payload) {
				written.add(strings.TrimPrefix(m.Channel, channel))
			}
		}
	}
}

// writes reports whether an event gives a key another value. A new expiry does not.
func writes(event string) bool {
	switch event {
	case "set", "setrange", "append", "del", "expired", "evicted", "rename_to", "rename_from", "incrby":
		return true
	}
	return false
}

// backlog holds the keys that were written and not read since, in their order, and how often each was written.
type backlog struct {
	mu     sync.Mutex
	some   sync.Cond
	order  []string
	times  map[string]int
	closed bool
}

func newBacklog() *backlog {
	b := &backlog{times: map[string]int{}}
	b.some.L = &b.mu
	return b
}

func (b *backlog) add(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.times[key]++; b.times[key] == 1 {
		b.order = append(b.order, key)
	}
	b.some.Signal()
}

// next waits for a key. ok is false once the backlog is closed.
func (b *backlog) next() (key string, times int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.order) == 0 && !b.closed {
		b.some.Wait()
	}
	if b.closed {
		return "", 0, false
	}
	key, b.order = b.order[0], b.order[1:]
	times = b.times[key]
	delete(b.times, key)
	return key, times, true
}

func (b *backlog) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.some.Broadcast()
}

// poll looks at all keys of a server again and again.
func (o *Observer) poll(ctx context.Context, node *goredis.Client) error {
	known := map[string][]byte{}
	if err := o.scan(ctx, node, known, o.Found); err != nil {
		return err
	}
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := o.scan(ctx, node, known, o.Saw); err != nil {
			return err
		}
	}
}

// scanned is how many keys a server is asked for at once.
const scanned = 500

// scan reads all keys, tells of those whose values differ from known, and updates known.
func (o *Observer) scan(ctx context.Context, node *goredis.Client, known map[string][]byte, tell func(string, []byte)) error {
	there := map[string]bool{}
	for cursor := uint64(0); ; {
		keys, next, err := node.ScanType(ctx, cursor, o.Pattern, scanned, "string").Result()
		if err != nil {
			return err
		}
		var gets []*goredis.StringCmd
		_, err = node.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for _, key := range keys {
				gets = append(gets, p.Get(ctx, key))
			}
			return nil
		})
		if err != nil && !errors.Is(err, goredis.Nil) {
			return err
		}
		for i, key := range keys {
			value, err := gets[i].Bytes()
			if err != nil { // it has gone since
				continue
			}
			there[key] = true
			if old, ok := known[key]; !ok || !bytes.Equal(old, value) {
				tell(key, value)
				known[key] = value
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	for key := range known {
		if !there[key] {
			tell(key, nil)
			delete(known, key)
		}
	}
	return nil
}

// get reads a key. It returns nil if there is none, or if it is not a string.
func get(ctx context.Context, node *goredis.Client, key string) ([]byte, error) {
	value, err := node.Get(ctx, key).Bytes()
	if errors.Is(err, goredis.Nil) || goredis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, nil
	}
	return value, err
}
