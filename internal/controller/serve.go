package controller

import (
	"container/list"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// Bounds on what strangers can have open at the operator's ports. A connection costs about 20 KiB, and one with TLS
// twice that.
const (
	mostConns      = 256              // of one port
	headersWithin  = 5 * time.Second  // TLS handshake included
	answerWithin   = 40 * time.Second // the API server waits for the webhook for 30 at most
	idleFor        = 90 * time.Second
	largestHeaders = 16 << 10
	mostScrapes    = 4 // of /metrics at once
	shutdownWithin = 20 * time.Second
)

// serve makes a server at address, which starts with the manager. It listens from now on.
func serve(name, address string, handler http.Handler, secure *tls.Config, log logr.Logger) (*manager.Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	within := shutdownWithin
	server := &manager.Server{Name: name, Listener: newBoundedListener(l, mostConns), ShutdownTimeout: &within}
	server.Server = &http.Server{
		Handler: answered(handler), ConnContext: withVisitor,
		ReadHeaderTimeout: headersWithin, WriteTimeout: answerWithin, IdleTimeout: idleFor, MaxHeaderBytes: largestHeaders,
		ErrorLog: slog.NewLogLogger(serverLog{logr.ToSlogHandler(log.WithName(name))}, slog.LevelDebug),
	}
	if secure != nil {
		server.Listener = tls.NewListener(server.Listener, secure)
	}
	return server, nil
}

// serverLog takes the complaints of net/http. They are logged at debug, except for our own panics: strangers must not
// fill the log with failed handshakes.
type serverLog struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (serverLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler].
func (l serverLog) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "http: panic ") {
		r.Level = slog.LevelError
	}
	if !l.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// boundedListener bounds how many connections there are at once. When it is full, it closes the oldest one that is not
// being answered, of the host that has most of them. So half a request keeps nobody out. If all are being answered, it
// closes the new one.
type boundedListener struct {
	net.Listener
	most int

	mu sync.Mutex
	in list.List // of *visitor, the oldest first
}

func newBoundedListener(l net.Listener, most int) *boundedListener {
	return &boundedListener{Listener: l, most: most}
}

// visitor is a connection that a boundedListener let in.
type visitor struct {
	net.Conn
	listener *boundedListener
	host     string
	place    *list.Element
	gone     sync.Once
	busy     atomic.Bool // a handler answers
}

// Accept implements [net.Listener].
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		v := &visitor{Conn: c, listener: l}
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			v.host = string(a.IP)
		}
		if l.admit(v) {
			return v, nil
		}
		_ = c.Close()
	}
}

func (l *boundedListener) admit(v *visitor) bool {
	l.mu.Lock()
	var out *visitor
	if l.in.Len() >= l.most {
		if out = l.spared(); out == nil {
			l.mu.Unlock()
			return false
		}
	}
	v.place = l.in.PushBack(v)
	l.mu.Unlock()
	if out != nil {
		_ = out.Close()
	}
	return true
}

// spared returns the connection that makes room, or nil if there is none.
func (l *boundedListener) spared() (out *visitor) {
	byHost, most := map[string]int{}, 0
	for e := l.in.Front(); e != nil; e = e.Next() {
		if v := e.Value.(*visitor); !v.busy.Load() {
			byHost[v.host]++
			most = max(most, byHost[v.host])
		}
	}
	for e := l.in.Front(); e != nil; e = e.Next() {
		if v := e.Value.(*visitor); !v.busy.Load() && byHost[v.host] == most {
			return v
		}
	}
	return nil
}

// Close implements [net.Conn].
func (v *visitor) Close() error {
	v.gone.Do(func() {
		v.listener.mu.Lock()
		defer v.listener.mu.Unlock()
		v.listener.in.Remove(v.place)
	})
	return v.Conn.Close()
}

type visitorKey struct{}

// withVisitor is a ConnContext of net/http.
func withVisitor(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, visitorKey{}, c)
}

// answered keeps the connections whose requests are being answered.
func answered(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v, ok := r.Context().Value(visitorKey{}).(*visitor); ok {
			v.busy.Store(true)
			defer v.busy.Store(false)
		}
		handler.ServeHTTP(w, r)
	})
}
