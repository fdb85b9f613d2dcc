package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

// How the backend is watched. One lost answer does not make a sidecar unready, and one lucky answer does not make it
// ready.
const (
	pingInterval = time.Second
	// pingPause is the least time between two pings. If many calls fail at once, each asks for a ping, and one is
	// enough for all.
	pingPause    = 200 * time.Millisecond
	pingTimeout  = 2 * time.Second
	failuresDown = 3
	successesUp  = 2
	// probeInterval is how often a healthy backend is probed for everything that a change needs, and asked how safe
	// carts are. Between probes a sign of life is enough. The jitter spreads sidecars out.
	probeInterval = 10 * time.Second
	probeJitter   = 2 * time.Second
)

// pulse watches the backend, or the one for checkouts.
type pulse struct {
	backends *backends
	critical bool // it watches the backend for checkouts, if there is one
	log      *slog.Logger
	// changed is told of each change of readiness.
	changed  func(ready bool)
	kick     chan struct{}
	refusals refusals
	warnings warnings

	mu       sync.Mutex
	up       bool
	why      string    // why it is not up
	known    *served   // the backend that the counts are about
	row      int       // pings in a row that contradict up
	doubt    bool      // the next ping must be a whole probe
	probe    time.Time // when the next whole probe is due in any case
	stopping bool
}

// newCriticalPulse watches the backend for checkouts. The readiness of the sidecar does not depend on it.
func newCriticalPulse(l *backends, log *slog.Logger) *pulse {
	h := newPulse(l, log.With("use", "checkouts"), func(bool) {})
	h.critical = true
	return h
}

func newPulse(l *backends, log *slog.Logger, changed func(ready bool)) *pulse {
	return &pulse{
		backends: l, log: log, changed: changed, kick: make(chan struct{}, 1), why: "the backend was not asked yet",
		refusals: refusals{log: log}, warnings: warnings{log: log},
	}
}

// suspect asks for a probe at once, because a call got no answer.
func (h *pulse) suspect() {
	h.mu.Lock()
	h.doubt = true
	h.mu.Unlock()
	select {
	case h.kick <- struct{}{}:
	default: // one is pending already
	}
}

// callFailed records that the backend did not do what a call asked for.
func (h *pulse) callFailed(err error) {
	words, refused := told(err)
	h.refusals.note(time.Now(), words, refused)
	h.suspect()
}

// run pings until ctx ends.
func (h *pulse) run(ctx context.Context) {
	t := time.NewTicker(pingInterval)
	defer t.Stop()
	for {
		last := time.Now()
		h.ping(ctx)
		h.refusals.flush(time.Now())
		for wait := true; wait; {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				wait = false
			case <-h.kick:
				wait = time.Since(last) < pingPause
			}
		}
	}
}

// target is what a pulse asks.
type target struct {
	name       string // "Redis"
	what       string // "backend Redis"
	ping, beat func(context.Context) error
	advice     func(context.Context) ([]storage.Advice, error)
}

// targetOf returns the target of the pulse in l; false if there is none.
func (h *pulse) targetOf(l *served) (target, bool) {
	if !h.critical {
		return target{l.Name, "backend " + l.Name, l.Ping, l.Beat, l.Advice}, true
	}
	b := l.Critical
	if b == nil {
		return target{}, false
	}
	return target{name: b.Name, what: "critical backend " + b.Name, ping: b.Ping, beat: b.Beat}, true
}

func (h *pulse) ping(ctx context.Context) {
	l := h.backends.enter()
	defer l.leave()
	of, ok := h.targetOf(l)
	if !ok {
		return
	}
	limited := func(ask func(context.Context)) {
		ctx, cancel := context.WithTimeout(ctx, min(pingTimeout, l.RequestTimeout))
		defer cancel()
		ask(ctx)
	}
	whole := h.wantsProbe(l, of)
	ask := of.beat
	if whole {
		ask = of.ping
	}
	var err error
	limited(func(ctx context.Context) { err = ask(ctx) })
	if ctx.Err() != nil {
		return
	}
	h.saw(l, of, whole, err)
	if whole && err == nil && of.advice != nil {
		limited(func(ctx context.Context) {
			if advice, err := of.advice(ctx); err == nil {
				h.warnings.set(time.Now(), l, advice)
			}
		})
	}
}

// wantsProbe says whether the next ping of l must be a whole probe: if l is new, something has failed, or a probe is
// due.
func (h *pulse) wantsProbe(l *served, of target) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	whole := of.beat == nil || h.known != l || !h.up || h.doubt || !time.Now().Before(h.probe)
	if whole {
		h.doubt = false
		h.probe = time.Now().Add(probeInterval - probeJitter/2 + rand.N(probeJitter))
	}
	return whole
}

// saw records the result of a ping. The first ping of a backend decides at once.
func (h *pulse) saw(l *served, of target, whole bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := h.known != l
	if first {
		h.known, h.row = l, 0
	}
	up := err == nil
	if up == h.up {
		h.row = 0
	} else {
		h.row++
	}
	problem := "backend does not answer"
	words, refused := told(err)
	if !up {
		h.doubt = true
		h.why = fmt.Sprintf("%s does not answer: %s", of.what, words)
		if refused {
			problem = "backend refuses changes"
			h.why = fmt.Sprintf("%s refuses changes: %s", of.what, words)
			h.refusals.note(time.Now(), words, false)
		}
	}
	enough := failuresDown
	if up {
		enough = successesUp
	}
	if up == h.up || h.row < enough && !first {
		return
	}
	h.up, h.row = up, 0
	if up {
		h.log.Info("backend answers", "backend", of.name)
	} else {
		h.log.Error(problem, "backend", of.name, "error", err)
	}
	h.changed(up && !h.stopping)
}

// looked reports whether a backend has been asked, whatever it answered.
func (h *pulse) looked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known != nil
}

// stop makes the sidecar unready for good.
func (h *pulse) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
	h.changed(false)
}

// state says whether the backend does what a change needs, and why not. If it does but has refused some calls, the
// message says that.
func (h *pulse) state() (up bool, message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return false, h.why
	}
	if words := h.refusals.recent(time.Now()); words != "" {
		of, _ := h.targetOf(h.known)
		return true, fmt.Sprintf("%s refused changes within the last minute: %s", of.what, words)
	}
	return true, ""
}

// ready says whether the sidecar should get traffic. The text says why not, or gives a remark.
func (h *pulse) ready() (bool, string) {
	up, message := h.state()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		return false, "the sidecar is stopping"
	}
	return up, message
}

// advice returns what is known about how safe carts are; false while nothing is known.
func (h *pulse) advice() ([]storage.Advice, bool) { return h.warnings.get(h.backends.peek()) }
