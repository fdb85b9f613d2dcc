package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// How the backend is watched. A single lost answer does not make a sidecar
// unready, and a single lucky one does not make it ready.
const (
	pingInterval = time.Second
	// pingPause is the least time from one ping to one that a failed call asks for:
	// many calls fail at once, and all say the same.
	pingPause    = 200 * time.Millisecond
	pingTimeout  = 2 * time.Second
	failuresDown = 3
	successesUp  = 2
)

// pulse watches the backend.
type pulse struct {
	lanes *lanes
	log   *slog.Logger
	// changed is told of each change of readiness.
	changed func(ready bool)
	kick    chan struct{}

	mu       sync.Mutex
	up       bool
	why      string // why it is not up
	known    *lane  // whose pings the counts are of
	row      int    // pings in a row that say other than up
	stopping bool
}

func newPulse(l *lanes, log *slog.Logger, changed func(ready bool)) *pulse {
	return &pulse{lanes: l, log: log, changed: changed, kick: make(chan struct{}, 1), why: "the backend was not asked yet"}
}

// suspect asks for a ping at once, since a call got no answer.
func (h *pulse) suspect() {
	select {
	case h.kick <- struct{}{}:
	default: // one is wanted already
	}
}

// run pings until ctx ends.
func (h *pulse) run(ctx context.Context) {
	t := time.NewTicker(pingInterval)
	defer t.Stop()
	for {
		last := time.Now()
		h.ping(ctx)
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

func (h *pulse) ping(ctx context.Context) {
	l := h.lanes.enter()
	defer l.leave()
	pctx, cancel := context.WithTimeout(ctx, min(pingTimeout, l.RequestTimeout))
	defer cancel()
	err := l.Ping(pctx)
	if ctx.Err() == nil {
		h.saw(l, err)
	}
}

// saw takes in the result of a ping. The first of a backend decides at once.
func (h *pulse) saw(l *lane, err error) {
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
	if !up {
		h.why = fmt.Sprintf("backend %s does not answer: %v", l.Name, err)
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
		h.log.Info("backend answers", "backend", l.Name)
	} else {
		h.log.Error("backend does not answer", "backend", l.Name, "error", err)
	}
	h.changed(up && !h.stopping)
}

// stop makes the sidecar unready for good.
func (h *pulse) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
	h.changed(false)
}

// state says whether the backend answers, and why not.
func (h *pulse) state() (up bool, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.up, h.why
}

// ready says whether the sidecar should get traffic, and why not.
func (h *pulse) ready() (bool, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.stopping:
		return false, "the sidecar is stopping"
	case !h.up:
		return false, h.why
	}
	return true, ""
}
