package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/observe"
	"github.com/sidecart/sidecart/internal/storage/open"
	"github.com/sidecart/sidecart/internal/storage/redis"
)

// maxToldLosses is how many lost updates are reported one by one.
const maxToldLosses = 10

// runObserve counts the updates that another program loses in a Redis. It writes nothing there.
func runObserve(ctx context.Context, args []string, env map[string]string, stdout, stderr io.Writer) int {
	var (
		pattern      string
		every, until time.Duration
	)
	l, code, ended := commandLine(args, env, "no flag of observe", stdout, stderr, func(flags *pflag.FlagSet) {
		flags.StringVar(&pattern, "pattern", "", "")
		flags.DurationVar(&every, "poll", 0, "")
		flags.DurationVar(&until, "for", 0, "")
	})
	switch {
	case ended:
		return code
	case pattern == "":
		return usage(stderr, "observe: --pattern is missing: name the keys of the carts, such as 'cart:*'")
	case every < 0 || until < 0:
		return usage(stderr, "observe: --poll and --for must not be negative")
	}
	c, err := l.load()
	if err == nil && c.Backend.Type != config.BackendRedis {
		err = config.Problems{{Path: "backend.type", Message: "must be Redis for observe, such as --backend redis --redis-address 127.0.0.1:6379"}}
	}
	var rc redis.Config
	if err == nil {
		rc, err = open.RedisConfig(c)
	}
	if err != nil {
		lastWords(stderr, err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if until > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, until)
		defer cancel()
	}
	if err := observeRedis(ctx, rc, pattern, every, stdout); err != nil {
		_, _ = fmt.Fprintf(stderr, "sidecar: %s\n", oneLine(err.Error()))
		return exitFailed
	}
	return exitOK
}

func observeRedis(ctx context.Context, rc redis.Config, pattern string, every time.Duration, stdout io.Writer) error {
	var (
		mu       sync.Mutex // of stdout
		detector observe.Detector
		losses   int
	)
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintf(stdout, format+"\n", args...)
	}
	how := "by keyspace events"
	if every > 0 {
		how = fmt.Sprintf("by a look every %s", every)
	}
	say("observing %s in Redis %s %s; nothing is written", pattern, strings.Join(rc.Addresses, ","), how)
	start := time.Now()
	ended := make(chan error, 1)
	go func() {
		ended <- redis.Observe(ctx, rc, redis.Observer{
			Pattern: pattern, Every: every, Found: detector.Found,
			Saw: func(key string, value []byte) {
				loss := detector.Saw(key, value)
				if loss == nil {
					return
				}
				mu.Lock()
				losses++
				told := losses <= maxToldLosses
				mu.Unlock()
				if told {
					say("%s: a write took back %s%s, which the write before it had changed", loss.Cart, loss.Gone, andMore(loss.More))
				}
			},
			Missed: func(string) { detector.Missed(1) },
		})
	}()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	tell := func(what string) {
		c := detector.Counts()
		say("%s after %s: %s", what, time.Since(start).Round(time.Second), countsOf(c))
	}
	for {
		select {
		case <-tick.C:
			tell("seen")
		case err := <-ended:
			if err == nil || detector.Counts().Writes > 0 {
				tell("ended")
			}
			return err
		}
	}
}

func andMore(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// countsOf returns a line with the counts.
func countsOf(c observe.Counts) string {
	line := fmt.Sprintf("%d carts, %d writes, %d of them lost an update", c.Carts, c.Writes, c.Lost)
	if judged := c.Writes - c.Missed; judged > 0 {
		line += fmt.Sprintf(" (%.1f %% of the %d that were read)", 100*float64(c.Lost)/float64(judged), judged)
	}
	for _, more := range []struct {
		n    uint64
		what string
	}{
		{c.Repeated, "wrote what was there already"},
		{c.Missed, "were replaced before they could be read"},
		{c.Opaque, "are neither JSON nor PHP's format"},
	} {
		if more.n > 0 {
			line += fmt.Sprintf(", %d %s", more.n, more.what)
		}
	}
	return line
}
