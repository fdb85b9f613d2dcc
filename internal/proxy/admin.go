package proxy

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"html/template"
	"math"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sidecart/sidecart/internal/cart"
)

// configAccepted is the state of a configuration that runs.
const configAccepted = "Accepted"

// configState is what became of the newest configuration.
type configState struct {
	mu             sync.Mutex
	state, message string
}

func (c *configState) set(state, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.message = state, message
}

func (c *configState) get() statusConfig {
	c.mu.Lock()
	defer c.mu.Unlock()
	return statusConfig{c.state, c.message}
}

// statusPage is the status page for programs.
type statusPage struct {
	Version    string        `json:"version"`
	Owner      statusOwner   `json:"owner"`
	Generation int64         `json:"generation"`
	Ready      bool          `json:"ready"`
	Config     statusConfig  `json:"config"`
	Backend    statusBackend `json:"backend"`
	// CriticalBackend is the backend for checkouts; left out if they are beside the carts.
	CriticalBackend *statusCritical `json:"criticalBackend,omitempty"`
	// Move is set while carts move to the backend from another.
	Move    *statusMove   `json:"move,omitempty"`
	Locking statusLocking `json:"locking"`
	// Queues and Leases name carts, so they are empty in an answer that leaves over another interface than loopback.
	// Counters count them in every answer.
	Queues   []statusQueue `json:"queues"`
	Leases   []statusLease `json:"leases"`
	Counters statusCounts  `json:"counters"`
}

// statusOwner is the pod that the sidecar belongs to; empty outside Kubernetes.
type statusOwner struct {
	Pod         string `json:"pod,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	CartStorage string `json:"cartStorage,omitempty"`
}

type statusConfig struct {
	State   string `json:"state"`
	Message string `json:"message"`
}

type statusBackend struct {
	Type string `json:"type"`
	// Place is where the backend is. Prefix begins the names of its carts, and TTL is how long a cart lives after its
	// last change.
	Place   string `json:"place,omitempty"`
	Prefix  string `json:"prefix,omitempty"`
	TTL     string `json:"ttl,omitempty"`
	Healthy bool   `json:"healthy"`
	Message string `json:"message,omitempty"`
	// Warnings say how safe carts are there; null if that is not known yet.
	Warnings []statusWarning `json:"warnings"`
}

// statusCritical has the fields of [statusBackend] that a backend for checkouts has.
type statusCritical struct {
	Type    string `json:"type"`
	Place   string `json:"place,omitempty"`
	Healthy bool   `json:"healthy"`
	Message string `json:"message,omitempty"`
}

type statusWarning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type statusLocking struct {
	Mode           string    `json:"mode"`
	Enabled        bool      `json:"enabled"`
	Reason         string    `json:"reason"`
	Since          time.Time `json:"since"`
	ForeignWriters uint64    `json:"foreignWriters"`
}

type statusQueue struct {
	Identifier string    `json:"identifier"`
	Instance   string    `json:"instance"`
	Waiting    int       `json:"waiting"`
	Since      time.Time `json:"since"`
}

// statusLease has no token, since every reader of the page could use it.
type statusLease struct {
	Identifier string      `json:"identifier"`
	Instance   string      `json:"instance"`
	Parts      []cart.Part `json:"parts"`
	Holder     string      `json:"holder"`
	Fence      uint64      `json:"fence"`
	Since      time.Time   `json:"since"`
	ExpiresAt  time.Time   `json:"expiresAt"`
	Waiting    int         `json:"waiting"`
}

type statusCounts struct {
	InFlight  int64  `json:"inFlight"`
	Waiting   int64  `json:"waiting"`
	Changes   uint64 `json:"changes"`
	Commits   uint64 `json:"commits"`
	Conflicts uint64 `json:"conflicts"`
	Locked    uint64 `json:"locked"`
	Acquired  uint64 `json:"acquired"`
	Timeouts  uint64 `json:"timeouts"`
	// ChangesPerSecond is the mean since the backend was opened. Errors counts failed calls by reason, since the
	// process began.
	ChangesPerSecond float64           `json:"changesPerSecond"`
	Errors           map[string]uint64 `json:"errors"`

	LeasesHeld    int64  `json:"leasesHeld"`
	LeasesGranted uint64 `json:"leasesGranted"`
	LeasesLost    uint64 `json:"leasesLost"`
	LeaseTimeouts uint64 `json:"leaseTimeouts"`
}

// status gathers what the status page shows, with names or only with counts.
func (s *Server) status(version string, names bool) statusPage {
	l := s.service.backends.enter()
	defer l.leave()
	st := l.Coordinator.Status()
	up, why := s.pulse.state()
	var known []statusWarning
	if advice, ok := s.pulse.advice(); ok {
		known = []statusWarning{}
		for _, a := range advice {
			known = append(known, statusWarning{a.Code, a.Message})
		}
	}
	ready, _ := s.pulse.ready()
	page := statusPage{
		Version:    version,
		Generation: l.Generation,
		Ready:      ready,
		Config:     s.config.get(),
		Owner:      s.owner,
		Backend: statusBackend{
			Type: l.Name, Place: l.Place, Prefix: l.Prefix, TTL: lifetime(l.TTL), Healthy: up, Message: why, Warnings: known,
		},
		CriticalBackend: s.criticalOf(l),
		Move:            moveOf(&l.Backend),
		Locking: statusLocking{
			Mode: l.Mode, Enabled: st.Locking, Reason: st.Reason,
			Since: st.Since.UTC().Truncate(time.Millisecond), ForeignWriters: st.ForeignWriters,
		},
		Queues: []statusQueue{},
		Leases: []statusLease{},
		Counters: statusCounts{
			InFlight: s.service.metrics.inFlight.Load(), Waiting: st.Stats.Waiting,
			Changes: st.Stats.Changes, Commits: st.Stats.Commits, Conflicts: st.Stats.Conflicts,
			Locked: st.Stats.Locked, Acquired: st.Stats.Acquired, Timeouts: st.Stats.Timeouts,
			ChangesPerSecond: perSecond(st.Stats.Changes, time.Since(l.opened)), Errors: s.service.metrics.failures(),
			LeasesHeld: st.Stats.LeasesHeld, LeasesGranted: st.Stats.LeasesGranted, LeasesLost: st.Stats.LeasesLost, LeaseTimeouts: st.Stats.LeaseTimeouts,
		},
	}
	if !names { // a session id is a credential
		return page
	}
	for _, h := range st.Leases {
		page.Leases = append(page.Leases, statusLease{
			h.Key.Identifier, h.Key.Instance, h.Parts, h.Holder, h.Fence,
			h.Since.UTC().Truncate(time.Millisecond), h.Expires.UTC().Truncate(time.Millisecond), h.Waiting,
		})
	}
	for _, q := range st.Queues {
		page.Queues = append(page.Queues, statusQueue{q.Key.Identifier, q.Key.Instance, q.Waiting, q.Since.UTC().Truncate(time.Millisecond)})
	}
	return page
}

// lifetime writes a TTL as people do: 24h, not 24h0m0s.
func lifetime(d time.Duration) string {
	if d == 0 {
		return "for ever"
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-len(zero)+1]
		}
	}
	return text
}

// perSecond is rounded to two digits.
func perSecond(n uint64, d time.Duration) float64 {
	return math.Round(100*float64(n)/max(d.Seconds(), 1)) / 100
}

//go:embed status.html
var statusHTML string

// parseStatusPage runs on the first request for the page: most sidecars never get one.
var parseStatusPage = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("status").Funcs(template.FuncMap{
		"ago":   func(t time.Time) string { return time.Since(t).Round(time.Second).String() },
		"clock": func(t time.Time) string { return t.UTC().Format("15:04:05Z") },
		"at":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).Parse(statusHTML))
})

// adminHandler serves probes, metrics and the status page.
func (s *Server) adminHandler(version string) http.Handler {
	mux := http.NewServeMux()
	// "?started" is for a start-up probe. It succeeds once the backend was asked for the first time. By then the
	// sidecar usually is ready; if the backend is down, the sidecar can say what is wrong. It is a parameter and not a
	// path of its own, because the previous release does not know it and must answer too.
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if r.URL.Query().Has("started") && !s.pulse.looked() {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte("the backend was not asked yet\n"))
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		ok, message := s.Ready()
		if ok {
			message = strings.TrimSpace("ok\n" + message)
		} else {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(message + "\n"))
	})
	// Compressors take a megabyte each.
	mux.Handle("GET /metrics", few(promhttp.HandlerFor(s.service.metrics.registry, promhttp.HandlerOpts{DisableCompression: true})))
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) { serveOpenAPI(w) })
	mux.Handle("GET /statusz", few(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveStatus(w, r, version) })))
	mux.HandleFunc("GET /statusz/carts", newCartCount(s).ServeHTTP)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/statusz", http.StatusFound)
	})
	return mux
}

const (
	// atOnce is how many answers of one kind are made at once.
	atOnce = 2
	// pageWait is how long others wait for that.
	pageWait = 2 * time.Second
)

// few lets h make only a few answers at once. An answer is complete before it is sent, so that a slow reader blocks
// nobody else.
func few(h http.Handler) http.Handler {
	places := make(chan struct{}, atOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), pageWait)
		defer cancel()
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many ask for this at once", http.StatusServiceUnavailable)
			return
		}
		page := &pageBuffer{header: w.Header(), status: http.StatusOK}
		func() {
			defer func() { <-places }()
			h.ServeHTTP(page, r)
		}()
		w.Header().Set("Content-Length", strconv.Itoa(page.Len()))
		w.WriteHeader(page.status)
		_, _ = w.Write(page.Bytes())
	})
}

// pageBuffer is a response that is kept in memory.
type pageBuffer struct {
	bytes.Buffer
	header http.Header
	status int
}

func (p *pageBuffer) Header() http.Header    { return p.header }
func (p *pageBuffer) WriteHeader(status int) { p.status = status }

func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request, version string) {
	page := s.status(version, askedOverLoopback(r))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Vary", "Accept")
	if strings.Contains(r.Header.Get("Accept"), contentJSON) {
		w.Header().Set("Content-Type", contentJSON)
		_ = json.NewEncoder(w).Encode(page)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_ = parseStatusPage().Execute(w, struct {
		statusPage
		GoVersion string
	}{page, runtime.Version()})
}
