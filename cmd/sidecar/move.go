package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/open"
)

// tellEvery is how often a move reports its progress.
const tellEvery = 5 * time.Second

// runMove moves all carts and reports the result. Sidecars may serve meanwhile. Those that are configured with the same
// move share the work.
func runMove(ctx context.Context, args []string, env map[string]string, stdout, stderr io.Writer) int {
	l, code, ended := commandLine(args, env, "no flag of move", stdout, stderr)
	if ended {
		return code
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := l.load()
	if err == nil && c.MoveFrom == nil {
		err = config.Problems{{Path: "moveFrom", Message: "is missing: name the backend where the carts are now"}}
	}
	var store storage.Store
	if err == nil {
		store, err = open.Store(ctx, c)
	}
	if err != nil {
		lastWords(stderr, err)
		if _, wrong := errors.AsType[config.Problems](err); wrong {
			return exitUsage
		}
		return exitFailed
	}
	err = move(ctx, store, c, stdout)
	if e := store.Close(); err == nil {
		err = e
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "sidecar: %s\n", oneLine(err.Error()))
		return exitFailed
	}
	return exitOK
}

func move(ctx context.Context, store storage.Store, c *config.Config, stdout io.Writer) error {
	m, ok := storage.As[storage.Mover](store)
	if !ok {
		return fmt.Errorf("%w: these backends cannot move carts", storage.ErrUnsupported)
	}
	probe, cancel := context.WithTimeout(ctx, 2*probeTime(c))
	err := store.Ping(probe)
	cancel()
	if err != nil {
		return fmt.Errorf("a backend %s", trouble(err))
	}
	say := func(what string) {
		p := m.Progress()
		_, _ = fmt.Fprintf(stdout, "%s: %d carts carried from %s to %s, %d left\n", what, p.Carried, describe(&c.MoveFrom.Backend), describe(&c.Backend), p.Left)
	}
	type result struct {
		did bool
		err error
	}
	ended := make(chan result, 1)
	go func() {
		did, err := m.Finish(ctx)
		ended <- result{did, err}
	}()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			say("moving")
		case r := <-ended:
			switch {
			case r.err != nil && ctx.Err() != nil:
				say("stopped")
				return errors.New("stopped before the end: the same command goes on")
			case r.err != nil:
				say("ended")
				return r.err
			case !r.did:
				return errors.New("another process moves these carts: its status page says how far it is")
			}
			say("done")
			return nil
		}
	}
}
