package main

import (
	"context"
	"errors"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/testserver"
)

var memcachedBackend = &backend{
	product: config.Product{Type: config.BackendMemcached},
	start: func(tb testserver.TB) server {
		m := testserver.StartMemcached(tb)
		return server{place: m.Addr, pause: m.Pause, resume: m.Resume}
	},
	flags: func(place, _ string) []string {
		return []string{"--backend", "memcached", "--memcached-address", place}
	},
	plain: "gets and cas", connect: connectMemcached, hot: 1.5,
}

// memcachedClient is an application that keeps its carts in Memcached by itself: it stores a cart only if that is still
// the one it has read.
type memcachedClient struct{ *memcache.Client }

func connectMemcached(place string) (client, error) {
	c := memcache.New(place)
	c.Timeout = 5 * time.Second
	return memcachedClient{c}, nil
}

func (c memcachedClient) AddItem(ctx context.Context, key, id string) error {
	return optimistic(ctx, func() (bool, error) {
		stored, err := c.Get("plain." + key)
		fresh := errors.Is(err, memcache.ErrCacheMiss)
		switch {
		case fresh:
			stored = &memcache.Item{Key: "plain." + key, Expiration: int32(cartTTL.Seconds())}
		case err != nil:
			return false, err
		}
		if stored.Value, err = withItem(stored.Value, id); err != nil {
			return false, err
		}
		if fresh {
			err = c.Add(stored)
		} else {
			err = c.CompareAndSwap(stored)
		}
		if errors.Is(err, memcache.ErrCASConflict) || errors.Is(err, memcache.ErrNotStored) || errors.Is(err, memcache.ErrCacheMiss) {
			return false, nil
		}
		return err == nil, err
	})
}

func (c memcachedClient) Quantity(_ context.Context, key string) (int64, error) {
	stored, err := c.Get("plain." + key)
	if errors.Is(err, memcache.ErrCacheMiss) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return quantityIn(stored.Value)
}
