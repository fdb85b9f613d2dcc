package redis

import (
	"context"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Counter = (*Store)(nil)

// Count walks the keys of every master, as Flush does, until there are most or ctx ends.
func (s *Store) Count(ctx context.Context, most int) (int, bool, error) {
	c := &counting{most: most}
	var err error
	if cluster, ok := s.client.(*goredis.ClusterClient); ok {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *goredis.Client) error { return s.countNode(ctx, node, c) })
	} else {
		err = s.countNode(ctx, s.client, c)
	}
	n := min(c.n, most)
	if c.n > most || n > 0 && over(ctx) {
		return n, true, nil
	}
	if err != nil {
		return 0, false, s.translate(ctx, err, "count carts")
	}
	return n, false, nil
}

// over reports whether the time of ctx is up. It allows for the socket's deadline, which may fire a moment before that
// of ctx.
func over(ctx context.Context) bool {
	deadline, bounded := ctx.Deadline()
	return ctx.Err() != nil || bounded && !time.Now().Before(deadline)
}

// counting is one count, which the masters of a Cluster share.
type counting struct {
	most int
	mu   sync.Mutex
	n    int
}

// add reports whether there is room for more.
func (c *counting) add(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
	return c.n <= c.most
}

// countNode may see a key twice while the server grows its table, so that a count under load may be a few too high.
func (s *Store) countNode(ctx context.Context, node goredis.Cmdable, c *counting) error {
	const page = 1000
	before := s.space.namespace + s.space.prefix + "."
	for cursor := uint64(0); ; {
		keys, next, err := node.Scan(ctx, cursor, globSigns.Replace(before)+"*", page).Result()
		if err != nil {
			return err
		}
		n := 0
		for _, k := range keys {
			if rest, ok := strings.CutPrefix(k, before); ok && s.space.reads("cart", rest) && !strings.HasSuffix(rest, "."+reservedComponent) {
				n++
			}
		}
		if cursor = next; !c.add(n) || cursor == 0 {
			return nil
		}
	}
}
