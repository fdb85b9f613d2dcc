package main

import (
	"time"

	"github.com/bsm/redislock"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/testserver"
)

var redisBackend = &backend{
	product: config.Product{Type: config.BackendRedis},
	start: func(tb testserver.TB) server {
		r := testserver.StartRedis(tb)
		return server{place: r.Addr, pause: r.Pause, resume: r.Resume}
	},
	durable: func(tb testserver.TB) server {
		r := testserver.StartRedis(tb, testserver.WithAOF())
		return server{place: r.Addr, pause: r.Pause, resume: r.Resume, restart: func() { r.Kill(); r.Restart() }}
	},
	flags:   func(place, _ string) []string { return redisFlags(place) },
	plain:   "redislock, 5 ms back-off",
	connect: connectRedis(lockBy(func() redislock.RetryStrategy { return redislock.LinearBackoff(5 * time.Millisecond) })),
}

func redisFlags(address string) []string {
	return []string{"--backend", "redis", "--redis-address", address}
}
