package proxy

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/codes"

	"github.com/sidecart/sidecart/internal/storage"
)

// front is the way by which a call came.
type front int

const (
	frontGRPC front = iota
	frontHTTP
	fronts
)

var frontNames = [fronts]string{"grpc", "http"}

// unknownMethod is for calls that failed before their name was known.
const unknownMethod = "unknown"

// metrics are counted by the handlers and read by Prometheus.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	// Nearly all calls succeed, so the series of success are looked up once, on first use.
	quick    map[string]*[fronts]func() series
	inFlight atomic.Int64
	// events counts the events sent on streams.
	events prometheus.Counter
	// leaseWait is how long requests for leases waited, by outcome.
	leaseWait *prometheus.HistogramVec
}

type series struct {
	ok       prometheus.Counter
	duration prometheus.Observer
}

func newMetrics(version string, streams *atomic.Int64) *metrics {
	m := &metrics{
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sidecart_events_sent_total",
			Help: "Events about watched carts that were sent to clients.",
		}),
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidecart_requests_total",
			Help: "Calls by front, method, gRPC code and reason; the reason of a success is empty.",
		}, []string{"front", "method", "code", "reason"}),
		quick: map[string]*[fronts]func() series{},
	}
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:                            "sidecart_request_duration_seconds",
		Help:                            "Time of calls in the sidecar, waits for locks included.",
		Buckets:                         []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"front", "method"})
	m.leaseWait = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:                            "sidecart_lease_wait_seconds",
		Help:                            "Time from asking for a lease to its grant, or to LOCK_TIMEOUT.",
		Buckets:                         []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"granted"})
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sidecart_build_info",
		Help: "Always 1; the labels say what runs.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(m.requests, duration, m.leaseWait, build,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sidecart_in_flight_requests",
			Help: "Calls under way.",
		}, func() float64 { return float64(m.inFlight.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sidecart_streams_open",
			Help: "Streams that last: watched carts, held leases, watched health. There may be 1,000.",
		}, func() float64 { return float64(streams.Load()) }),
		m.events,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	methods := []string{unknownMethod}
	for _, s := range services {
		for _, d := range s.Methods {
			methods = append(methods, d.MethodName)
		}
		for _, d := range s.Streams {
			methods = append(methods, d.StreamName)
		}
	}
	slices.Sort(methods)
	for _, name := range slices.Compact(methods) { // calls of one name count together
		s := new([fronts]func() series)
		for f := range fronts {
			s[f] = sync.OnceValue(func() series {
				return series{
					ok:       m.requests.WithLabelValues(frontNames[f], name, codes.OK.String(), ""),
					duration: duration.WithLabelValues(frontNames[f], name),
				}
			})
		}
		m.quick[name] = s
	}
	return m
}

// observe counts one call.
func (m *metrics) observe(f front, method string, code codes.Code, reason string, took time.Duration) {
	q, ok := m.quick[method]
	if !ok {
		method, q = unknownMethod, m.quick[unknownMethod]
	}
	s := q[f]()
	s.duration.Observe(took.Seconds())
	if code == codes.OK {
		s.ok.Inc()
		return
	}
	m.requests.WithLabelValues(frontNames[f], method, code.String(), reason).Inc()
}

// failures returns how many calls ended with each reason.
func (m *metrics) failures() map[string]uint64 {
	out := map[string]uint64{}
	families, err := m.registry.Gather()
	if err != nil {
		return out // the page shows what there is
	}
	for _, f := range families {
		if f.GetName() != "sidecart_requests_total" {
			continue
		}
		for _, one := range f.Metric {
			for _, l := range one.Label {
				if l.GetName() == "reason" && l.GetValue() != "" {
					out[l.GetValue()] += uint64(one.GetCounter().GetValue())
				}
			}
		}
	}
	return out
}

// waited counts one request for a lease.
func (m *metrics) waited(err error, took time.Duration) {
	switch {
	case err == nil:
		m.leaseWait.WithLabelValues("true").Observe(took.Seconds())
	case errors.Is(err, storage.ErrLockTimeout):
		m.leaseWait.WithLabelValues("false").Observe(took.Seconds())
	}
}

// coordinatorCollector asks the coordinator when Prometheus scrapes.
type coordinatorCollector struct {
	backends *backends
	pulse    *pulse
	critical *pulse
	config   *configState
}

var (
	descChanges    = prometheus.NewDesc("sidecart_changes_total", "Changes answered with success.", nil, nil)
	descCommits    = prometheus.NewDesc("sidecart_commits_total", "Commits that carried them.", nil, nil)
	descConflicts  = prometheus.NewDesc("sidecart_commit_conflicts_total", "Commits refused on a version.", nil, nil)
	descLocked     = prometheus.NewDesc("sidecart_commits_locked_total", "Commits refused on a held lock.", nil, nil)
	descAcquired   = prometheus.NewDesc("sidecart_locks_acquired_total", "Locks taken for real.", nil, nil)
	descTimeouts   = prometheus.NewDesc("sidecart_lock_timeouts_total", "Waits that ended without the lock.", nil, nil)
	descForeign    = prometheus.NewDesc("sidecart_foreign_writers_total", "Version conflicts that this sidecar did not cause.", nil, nil)
	descQueue      = prometheus.NewDesc("sidecart_queue_length", "Changes and leases that wait now.", nil, nil)
	descGranted    = prometheus.NewDesc("sidecart_leases_granted_total", "Leases granted to clients.", nil, nil)
	descLost       = prometheus.NewDesc("sidecart_leases_lost_total", "Answers that a lease had expired or was taken.", nil, nil)
	descUngranted  = prometheus.NewDesc("sidecart_lease_timeouts_total", "Requests for a lease that waited in vain.", nil, nil)
	descHeld       = prometheus.NewDesc("sidecart_leases_held", "Leases acquired through this sidecar that have neither ended nor been released through it.", nil, nil)
	descLocking    = prometheus.NewDesc("sidecart_locking_enabled", "1 while distributed locking is on; the label says why it is as it is.", []string{"reason"}, nil)
	descBackend    = prometheus.NewDesc("sidecart_backend_up", "1 while the backend answers and does what a change needs.", []string{"backend"}, nil)
	descRefusals   = prometheus.NewDesc("sidecart_backend_refusals_total", "Calls that the backend answered and refused, for want of rights or room.", []string{"backend"}, nil)
	descWarning    = prometheus.NewDesc("sidecart_backend_warning", "1 while carts are less safe in the backend than they could be; the code says why.", []string{"code"}, nil)
	descMoved      = prometheus.NewDesc("sidecart_carts_moved_total", "Carts that this sidecar moved from another backend; only while carts move.", nil, nil)
	descMoveLeft   = prometheus.NewDesc("sidecart_carts_left", "Carts that its last walk through the other backend left there; only while carts move and it is the one that walks.", nil, nil)
	descGeneration = prometheus.NewDesc("sidecart_config_generation", "Generation of the configuration that runs.", nil, nil)
	descRejected   = prometheus.NewDesc("sidecart_config_rejected", "1 while the newest configuration is refused and the last good one goes on.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (c *coordinatorCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descChanges, descCommits, descConflicts, descLocked, descAcquired, descTimeouts,
		descForeign, descQueue, descGranted, descLost, descUngranted, descHeld, descLocking, descBackend, descRefusals, descWarning, descMoved, descMoveLeft, descGeneration, descRejected} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *coordinatorCollector) Collect(ch chan<- prometheus.Metric) {
	l := c.backends.enter()
	defer l.leave()
	st := l.Coordinator.Status()
	counter := func(d *prometheus.Desc, n uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter(descChanges, st.Stats.Changes)
	counter(descCommits, st.Stats.Commits)
	counter(descConflicts, st.Stats.Conflicts)
	counter(descLocked, st.Stats.Locked)
	counter(descAcquired, st.Stats.Acquired)
	counter(descTimeouts, st.Stats.Timeouts)
	counter(descForeign, st.ForeignWriters)
	gauge(descQueue, float64(st.Stats.Waiting))
	counter(descGranted, st.Stats.LeasesGranted)
	counter(descLost, st.Stats.LeasesLost)
	counter(descUngranted, st.Stats.LeaseTimeouts)
	gauge(descHeld, float64(st.Stats.LeasesHeld))
	gauge(descLocking, number(st.Locking), st.Reason)
	up, _ := c.pulse.state()
	gauge(descBackend, number(up), l.Name)
	ch <- prometheus.MustNewConstMetric(descRefusals, prometheus.CounterValue, float64(c.pulse.refusals.count()), l.Name)
	if b := l.Critical; b != nil {
		up, _ := c.critical.state()
		name := b.Name + " for checkouts"
		gauge(descBackend, number(up), name)
		ch <- prometheus.MustNewConstMetric(descRefusals, prometheus.CounterValue, float64(c.critical.refusals.count()), name)
	}
	advice, _ := c.pulse.advice()
	for _, a := range advice {
		gauge(descWarning, 1, a.Code)
	}
	if l.Move != nil {
		p := l.Move()
		counter(descMoved, p.Carried)
		if p.Walking {
			gauge(descMoveLeft, float64(p.Left))
		}
	}
	gauge(descGeneration, float64(l.Generation))
	gauge(descRejected, number(c.config.get().State != configAccepted))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
