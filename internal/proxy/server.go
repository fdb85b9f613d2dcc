package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/sidecart/sidecart/internal/lock"
)

// Options say where a [Server] serves.
type Options struct {
	// GRPC and HTTP are host:port on loopback, Admin is host:port anywhere; "" for no such front. Port 0 takes a free
	// one. A front on 127.0.0.1 also listens on [::1] at the same port, if that exists and is free.
	GRPC, HTTP, Admin string
	// Socket is the path of a Unix socket that serves gRPC and HTTP; "" for none.
	Socket string
	// Version of the program, for the status page.
	Version string
	// Pod, Namespace and CartStorage say what the sidecar belongs to, for the status page; "" outside Kubernetes.
	Pod, Namespace, CartStorage string
	// Log is required.
	Log *slog.Logger
}

// Server serves one backend at a time on all fronts.
type Server struct {
	service *service
	log     *slog.Logger
	pulse   *pulse
	// critical watches the backend for checkouts.
	critical *pulse
	grpc     *grpc.Server
	health   *health.Server
	http     *http.Server
	admin    *http.Server
	config   configState
	owner    statusOwner

	addrs    map[string]net.Addr
	splitter *splitter
	stopPing context.CancelFunc
	wg       sync.WaitGroup // everything that serves
	failed   chan error
	stopping chan struct{} // closed by Shutdown
	stopOnce sync.Once
}

// Start opens all listeners and serves on them. It does not wait for the backend to answer: until then the sidecar is
// alive and not ready.
func Start(o Options, b Backend) (*Server, error) {
	s := &Server{log: o.Log, addrs: map[string]net.Addr{}, failed: make(chan error, 1), stopping: make(chan struct{}), health: health.NewServer()}
	s.owner = statusOwner{Pod: o.Pod, Namespace: o.Namespace, CartStorage: o.CartStorage}
	s.service = &service{log: o.Log, stopping: s.stopping}
	m := newMetrics(o.Version, &s.service.streams)
	s.service.metrics = m
	s.service.backends.swap(b)
	s.pulse = newPulse(&s.service.backends, o.Log, readiness(s.health))
	s.critical = newCriticalPulse(&s.service.backends, o.Log)
	s.service.callFailed = func(err error) {
		if errors.Is(err, lock.ErrNoCheckouts) {
			s.critical.callFailed(err)
			return
		}
		s.pulse.callFailed(err)
	}
	readiness(s.health)(false)
	m.registry.MustRegister(&coordinatorCollector{backends: &s.service.backends, pulse: s.pulse, critical: s.critical, config: &s.config})
	s.config.set(configAccepted, "")

	gw, err := newGateway(s.service, func() string { return s.Addr("grpc") })
	if err != nil {
		return nil, err
	}
	s.grpc = newGRPC(s.service, s.health, s.stopping)
	s.http = s.newHTTP(gw)
	// HTTP/2 costs nothing more under the same bounds, and clients need not know which version is served.
	s.http.Protocols = new(http.Protocols)
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	s.admin = s.newHTTP(s.adminHandler(o.Version))
	s.admin.ReadHeaderTimeout, s.admin.WriteTimeout, s.admin.IdleTimeout = 3*time.Second, 5*time.Second, 30*time.Second
	s.admin.MaxHeaderBytes = adminHeaderBytes
	if err := s.listen(o); err != nil {
		s.stopNow()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stopPing = cancel
	s.wg.Go(func() { s.pulse.run(ctx) })
	s.wg.Go(func() { s.critical.run(ctx) })
	return s, nil
}

const (
	// maxHeaderBytes bounds the headers of one request.
	maxHeaderBytes   = 32 << 10
	adminHeaderBytes = 8 << 10
)

// newHTTP sets the time limits for clients. The API sets its own limits for bodies and answers, from the request
// timeout.
func (s *Server) newHTTP(h http.Handler) *http.Server {
	srv := &http.Server{
		Handler:           s.sameSite(h),
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: connStreams, MaxReceiveBufferPerConnection: 4 * streamWindow, MaxReceiveBufferPerStream: streamWindow},
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ownAnswers(srv, func(f *failure) { s.service.metrics.observe(frontHTTP, unknownMethod, f.code, f.reason, 0) })
	return srv
}

// sameSite refuses requests that a web page of another site makes a browser send.
func (s *Server) sameSite(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if askedOverLoopback(r) {
			if err := checkSite(r.Host, r.Header); err != nil {
				f := classify(r.Context(), err)
				s.service.metrics.observe(frontHTTP, unknownMethod, f.code, f.reason, 0)
				if r.ContentLength != 0 {
					w.Header().Set("Connection", "close")
				}
				writeFailure(w, r, f)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) listen(o Options) error {
	type front struct {
		name, address string
		listen        func(string, string) (net.Listener, error)
		serve         func(net.Listener) error
		most          int
	}
	anywhere := func(_, address string) (net.Listener, error) { return net.Listen("tcp", address) }
	socket := func(_, path string) (net.Listener, error) { return listenSocket(path) }
	type open struct {
		front
		net.Listener
	}
	var opened []open
	for _, f := range []front{
		{"grpc", o.GRPC, listenLoopback, s.grpc.Serve, maxGRPCConns},
		{"http", o.HTTP, listenLoopback, s.http.Serve, maxHTTPConns},
		{"admin", o.Admin, anywhere, s.admin.Serve, maxAdminConns},
		{"socket", o.Socket, socket, s.serveBoth, maxSocketConns},
	} {
		if f.address == "" {
			continue
		}
		l, err := f.listen(f.name, f.address)
		if err != nil {
			for _, l := range opened {
				_ = l.Close()
			}
			return err
		}
		s.addrs[f.name] = l.Addr()
		d := newDoor(l, f.name, f.most, o.Log)
		d.brief = f.name == "admin"
		opened = append(opened, open{f, d})
		twin, err := listenTwin(l)
		switch {
		case err != nil:
			o.Log.Info("not served on [::1] too", "front", f.name, "error", err)
		case twin != nil:
			opened = append(opened, open{f, d.beside(twin)})
		}
	}
	// Serve on all listeners or on none: a sidecar that fails to start must not have answered anybody.
	for _, l := range opened {
		if l.name == "socket" {
			s.splitter = newSplitter(l.Listener)
		}
		s.wg.Go(func() { s.ended(l.name, l.serve(l.Listener)) })
	}
	return nil
}

// serveBoth serves gRPC and HTTP on the listener of the splitter.
func (s *Server) serveBoth(net.Listener) error {
	s.wg.Go(func() { s.ended("socket", s.grpc.Serve(s.splitter.http2)) })
	s.wg.Go(func() { s.ended("socket", s.http.Serve(s.splitter.http1)) })
	return s.splitter.run()
}

func (s *Server) ended(front string, err error) {
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
		return
	}
	select {
	case s.failed <- fmt.Errorf("%s: %w", front, err):
	default:
	}
}

// Failed reports a front that stopped serving by itself.
func (s *Server) Failed() <-chan error { return s.failed }

// Addr is where a front serves: "grpc", "http", "admin" or "socket". It is "" if there is no such front.
func (s *Server) Addr(front string) string {
	if a, ok := s.addrs[front]; ok {
		return a.String()
	}
	return ""
}

// Swap serves new calls with b. Calls under way end on the backend that they began with: wait for them before closing
// it.
func (s *Server) Swap(b Backend) *Retired {
	old := s.service.backends.swap(b)
	s.pulse.suspect()
	s.critical.suspect()
	return old
}

// SetConfig records what became of the newest configuration: "Accepted" or "ConfigRejected", and every problem in
// message.
func (s *Server) SetConfig(state, message string) { s.config.set(state, message) }

// Ready reports whether the sidecar should get traffic. The text says why not, or gives a remark. If only the backend
// for checkouts is down, the sidecar is ready, because carts are still served.
func (s *Server) Ready() (bool, string) {
	ok, message := s.pulse.ready()
	if critical := s.criticalOf(s.service.backends.peek()); ok && critical != nil && critical.Message != "" {
		message = strings.TrimSpace(message + "\n" + critical.Message)
	}
	return ok, message
}

// criticalOf is the state of l's backend for checkouts; nil for none.
func (s *Server) criticalOf(l *served) *statusCritical {
	if l.Critical == nil {
		return nil
	}
	c := &statusCritical{Type: l.Critical.Name, Place: l.Critical.Place}
	c.Healthy, c.Message = s.critical.state()
	if !c.Healthy {
		c.Message += "; checkouts are refused, and carts go on"
	}
	return c
}

// Shutdown reports NOT_SERVING, takes no new connections and returns when the calls under way have ended. If ctx ends
// first, it cuts them off. The admin front answers until the end. The caller must close the Backend.
func (s *Server) Shutdown(ctx context.Context) error {
	s.pulse.stop()
	s.stopOnce.Do(func() { close(s.stopping) })
	if s.splitter != nil {
		_ = s.splitter.close()
	}
	ended := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(ended)
	}()
	err := s.http.Shutdown(ctx)
	select {
	case <-ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.stopNow()
	s.wg.Wait()
	return err
}

// stopNow cuts off what still runs.
func (s *Server) stopNow() {
	if s.stopPing != nil {
		s.stopPing()
	}
	_ = s.http.Close()
	s.grpc.Stop()
	_ = s.admin.Close()
}
