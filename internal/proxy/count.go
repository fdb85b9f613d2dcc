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
	// countWithin is how long a count may take. It walks the keys of a backend that others use meanwhile.
	countWithin = time.Second
	// countLife is how long the last count is served to everybody, so that requests cause at most one walk in that
	// time.
	countLife = 10 * time.Second
)

// countAnswer is how many carts the backend has under the prefix of this sidecar. It names none.
type countAnswer struct {
	// Generation is that of the configuration whose carts were counted.
	Generation int64 `json:"generation"`
	Carts      int   `json:"carts"`
	// More says that the count stopped at this number.
	More bool `json:"more"`
}

// cartCount serves the number of carts. At most one count is under way. All requests meanwhile, or soon after, get its
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

// get counts for everybody, so the end of the first request does not end the count.
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

// countCarts asks the backend. Details of a failure go to the log of probes, not to the client.
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
