package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidecart/sidecart/internal/storage"
)

const (
	// sayInterval is the least time between two log lines about the same trouble.
	sayInterval = 10 * time.Second
	// recently is how long a refusal stays on the status page.
	recently = time.Minute
	// maxTroubles bounds how many different troubles are counted separately.
	maxTroubles = 32
)

// refusals are calls that the backend did not carry out, by their cause.
type refusals struct {
	log *slog.Logger

	mu       sync.Mutex
	troubles map[string]*trouble
	refused  uint64 // calls that the backend answered and refused
}

type trouble struct {
	said    time.Time // when it was logged last
	last    time.Time // when it was met last
	unsaid  int       // how often it was met since it was logged
	refusal bool
}

// note records one call that failed with words. The first is logged at once, and later ones together.
func (r *refusals) note(now time.Time, words string, refusedCall bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.troubles == nil {
		r.troubles = map[string]*trouble{}
	}
	if refusedCall {
		r.refused++
	}
	t := r.troubles[words]
	if t == nil {
		if len(r.troubles) >= maxTroubles {
			words = "various other causes"
			t = r.troubles[words]
		}
		if t == nil {
			t = &trouble{}
			r.troubles[words] = t
		}
	}
	t.last = now
	t.refusal = t.refusal || refusedCall
	t.unsaid++
	r.say(now, words, t)
}

func (r *refusals) say(now time.Time, words string, t *trouble) {
	if t.unsaid == 0 || now.Sub(t.said) < sayInterval {
		return
	}
	r.log.Warn("backend did not do what was asked", "error", words, "times", t.unsaid)
	t.said, t.unsaid = now, 0
}

// flush logs what was not logged yet, and forgets old troubles.
func (r *refusals) flush(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for words, t := range r.troubles {
		r.say(now, words, t)
		if now.Sub(t.last) > recently {
			delete(r.troubles, words)
		}
	}
}

// recent returns the last refusal of a call, if it is recent; "" for none.
func (r *refusals) recent(now time.Time) (words string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var last time.Time
	for w, t := range r.troubles {
		if t.refusal && now.Sub(t.last) <= recently && t.last.After(last) {
			words, last = w, t.last
		}
	}
	return words
}

func (r *refusals) count() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}

// told is what operators are told about an error of the backend: its own words if it refused, and otherwise why there
// was no answer. It names no cart, and is the same text for the same trouble.
func told(err error) (words string, refused bool) {
	if err == nil {
		return "", false
	}
	if words, ok := storage.RefusalOf(err); ok {
		return words, true
	}
	var network *net.OpError
	switch {
	case isLate(err):
		return noAnswer(err), false
	case errors.As(err, &network) && network.Addr != nil: // the port at this end differs each time
		return fmt.Sprintf("%s %s: %v", network.Op, network.Addr, network.Err), false
	case errors.As(err, &network):
		return fmt.Sprintf("%s: %v", network.Op, network.Err), false
	}
	if causes := below(err); causes != "" {
		return causes, false
	}
	if errors.Is(err, storage.ErrUnavailable) {
		return noAnswer(err), false
	}
	return err.Error(), false
}

// isLate reports whether a deadline passed. It is chance whether that of the request, of a connection attempt or of a
// read passes first.
func isLate(err error) bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// noAnswer says that there was no answer in time, in the same words for all deadlines.
func noAnswer(err error) string {
	if silence, ok := errors.AsType[*storage.Silence](err); ok {
		return silence.Error()
	}
	return "no answer in time"
}

// below returns the cause of an ErrUnavailable, without the operation and the cart.
func below(err error) string {
	switch e := err.(type) { //nolint:errorlint // each step of the walk looks at one error
	case interface{ Unwrap() []error }:
		all := e.Unwrap()
		if i := slices.Index(all, storage.ErrUnavailable); i >= 0 {
			var causes []string
			for _, cause := range all[i+1:] {
				causes = append(causes, cause.Error())
			}
			return strings.Join(causes, ": ")
		}
		for _, inner := range all {
			if causes := below(inner); causes != "" {
				return causes
			}
		}
	case interface{ Unwrap() error }:
		return below(e.Unwrap())
	}
	return ""
}

// warnings are what the backend last said about how safe carts are.
type warnings struct {
	log *slog.Logger

	mu   sync.Mutex
	of   *served // nil until it was asked
	now  []storage.Advice
	said map[string]time.Time // by code
}

// warnAgain is the least time between two log lines about a warning whose text changes, such as one with a count.
const warnAgain = 10 * time.Minute

// set stores what is known now, and logs what is new and what has ended.
func (w *warnings) set(now time.Time, of *served, advice []storage.Advice) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of != of || w.said == nil {
		w.said = map[string]time.Time{}
	}
	before := w.now
	w.of, w.now = of, advice
	for _, a := range advice {
		said, known := w.said[a.Code]
		if known && (slices.Contains(before, a) || now.Sub(said) < warnAgain) {
			continue
		}
		w.log.Warn(a.Message, "backend", of.Name, "code", a.Code)
		w.said[a.Code] = now
	}
	for code := range w.said {
		if !slices.ContainsFunc(advice, func(a storage.Advice) bool { return a.Code == code }) {
			w.log.Info("a warning about the backend is over", "backend", of.Name, "code", code)
			delete(w.said, code)
		}
	}
}

func (w *warnings) get(of *served) ([]storage.Advice, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of != of {
		return nil, false
	}
	return w.now, true
}
