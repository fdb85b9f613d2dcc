package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	sidecartv1 "github.com/sidecart/sidecart/proto/sidecart/v1"
)

const (
	itemID   = "sku-1"
	instance = "default"
	cartTTL  = 24 * time.Hour
	lockTTL  = 5 * time.Second
)

// client adds one piece of an item to a cart, and says how many of all items are there.
type client interface {
	AddItem(ctx context.Context, key, id string) error
	Quantity(ctx context.Context, key string) (int64, error)
	Close() error
}

// way is one row of the tables.
type way struct {
	name    string
	connect func(target string) (client, error)
	// locking is the --locking of the sidecars of this way; "" if it has none.
	locking string
}

const (
	waySimple      = "sidecar, simple mode"
	wayLocked      = "sidecar, locked mode"
	wayUnlocked    = "no sidecar, no lock"
	wayLinear      = "no sidecar, redislock, 5 ms back-off"
	wayExponential = "no sidecar, redislock, exponential back-off"
	wayRueidis     = "no sidecar, rueidislock"
)

var ways = []way{
	{name: waySimple, connect: connectSidecar, locking: "disabled"},
	{name: wayLocked, connect: connectSidecar, locking: "enabled"},
	{name: wayUnlocked, connect: connectRedis(nil)},
	{name: wayLinear, connect: connectRedis(lockBy(func() redislock.RetryStrategy { return redislock.LinearBackoff(5 * time.Millisecond) }))},
	// It waits 4, 8, 16 ms and so on; the bound keeps a loser from sleeping through the round.
	{name: wayExponential, connect: connectRedis(lockBy(func() redislock.RetryStrategy {
		return redislock.ExponentialBackoff(time.Millisecond, 100*time.Millisecond)
	}))},
}

// crowdWay is one more way that only the crowd uses: Redis tells it of a release, and the waiters of a process queue in
// the process.
var crowdWay = way{name: wayRueidis, connect: connectRedis(lockByRueidis)}

func wayCalled(name string) (*way, bool) {
	for i := range ways {
		if ways[i].name == name {
			return &ways[i], true
		}
	}
	if name == crowdWay.name {
		return &crowdWay, true
	}
	return backendWay(name)
}

func (w *way) viaSidecar() bool { return w.locking != "" }

// sidecarClient is an application with a sidecar.
type sidecarClient struct {
	conn  *grpc.ClientConn
	carts sidecartv1.CartServiceClient
}

func connectSidecar(target string) (client, error) {
	conn, err := grpc.NewClient("passthrough:///"+target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &sidecarClient{conn, sidecartv1.NewCartServiceClient(conn)}, nil
}

func mug(id string) []byte {
	return []byte(`{"id":"` + id + `","name":"Mug","price":1999,"quantity":1,"attributes":{"color":"red"}}`)
}

func (c *sidecarClient) AddItem(ctx context.Context, key, id string) error {
	_, err := c.carts.AddItem(ctx, &sidecartv1.AddItemRequest{Identifier: key, Instance: instance, Item: mug(id)}, grpc.WaitForReady(true))
	return err
}

func (c *sidecarClient) Quantity(ctx context.Context, key string) (int64, error) {
	d, err := c.carts.GetItems(ctx, &sidecartv1.GetItemsRequest{Identifier: key, Instance: instance})
	if err != nil {
		return 0, err
	}
	return quantityIn(d.GetItems())
}

func (c *sidecarClient) Close() error { return c.conn.Close() }

// redisClient is an application that keeps its carts in Redis by itself: it reads the cart, changes it and writes it
// back, under a lock or not.
type redisClient struct {
	redis *redis.Client
	lock  lock // nil for none
	close func()
}

// lock takes a lock and returns a function that gives it back.
type lock func(ctx context.Context, name string) (release func(context.Context) error, err error)

// connectRedis makes a client that locks by what locking returns for the address of a Redis and its client; nil is no
// lock.
func connectRedis(locking func(target string, r *redis.Client) (by lock, done func(), err error)) func(string) (client, error) {
	return func(target string) (client, error) {
		c := &redisClient{redis: redis.NewClient(&redis.Options{Addr: target}), close: func() {}}
		if locking == nil {
			return c, nil
		}
		var err error
		if c.lock, c.close, err = locking(target, c.redis); err != nil {
			return nil, errors.Join(err, c.redis.Close())
		}
		return c, nil
	}
}

func lockBy(retry func() redislock.RetryStrategy) func(string, *redis.Client) (lock, func(), error) {
	return func(_ string, r *redis.Client) (lock, func(), error) {
		locks := redislock.New(r)
		return func(ctx context.Context, name string) (func(context.Context) error, error) {
			l, err := locks.Obtain(ctx, name, lockTTL, &redislock.Options{RetryStrategy: retry()})
			if err != nil {
				return nil, err
			}
			return l.Release, nil
		}, func() {}, nil
	}
}

// lockByRueidis is rueidislock as it is with one Redis. It renews its locks, which costs nothing here.
func lockByRueidis(target string, _ *redis.Client) (lock, func(), error) {
	locks, err := rueidislock.NewLocker(rueidislock.LockerOption{
		ClientOption:   rueidis.ClientOption{InitAddress: []string{target}},
		KeyMajority:    1,
		KeyValidity:    lockTTL,
		NoLoopTracking: true,
	})
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, name string) (func(context.Context) error, error) {
		_, cancel, err := locks.WithContext(ctx, name)
		return func(context.Context) error { cancel(); return nil }, err
	}, locks.Close, nil
}

type item struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Price      int64          `json:"price"`
	Quantity   int64          `json:"quantity"`
	Attributes map[string]any `json:"attributes"`
}

func (c *redisClient) AddItem(ctx context.Context, key, id string) (err error) {
	if c.lock != nil {
		release, lockErr := c.lock(ctx, "bench-lock."+key)
		if lockErr != nil {
			return lockErr
		}
		defer func() { err = errors.Join(err, release(ctx)) }()
	}
	raw, err := c.get(ctx, key)
	if err != nil {
		return err
	}
	if raw, err = withItem(raw, id); err != nil {
		return err
	}
	return c.redis.Set(ctx, "bench-cart."+key, raw, cartTTL).Err()
}

// get returns the document of a cart, nil if there is none.
func (c *redisClient) get(ctx context.Context, key string) ([]byte, error) {
	raw, err := c.redis.Get(ctx, "bench-cart."+key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return raw, err
}

func (c *redisClient) Quantity(ctx context.Context, key string) (int64, error) {
	raw, err := c.get(ctx, key)
	if err != nil {
		return 0, err
	}
	return quantityIn(raw)
}

func (c *redisClient) Close() error {
	c.close()
	return c.redis.Close()
}

// withItem is a document with one piece more of an item; nil is an empty one.
func withItem(document []byte, id string) ([]byte, error) {
	items := map[string]item{}
	if document != nil {
		if err := json.Unmarshal(document, &items); err != nil {
			return nil, err
		}
	}
	it, ok := items[id]
	if !ok {
		if err := json.Unmarshal(mug(id), &it); err != nil {
			return nil, err
		}
		it.Quantity = 0
	}
	it.Quantity++
	items[id] = it
	return json.Marshal(items)
}

// quantityIn is how many pieces are in a document; nil is an empty one.
func quantityIn(document []byte) (n int64, err error) {
	if document == nil {
		return 0, nil
	}
	var items map[string]item
	if err := json.Unmarshal(document, &items); err != nil {
		return 0, fmt.Errorf("items of the cart: %w", err)
	}
	for _, it := range items {
		n += it.Quantity
	}
	return n, nil
}
