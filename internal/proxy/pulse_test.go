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
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testlog"
)

// moody is a backend that does what it is told.
type moody struct {
	mu            sync.Mutex
	ping, beat    error
	advice        []storage.Advice
	pings, beats  int
	adviceRefused error
}

func (m *moody) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *moody) backend(name string) Backend {
	return Backend{
		Name: name, RequestTimeout: time.Minute,
		Ping: func(context.Context) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.pings++
			return m.ping
		},
		Beat: func(context.Context) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.beats++
			return m.beat
		},
		Advice: func(context.Context) ([]storage.Advice, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.advice, m.adviceRefused
		},
	}
}

func (m *moody) counts() (pings, beats int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pings, m.beats
}

// TestProbeWhenItMatters: the whole probe runs at the start, when something failed, when the backend is another and
// every ten seconds; otherwise a sign of life does.
func TestProbeWhenItMatters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &moody{}
		var l backends
		l.swap(m.backend("Redis"))
		h := newPulse(&l, quiet(), func(bool) {})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go h.run(ctx)
		pass := func(d time.Duration) (pings, beats int) {
			t.Helper()
			beforePings, beforeBeats := m.counts()
			time.Sleep(d) // in the bubble's time
			synctest.Wait()
			pings, beats = m.counts()
			return pings - beforePings, beats - beforeBeats
		}
		synctest.Wait()
		if pings, beats := m.counts(); pings != 1 || beats != 0 {
			t.Errorf("at the start %d probes, %d signs of life", pings, beats)
		}
		if pings, beats := pass(100 * time.Second); pings < 8 || pings > 12 || beats < 85 {
			t.Errorf("in 100 s %d probes, %d signs of life", pings, beats)
		}
		h.suspect()
		if pings, _ := pass(2 * pingInterval); pings == 0 {
			t.Error("no probe after a failed call")
		}
		m.set(func() { m.beat = errors.New("gone") })
		if pings, _ := pass(20 * pingInterval); pings < 9 { // after each sign of life that fails
			t.Errorf("%d probes in 20 s in which signs of life fail", pings)
		}
		m.set(func() { m.beat = nil })
		m.set(func() { m.ping = errors.New("down") })
		h.suspect()
		pass(4 * pingInterval)
		if ok, _ := h.ready(); ok {
			t.Error("ready although the probe fails, since signs of life come")
		}
		if _, beats := pass(10 * pingInterval); beats != 0 {
			t.Errorf("%d signs of life count for a backend that fails its probe", beats)
		}
		other := &moody{}
		l.swap(other.backend("Memory"))
		pass(pingInterval)
		if pings, _ := other.counts(); pings == 0 {
			t.Error("no probe of another backend")
		}
	})
}

// TestRefusalIsTold: a backend that answers and refuses is told as such, in its own words.
func TestRefusalIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		noperm := fmt.Errorf("redis: ping: %w: %w", storage.ErrUnavailable, &storage.Refusal{Words: "NOPERM No permissions to access a key"})
		m := &moody{ping: noperm}
		var l backends
		l.swap(m.backend("Redis"))
		h := newPulse(&l, slog.New(slog.NewTextHandler(&log, nil)), func(bool) {})
		ctx, stop := context.WithCancel(t.Context())
		go h.run(ctx)
		synctest.Wait()
		const want = "backend Redis refuses changes: NOPERM No permissions to access a key"
		if ok, why := h.ready(); ok || why != want {
			t.Errorf("ready %t: %s", ok, why)
		}
		m.set(func() {
			m.ping = fmt.Errorf("redis: ping: %w: %w", storage.ErrUnavailable,
				&net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 6379}, Err: errors.New("connection refused")})
		})
		time.Sleep(pingInterval)
		synctest.Wait()
		if ok, why := h.ready(); ok || why != "backend Redis does not answer: dial 10.0.0.1:6379: connection refused" {
			t.Errorf("ready %t: %s", ok, why)
		}
		m.set(func() { m.ping = nil })
		time.Sleep(3 * pingInterval)
		synctest.Wait()
		if ok, why := h.ready(); !ok || why != "" {
			t.Errorf("ready %t: %s", ok, why)
		}

		// Calls that are refused while the probe passes.
		key := cart.Key{Identifier: "s3ssion", Instance: "default"}
		oom := fmt.Errorf("redis: commit %s: %w: %w", key, storage.ErrUnavailable, &storage.Refusal{Words: "OOM command not allowed"})
		for range 1000 {
			h.callFailed(oom)
		}
		synctest.Wait()
		if ok, why := h.ready(); !ok || why != "backend Redis refused changes within the last minute: OOM command not allowed" {
			t.Errorf("ready %t: %s", ok, why)
		}
		time.Sleep(2 * sayInterval)
		synctest.Wait()
		if n := strings.Count(log.String(), `level=WARN msg="backend did not do what was asked" error="OOM command not allowed" times=`); n != 2 {
			t.Errorf("the refusals are told %d times, want once at once and once together:\n%s", n, &log)
		}
		if !strings.Contains(log.String(), "times=999") {
			t.Errorf("the log does not count:\n%s", &log)
		}
		for i := range 1000 { // as many texts as errors
			h.callFailed(fmt.Errorf("redis: commit %s: %w: %w", key, storage.ErrUnavailable, &storage.Refusal{Words: fmt.Sprint("ERR ", i)}))
		}
		if n := len(h.refusals.troubles); n > maxTroubles+1 {
			t.Errorf("%d troubles are remembered", n)
		}
		if h.refusals.count() != 2000 {
			t.Errorf("%d refusals are counted", h.refusals.count())
		}
		time.Sleep(2 * recently)
		synctest.Wait()
		if ok, why := h.ready(); !ok || why != "" || len(h.refusals.troubles) != 0 {
			t.Errorf("a minute later: ready %t: %s, and %d troubles", ok, why, len(h.refusals.troubles))
		}
		if strings.Contains(log.String(), "s3ssion") {
			t.Errorf("the log names a cart:\n%s", &log)
		}
		stop()
		synctest.Wait()
	})
}

// TestWarnings: what the backend says of how safe carts are is logged once when it begins and once when it is over.
func TestWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		m := &moody{}
		var l backends
		l.swap(m.backend("Redis"))
		h := newPulse(&l, slog.New(slog.NewTextHandler(&log, nil)), func(bool) {})
		if _, known := h.advice(); known {
			t.Error("advice is known before it was asked for")
		}
		ctx, stop := context.WithCancel(t.Context())
		go h.run(ctx)
		pass := func(d time.Duration) string {
			log.Reset()
			time.Sleep(d)
			synctest.Wait()
			return log.String()
		}
		pass(pingInterval)
		if advice, known := h.advice(); !known || len(advice) != 0 {
			t.Errorf("advice is %v, %t", advice, known)
		}
		policy := storage.Advice{Code: storage.AdviceEvictionPolicy, Message: "It forgets carts."}
		m.set(func() { m.advice = []storage.Advice{policy} })
		if text := pass(time.Minute); strings.Count(text, `level=WARN msg="It forgets carts." backend=Redis code=EvictionPolicy`) != 1 || strings.Count(text, "\n") != 1 {
			t.Errorf("a new warning is told so:\n%s", text)
		}
		for n := range 60 { // a count that rises
			m.set(func() {
				m.advice = []storage.Advice{{Code: storage.AdviceCartsEvicted, Message: fmt.Sprint(n, " are gone.")}, policy}
			})
			text := pass(probeInterval)
			if n == 0 && !strings.Contains(text, "0 are gone.") && !strings.Contains(pass(probeInterval), "0 are gone.") {
				t.Errorf("another warning is told so:\n%s", text)
			}
		}
		if advice, _ := h.advice(); len(advice) != 2 || advice[1] != policy {
			t.Errorf("advice is %v", advice)
		}
		m.set(func() { m.adviceRefused = errors.New("no answer") })
		if text := pass(time.Minute); text != "" {
			t.Errorf("without an answer it is told:\n%s", text)
		}
		if advice, known := h.advice(); !known || len(advice) != 2 {
			t.Errorf("without an answer advice is %v, %t", advice, known)
		}
		m.set(func() { m.advice, m.adviceRefused = nil, nil })
		if text := pass(time.Minute); strings.Count(text, "level=INFO") != 2 || !strings.Contains(text, "is over") || !strings.Contains(text, storage.AdviceCartsEvicted) {
			t.Errorf("the end is told so:\n%s", text)
		}
		other := &moody{advice: []storage.Advice{policy}}
		l.swap(other.backend("Database"))
		if _, known := h.advice(); known {
			t.Error("advice of a backend that was not asked yet is known")
		}
		if text := pass(2 * pingInterval); strings.Count(text, "level=WARN") != 1 {
			t.Errorf("the warning of another backend is told so:\n%s", text)
		}
		stop()
		synctest.Wait()
	})
}

// TestRefusedEverywhere: clients, probes, the status page and the metrics tell of a backend that refuses changes, and
// of how safe carts are there.
func TestRefusedEverywhere(t *testing.T) {
	refusal := fmt.Errorf("redis: commit s3ssion: %w: %w", storage.ErrUnavailable, &storage.Refusal{Words: "OOM command not allowed"})
	b := realBackend(t)
	b.Name = "Redis"
	b.Coordinator = refusing{b.Coordinator, refusal}
	b.Advice = func(context.Context) ([]storage.Advice, error) {
		return []storage.Advice{{Code: storage.AdviceEvictionPolicy, Message: "It forgets <carts>."}}, nil
	}
	w := start(t, b)
	waitFor(t, "the advice is known", func() bool { _, known := w.pulse.advice(); return known })
	if r := w.http(raw("GetCart", "")); r.http != http.StatusServiceUnavailable || r.reason != "BACKEND_UNAVAILABLE" || !strings.Contains(r.message, "refuses") {
		t.Errorf("a client is told %d %s %s", r.http, r.reason, r.message)
	}
	const words = "backend Redis refused changes within the last minute: OOM command not allowed"
	if r := admin(t, w, "/readyz", ""); r.http != 200 || r.body != "ok\n"+words+"\n" {
		t.Errorf("readyz: %d %q", r.http, r.body)
	}
	status := admin(t, w, "/statusz", "application/json").body
	for _, text := range []string{`"message":"` + words + `"`, `"warnings":[{"code":"EvictionPolicy","message":"It forgets \u003ccarts\u003e."}]`} {
		if !strings.Contains(status, text) {
			t.Errorf("the status lacks %s: %s", text, status)
		}
	}
	page := admin(t, w, "/statusz", "text/html").body
	for _, text := range []string{words, "<b>EvictionPolicy</b>: It forgets &lt;carts&gt;."} {
		if !strings.Contains(page, text) {
			t.Errorf("the page lacks %q: %s", text, page)
		}
	}
	metrics := admin(t, w, "/metrics", "").body
	for _, line := range []string{`sidecart_backend_refusals_total{backend="Redis"} 1`, `sidecart_backend_warning{code="EvictionPolicy"} 1`, `sidecart_backend_up{backend="Redis"} 1`} {
		if !strings.Contains(metrics, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
}

// A start-up probe is answered once the backend was looked at, whether it answers or not.
func TestStartedOnceTheBackendWasLookedAt(t *testing.T) {
	for name, answer := range map[string]error{"it answers": nil, "it does not": errors.New("connection refused")} {
		t.Run(name, func(t *testing.T) {
			b := realBackend(t)
			asked := make(chan struct{})
			b.Ping = func(ctx context.Context) error {
				select {
				case <-asked:
					return answer
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			w := start(t, b)
			if r := admin(t, w, "/livez?started", ""); r.http != http.StatusServiceUnavailable || r.body != "the backend was not asked yet\n" {
				t.Errorf("before: %d %q", r.http, r.body)
			}
			if r := admin(t, w, "/livez", ""); r.http != http.StatusOK {
				t.Errorf("it is not alive: %d %q", r.http, r.body)
			}
			close(asked)
			waitFor(t, "it has started", func() bool { return admin(t, w, "/livez?started", "").http == http.StatusOK })
			if r := admin(t, w, "/readyz", ""); (r.http == http.StatusOK) != (answer == nil) {
				t.Errorf("readyz: %d %q", r.http, r.body)
			}
		})
	}
}

// refusing is a coordinator whose backend refuses to be read.
type refusing struct {
	Coordinator
	err error
}

func (r refusing) Read(context.Context, cart.Key) (*cart.Cart, error) { return nil, r.err }

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
