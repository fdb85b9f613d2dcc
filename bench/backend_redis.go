package main

import (
	"time"

	"github.com/bsm/redislock"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/testserver"
)

var redisBackend = &backend{
	product: config.Product{Type: config.BackendRedis},
	start:   func(tb testserver.TB) string { return testserver.StartRedis(tb).Addr },
	flags:   func(place, _ string) []string { return redisFlags(place) },
	plain:   "redislock, 5 ms back-off",
	connect: connectRedis(lockBy(func() redislock.RetryStrategy { return redislock.LinearBackoff(5 * time.Millisecond) })),
}

func redisFlags(address string) []string {
	return []string{"--backend", "redis", "--redis-address", address}
}
