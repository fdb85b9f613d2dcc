package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Walker = (*Store)(nil)

// Page is one SCAN. In a Cluster it walks one master after the other. A cart is on no page if its slot moves during the
// walk from a later master to one that was walked already.
func (s *Store) Page(ctx context.Context, after string, limit int) ([]cart.Key, string, error) {
	keys, next, err := s.page(ctx, after, limit)
	return keys, next, s.translate(ctx, err, "walk")
}

func (s *Store) page(ctx context.Context, after string, limit int) (keys []cart.Key, next string, err error) {
	place, cursor := "", uint64(0)
	if after != "" {
		if _, err := fmt.Sscanf(after, "%d@%s", &cursor, &place); err != nil {
			return nil, "", fmt.Errorf("%w: %q is no place to go on from", storage.ErrUnsupported, after)
		}
	}
	node, name, others, err := s.masterAfter(ctx, place)
	if err != nil || node == nil {
		return nil, "", err
	}
	if name != place {
		cursor = 0 // the master has gone, and its carts are on others
	}
	before := s.space.namespace + s.space.prefix + "."
	found, cursor, err := node.Scan(ctx, cursor, globSigns.Replace(before)+"*", int64(limit)).Result()
	if err != nil {
		return nil, "", err
	}
	for _, k := range found {
		rest, ok := strings.CutPrefix(k, before)
		if !ok || !s.space.reads("cart", rest) {
			continue
		}
		identifier, instance, _ := strings.Cut(rest, ".")
		if s.space.cluster {
			identifier = strings.TrimSuffix(strings.TrimPrefix(identifier, "{"), "}")
		}
		key := cart.Key{}
		if key.Identifier, err = unescape(identifier); err == nil {
			key.Instance, err = unescape(instance)
		}
		if err != nil {
			return nil, "", err
		}
		keys = append(keys, key)
	}
	switch {
	case cursor != 0:
		next = fmt.Sprintf("%d@%s", cursor, name)
	case len(others) > 0:
		next = "0@" + others[0]
	}
	return keys, next, nil
}

// masterAfter returns the server at place, or the next one in the order of addresses, and the addresses of those after
// it. "" is the place before the first. After the last there is none.
func (s *Store) masterAfter(ctx context.Context, place string) (node goredis.Cmdable, name string, others []string, err error) {
	cluster, ok := s.client.(*goredis.ClusterClient)
	if !ok {
		return s.client, "server", nil, nil
	}
	var mu sync.Mutex
	nodes := map[string]*goredis.Client{}
	err = cluster.ForEachMaster(ctx, func(_ context.Context, node *goredis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		if addr := node.Options().Addr; addr >= place {
			nodes[addr] = node
			others = append(others, addr)
		}
		return nil
	})
	if err != nil {
		return nil, "", nil, err
	}
	if slices.Sort(others); len(others) == 0 {
		return nil, "", nil, nil
	}
	return nodes[others[0]], others[0], others[1:], nil
}
