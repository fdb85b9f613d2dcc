package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

const (
	// mostCounted is where a count ends.
	mostCounted = 1_000_000
	// countWithin is how long it may take: it walks the keys of a backend that others use meanwhile.
	countWithin = time.Second
	// countLife is how long the last count is given to everybody, so that requests cause one walk in that time at most.
	countLife = 10 * time.Second
)

// countAnswer is how many carts the backend has under the prefix of this sidecar. It names none.
type countAnswer struct {
	// Generation is that of the configuration that the count is of.
	Generation int64 `json:"generation"`
	Carts      int   `json:"carts"`
	// More says that it was given up at this number.
	More bool `json:"more"`
}

// cartCount serves the number of carts. At most one count is under way. All who ask meanwhile or soon after get its
// result.
type cartCount struct {
	count      func(ctx context.Context) (countAnswer, int, string)
	generation func() int64 // of the configuration now
	now        func() time.Time

	mu      sync.Mutex
	last    countAnswer
	status  int
	message string
	of      int64 // generation
	at      time.Time
}

func newCartCount(s *Server) *cartCount {
	return &cartCount{count: s.countCarts, now: time.Now, generation: func() int64 {
		l := s.service.backends.enter()
		defer l.leave()
		return l.Generation
	}}
}

// ServeHTTP implements [http.Handler].
func (c *cartCount) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, status, message := c.get(r.Context())
	w.Header().Set("Cache-Control", "no-store")
	if status != http.StatusOK {
		http.Error(w, message, status)
		return
	}
	w.Header().Set("Content-Type", contentJSON)
	_ = json.NewEncoder(w).Encode(answer)
}

// get counts for everybody: the end of the first one's request does not end it.
func (c *cartCount) get(ctx context.Context) (countAnswer, int, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.generation(); c.status == 0 || c.of != now || c.now().Sub(c.at) >= countLife {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countWithin)
		defer cancel()
		c.last, c.status, c.message = c.count(ctx)
		c.of, c.at = now, c.now()
	}
	return c.last, c.status, c.message
}

// countCarts asks the backend. What it says of a failure is for the log of probes, not for strangers.
func (s *Server) countCarts(ctx context.Context) (answer countAnswer, status int, message string) {
	l := s.service.backends.enter()
	defer l.leave()
	if l.Count == nil {
		return answer, http.StatusNotImplemented, "this backend cannot count its carts"
	}
	n, more, err := l.Count(ctx, mostCounted)
	if err != nil {
		return answer, http.StatusServiceUnavailable, "the backend did not say how many carts it has in time"
	}
	return countAnswer{Generation: l.Generation, Carts: n, More: more}, http.StatusOK, ""
}
