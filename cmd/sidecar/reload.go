package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
)

// States of the newest configuration, as the status page shows them.
const (
	stateAccepted = "Accepted"
	stateRejected = "ConfigRejected"
)

// pollEvery is how often files are checked without an event. It is also how often a new backend is tried again if it
// did not answer when it was to replace the present one.
var pollEvery = 15 * time.Second

// reloads takes over changes of the configuration until ctx ends.
func (s *sidecar) reloads(ctx context.Context, hangup <-chan struct{}) {
	s.greet(ctx)
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			asked = true
		case <-s.files.changed:
		case <-poll.C:
		}
		s.reload(ctx, asked)
	}
}

// greet logs at the start if the backend does not answer. The sidecar is not ready then, and nothing else would say
// why.
func (s *sidecar) greet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTime(s.config))
	defer cancel()
	if err := s.stores.carts.Ping(ctx); err != nil && ctx.Err() != context.Canceled {
		if words, refused := storage.RefusalOf(err); refused {
			s.log.Warn("backend refuses changes, ready when it takes them", "backend", describe(&s.config.Backend), "error", words)
			return
		}
		s.log.Warn("backend does not answer yet, ready when it does", "backend", describe(&s.config.Backend), "error", err)
	}
}

// trouble says what is wrong with a backend that fails its probe.
func trouble(err error) string {
	if words, refused := storage.RefusalOf(err); refused {
		return "refuses changes: " + words
	}
	return "does not answer: " + err.Error()
}

// probeTime is how long a backend may take for its first sign of life.
func probeTime(c *config.Config) time.Duration {
	return (c.Timeouts.Dial + c.Timeouts.Write + c.Timeouts.Read).Std()
}

// reload reads the configuration and, if it differs from the one that runs, takes it over, whole or not at all. Asked
// says that a person asked for it, so that every result is logged.
func (s *sidecar) reload(ctx context.Context, asked bool) {
	c, err := s.layers.load()
	if err != nil {
		s.reject(err, goesOn, asked)
		return
	}
	s.files.follow(append(s.watched(c), s.watched(s.config)...))
	same := identitiesOf(c) == s.stores.identities
	switch {
	case same && reflect.DeepEqual(c, s.config):
		if asked && s.rejected == "" {
			s.log.Info("configuration is unchanged", "generation", c.Generation)
		}
		s.accept()
	case needsRestart(s.config, c) != nil:
		s.reject(needsRestart(s.config, c), goesOn, asked)
	case same:
		s.adjust(c)
	default:
		if err := s.replace(ctx, c); err != nil && ctx.Err() == nil { // if ctx has ended, the sidecar is stopping
			s.reject(err, goesOn, asked)
		}
	}
}

// goesOn says what a sidecar does whose newest configuration is rejected.
const goesOn = "configuration rejected, the last good one goes on"

// reject keeps the running configuration, and says why the newest one is refused.
func (s *sidecar) reject(err error, consequence string, asked bool) {
	message := err.Error()
	s.server.SetConfig(stateRejected, message)
	if message != s.rejected || asked {
		s.log.Error(consequence, "generation", s.config.Generation, "problems", message)
	}
	s.rejected = message
}

// accept says that the newest configuration is the one that runs.
func (s *sidecar) accept() {
	s.server.SetConfig(stateAccepted, "")
	if s.rejected != "" {
		s.log.Info("configuration is good again", "generation", s.config.Generation)
	}
	s.rejected = ""
}

// needsRestart returns the changes that a running process cannot take over.
func needsRestart(old, c *config.Config) error {
	var p config.Problems
	for _, f := range []struct{ path, was, is string }{
		{"listen.grpc", old.Listen.GRPC, c.Listen.GRPC},
		{"listen.http", old.Listen.HTTP, c.Listen.HTTP},
		{"listen.admin", old.Listen.Admin, c.Listen.Admin},
		{"listen.socket", old.Listen.Socket, c.Listen.Socket},
	} {
		if f.was != f.is {
			p = append(p, config.Problem{Path: f.path, Message: fmt.Sprintf("changed from %q to %q, which needs a restart", f.was, f.is)})
		}
	}
	return p.Err()
}

// adjust takes over settings and keeps the backend open.
func (s *sidecar) adjust(c *config.Config) {
	s.coordinator.Update(s.options(c, s.stores.carts))
	s.server.Swap(s.backend(c, s.stores, s.coordinator))
	s.took(c, "settings")
}

// replace opens the new backend beside the old one, asks it for a sign of life, and hands new calls to it. The old one
// is closed when its last call has ended. Of a backend for carts and one for checkouts, one may stay.
func (s *sidecar) replace(ctx context.Context, c *config.Config) error {
	opened, err := openStores(ctx, c, s.stores, true)
	if err != nil {
		return err
	}
	coordinator := s.coordinate(c, opened)
	retired := s.server.Swap(s.backend(c, opened, coordinator))
	s.drain(retired.Wait, s.coordinator, s.stores, opened, s.config)
	if opened.carts != s.stores.carts {
		startMove(opened.carts)
		if s.config.Backend.Type == config.BackendMemory {
			s.log.Warn("carts of the previous backend are gone, since it kept them in this process")
		}
	}
	s.stores, s.coordinator = opened, coordinator
	s.took(c, "backend")
	s.warn(c)
	return nil
}

// drain closes the stores that were replaced and are not kept, once no call uses them any more.
func (s *sidecar) drain(wait func(context.Context) error, coordinator *lock.Coordinator, replaced, kept stores, old *config.Config) {
	s.drains.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), min(old.Timeouts.Request.Std()+stopMargin, longestStop))
		defer cancel()
		err := wait(ctx)
		if err == nil {
			err = coordinator.Close(ctx)
		}
		if err != nil {
			s.log.Warn("calls on the previous backend are cut off", "backend", describe(&old.Backend), "error", err)
		}
		if err := replaced.close(kept); err != nil {
			s.log.Warn("the previous backend did not close cleanly", "backend", describe(&old.Backend), "error", err)
		}
	})
}

// took makes c the configuration that runs.
func (s *sidecar) took(c *config.Config, what string) {
	s.config = c
	s.style.set(c)
	s.accept()
	st := s.coordinator.Status()
	s.log.Info("configuration taken over", "changed", what, "generation", c.Generation,
		"backend", describe(&c.Backend), "checkouts", checkoutsIn(c), "locking", st.Locking, "mode", c.Locking.Mode, "reason", st.Reason)
}

func (s *sidecar) watched(c *config.Config) []string { return s.layers.watched(c) }

// watched returns the files that c depends on.
func (l *layers) watched(c *config.Config) []string {
	var files []string
	if l.file != "" {
		files = append(files, l.file)
	}
	for _, file := range c.SecretFiles() {
		files = append(files, file)
	}
	slices.Sort(files)
	return slices.Compact(files)
}
