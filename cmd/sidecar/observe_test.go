package main

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/testserver"
)

// Two processes of a program read one cart, and then write it one after the other. The item that the first added is
// lost, and both ways of observing report that.
func TestObserve(t *testing.T) {
	redis := testserver.StartRedis(t)
	do := func(args ...string) {
		t.Helper()
		if _, err := redis.Do(args...); err != nil {
			t.Fatal(err)
		}
	}
	var told strings.Builder
	args := []string{"observe", "--backend", "redis", "--redis-address", redis.Addr, "--pattern", "shop:*", "--for", "1m"}
	if code := Run(t.Context(), args, nil, &told, &told); code != exitFailed || !strings.Contains(told.String(), "run CONFIG SET notify-keyspace-events K$gx") {
		t.Errorf("without events: %d\n%s", code, told.String())
	}
	do("CONFIG", "SET", "notify-keyspace-events", "K$gx")
	for _, how := range [][]string{nil, {"--poll", "10ms"}} {
		t.Run(strings.Join(how, " "), func(t *testing.T) {
			do("FLUSHALL")
			do("SET", "shop:1", `{"items":{"tea":1}}`)
			do("SET", "other:1", `x`)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r, w := io.Pipe()
			code := make(chan int, 1)
			go func() {
				code <- Run(ctx, append(args, how...), nil, w, w)
				_ = w.Close()
			}()
			var said []string
			lines := bufio.NewScanner(r)
			await := func(want string) {
				t.Helper()
				for lines.Scan() {
					said = append(said, lines.Text())
					if strings.Contains(lines.Text(), want) {
						return
					}
				}
				t.Fatalf("no %q in\n%s", want, strings.Join(said, "\n"))
			}
			await("nothing is written")
			// It is watching once it has seen one lost update. Until then, updates are lost one after another.
			found := make(chan struct{})
			written := make(chan struct{})
			go func() {
				defer close(written)
				for {
					for _, cart := range []string{`{"items":{"tea":1}}`, `{"items":{"tea":1,"mug":1}}`, `{"items":{"tea":1,"pot":1}}`} {
						_, _ = redis.Do("SET", "shop:1", cart)
						select {
						case <-found:
							return
						case <-time.After(50 * time.Millisecond): // which is long enough to be seen
						}
					}
				}
			}()
			await("shop:1: a write took back /items/mug, which the write before it had changed")
			close(found)
			<-written
			cancel()
			await("ended after")
			if last := said[len(said)-1]; !strings.Contains(last, "1 carts, ") || strings.Contains(last, " 0 of them lost") {
				t.Error(last)
			}
			if c := <-code; c != exitOK {
				t.Errorf("exit code %d", c)
			}
		})
	}
}

func TestObserveRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"--pattern is missing":      {"--backend", "redis", "--redis-address", "127.0.0.1:1"},
		"must be Redis for observe": {"--pattern", "x*"},
		"must not be negative":      {"--pattern", "x*", "--poll", "-1s"},
		`"shop" is no flag`:         {"--pattern", "x*", "shop"},
		"unknown flag: --patterns":  {"--patterns", "x*"},
		"redis.addresses":           {"--pattern", "x*", "--backend", "redis", "--redis-address", "nowhere"},
	} {
		var out strings.Builder
		if code := Run(t.Context(), append([]string{"observe"}, args...), nil, &out, &out); code != exitUsage || !strings.Contains(out.String(), want) {
			t.Errorf("%q: %d, want %q in\n%s", args, code, want, out.String())
		}
	}
}
