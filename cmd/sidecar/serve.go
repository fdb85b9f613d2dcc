package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/proxy"
	"github.com/sidecart/sidecart/internal/storage"
)

// sidecar is a sidecar that serves. Its configuration, and everything made from it, belong to the goroutine that
// reloads.
type sidecar struct {
	layers *layers
	log    *slog.Logger
	style  *style
	holder string
	memory int64 // what the process may use
	files  *watcher
	server *proxy.Server

	config      *config.Config
	stores      stores
	coordinator *lock.Coordinator
	rejected    string // what is wrong with the newest configuration, "" if it runs

	drains sync.WaitGroup // backends that were replaced and still have calls
}

// serve runs until a signal or the end of ctx, and returns the exit code.
func serve(ctx context.Context, l *layers, signals <-chan os.Signal, stderr io.Writer) int {
	memory := tuneMemory(l.env)
	f, err := l.first(ctx)
	s := &sidecar{layers: l, style: new(style), holder: storage.ProcessName(), memory: memory}
	s.log = newLogger(stderr, s.style)
	if err == nil {
		s.style.set(f.config)
		l.warnVariables(s.log)
		err = s.start(f)
	}
	if err != nil {
		lastWords(stderr, err)
		if _, wrong := errors.AsType[config.Problems](err); wrong {
			return exitUsage
		}
		return exitFailed
	}
	defer s.files.close()

	rctx, stopReloading := context.WithCancel(ctx)
	defer stopReloading()
	hangup, reloading := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(reloading)
		s.reloads(rctx, hangup)
	}()

	var failed error
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case failed = <-s.server.Failed():
			s.log.Error("a listener failed", "error", failed)
			running = false
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				select {
				case hangup <- struct{}{}:
				default:
				}
				continue
			}
			s.log.Info("stopping", "signal", sig.String())
			running = false
		}
	}
	stopReloading()
	stopped := make(chan error, 1)
	go func() {
		<-reloading // the reloading goroutine has ended, so the configuration may be used here
		stopped <- s.stop(context.WithoutCancel(ctx))
	}()
	for {
		select {
		case err := <-stopped:
			if err != nil {
				s.log.Error("stopped, but not gracefully", "error", err)
			}
			if err != nil || failed != nil {
				return exitFailed
			}
			s.log.Info("stopped")
			return exitOK
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				s.log.Error("stopped at once by a second signal", "signal", sig.String())
				return exitFailed
			}
		}
	}
}

// start puts everything over the store, and closes it if that fails. A backend that does not answer is no error: the
// sidecar is alive, and becomes ready when the backend answers.
func (s *sidecar) start(f *first) error {
	c := f.config
	s.config, s.stores = c, f.stores
	s.coordinator = s.coordinate(c, f.stores)
	startMove(f.stores.carts)
	var err error
	s.server, err = proxy.Start(proxy.Options{
		GRPC: c.Listen.GRPC, HTTP: c.Listen.HTTP, Admin: c.Listen.Admin, Socket: c.Listen.Socket,
		Version: versionName(), Log: s.log,
		Pod: s.layers.env[config.PodNameVariable], Namespace: s.layers.env[config.PodNamespaceVariable], CartStorage: s.layers.env[config.CartStorageVariable],
	}, s.backend(c, f.stores, s.coordinator))
	if err != nil {
		_ = f.stores.close(stores{})
		return err
	}
	s.files = newWatcher(s.log)
	s.files.follow(append(s.watched(c), f.alsoWatched...))

	st := s.coordinator.Status()
	s.log.Info("serving",
		"grpc", s.server.Addr("grpc"), "http", s.server.Addr("http"), "admin", s.server.Addr("admin"), "socket", s.server.Addr("socket"),
		"backend", describe(&c.Backend), "checkouts", checkoutsIn(c), "locking", st.Locking, "mode", c.Locking.Mode, "reason", st.Reason,
		"generation", c.Generation, "version", versionName())
	s.warn(c)
	if f.refused != nil {
		s.reject(f.refused, "configuration rejected, started on the last good one", false)
	}
	return nil
}

// warn logs that the backend cannot lock across replicas.
func (s *sidecar) warn(c *config.Config) {
	if w := warnLocking(c.Locking, s.stores.carts.Capabilities()); w != "" {
		s.log.Warn(w)
	}
}

func (s *sidecar) options(c *config.Config, store storage.Store) lock.Options {
	on, reason := lockingOf(c.Locking, store.Capabilities())
	return lock.Options{
		Locking:           on,
		Reason:            reason,
		WaitTimeout:       c.Locking.WaitTimeout.Std(),
		LeaseDuration:     c.Locking.LeaseDuration.Std(),
		TTL:               c.TTL.Std(),
		IdempotencyWindow: c.IdempotencyWindow.Std(),
		CheckoutRetention: c.CheckoutRetention.Std(),
		Limits:            limits(c),
		Holder:            s.holder,
		CallOf:            proxy.CallOf,
		OnEvent: func(e lock.Event) {
			s.log.Warn(e.Message, "event", e.Kind)
		},
	}
}

// coordinate returns the coordinator over the stores, with the settings of c.
func (s *sidecar) coordinate(c *config.Config, in stores) *lock.Coordinator {
	return lock.NewHybrid(in.carts, in.checkouts, s.options(c, in.carts))
}

func (s *sidecar) backend(c *config.Config, in stores, coordinator *lock.Coordinator) proxy.Backend {
	store := in.carts
	b := proxy.Backend{
		Coordinator:    coordinator,
		Ping:           store.Ping,
		Name:           string(c.Backend.Type),
		Place:          c.Backend.Place(),
		Prefix:         c.KeyPrefix,
		TTL:            c.TTL.Std(),
		Mode:           string(c.Locking.Mode),
		Generation:     c.Generation,
		Limits:         limits(c),
		RequestTimeout: c.Timeouts.Request.Std(),
		MemoryBytes:    fitMemory(s.memory, store),
		AllowFlush:     c.AllowFlush,
		AllowList:      c.AllowList,
		CheckoutWindow: c.Fronts.CheckoutWindow.Std(),
	}
	if beater, ok := storage.As[storage.Beater](store); ok {
		b.Beat = beater.Beat
	}
	if in.checkouts != nil {
		b.Critical = &proxy.CriticalBackend{Name: string(c.CriticalBackend.Type), Place: c.CriticalBackend.Place(), Ping: in.checkouts.Ping}
		if beater, ok := storage.As[storage.Beater](in.checkouts); ok {
			b.Critical.Beat = beater.Beat
		}
	}
	if advisor, ok := storage.As[storage.Advisor](store); ok {
		b.Advice = advisor.Advice
	}
	if counter, ok := storage.As[storage.Counter](store); ok {
		b.Count = counter.Count
	}
	if mover, ok := storage.As[storage.Mover](store); ok {
		b.Move, b.MovesFrom = mover.Progress, describe(&c.MoveFrom.Backend)
	}
	return b
}

// startMove starts the walk of a store to which carts move. The walk moves the carts that nobody changes.
func startMove(store storage.Store) {
	if m, ok := storage.As[storage.Mover](store); ok {
		m.Start()
	}
}

func limits(c *config.Config) cart.Limits {
	l := &c.Limits
	return cart.Limits{
		MaxItems: l.MaxItems, MaxDocumentBytes: l.MaxDocumentBytes, MaxCartBytes: l.MaxCartBytes,
		MaxMetadataKeys: l.MaxMetadataKeys, MaxQuantity: l.MaxQuantity,
	}
}

// Bounds of a graceful stop: calls under way may take their whole time, but kubelets kill after 30 s by default.
const (
	stopMargin  = 2 * time.Second
	longestStop = 25 * time.Second
)

// stop ends the sidecar gracefully: it is no longer ready, refuses new calls, and finishes those under way.
func (s *sidecar) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(s.config.Timeouts.Request.Std()+stopMargin, longestStop))
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("calls under way were cut off: %w", err)
	}
	s.drains.Wait() // bounded by the same time, from earlier on
	return errors.Join(err, s.coordinator.Close(ctx), s.stores.close(stores{}))
}

// checkoutsIn names the backend for checkouts, "" if they are beside the carts.
func checkoutsIn(c *config.Config) string {
	if c.CriticalBackend == nil {
		return ""
	}
	return describe(c.CriticalBackend)
}

// describe names a backend for people, without secrets.
func describe(b *config.Backend) string {
	switch {
	case b.Redis != nil:
		return fmt.Sprintf("%s %s", b.Type, strings.Join(b.Redis.Addresses, ","))
	case b.Database != nil && b.Database.URL != "":
		return fmt.Sprintf("%s %s", b.Type, b.Database.URL)
	}
	return string(b.Type)
}
