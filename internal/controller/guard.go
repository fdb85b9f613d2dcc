package controller

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Bounds on the cost of all calls of the webhook together. A pod is decoded and encoded again, so a call takes several
// times the memory of its body; the operator's limit is 512 MiB.
const (
	callBytes    = 16 << 20         // of all bodies under way
	callLargest  = 3 << 20          // of one; the API server takes no larger object
	callSmallest = 128 << 10        // what any call counts for, so that no more than 128 are under way
	callWait     = 2 * time.Second  // for others to end; the API server waits for five
	callRead     = 2 * time.Second  // for the body to come
	clientCAAge  = 30 * time.Second // of the authorities, until the file is read again
)

// guard bounds the calls of a handler, since anybody who reaches the port can call. A call must say the size of its
// body. Memory for the body is reserved before any of it is read, and the body must come soon. If there are authorities
// for clients, a caller must show a certificate.
type guard struct {
	handler http.Handler
	clients *clientCAs // nil is anyone
	budget  *semaphore.Weighted
	wait    time.Duration
}

func newGuard(handler http.Handler, clients *clientCAs) *guard {
	return &guard{handler: handler, clients: clients, budget: semaphore.NewWeighted(callBytes), wait: callWait}
}

// beside guards another handler, whose calls share the reservation of memory.
func (g *guard) beside(handler http.Handler) *guard {
	other := *g
	other.handler = handler
	return &other
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.clients != nil && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0) {
		http.Error(w, "show a client certificate: this webhook answers the API server only", http.StatusForbidden)
		return
	}
	switch {
	case r.ContentLength < 0:
		http.Error(w, "Content-Length is missing: say how long the body is", http.StatusLengthRequired)
		return
	case r.ContentLength > callLargest:
		http.Error(w, fmt.Sprintf("the body has %d bytes, and may have %d", r.ContentLength, callLargest), http.StatusRequestEntityTooLarge)
		return
	}
	size := max(r.ContentLength, callSmallest)
	if !g.reserve(r, size) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many calls are under way: call again", http.StatusServiceUnavailable)
		return
	}
	defer g.budget.Release(size)
	body, err := readWithin(w, r, callRead)
	if err != nil {
		http.Error(w, "the body does not come: "+err.Error(), http.StatusRequestTimeout)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	g.handler.ServeHTTP(w, r)
}

// readWithin reads the body of a request within a time. A slow body would hold its reservation.
func readWithin(w http.ResponseWriter, r *http.Request, limit time.Duration) ([]byte, error) {
	conn := http.NewResponseController(w)
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return nil, err
	}
	return body, conn.SetReadDeadline(time.Time{}) // the answer may take longer
}

// reserve reserves memory, and waits a moment for other calls to end.
func (g *guard) reserve(r *http.Request, size int64) bool {
	if g.budget.TryAcquire(size) {
		return true
	}
	ctx, cancel := context.WithTimeout(r.Context(), g.wait)
	defer cancel()
	return g.budget.Acquire(ctx, size) == nil
}

// clientCAs are the authorities whose certificates callers must show. The file is read again from time to time, so that
// it can be renewed.
type clientCAs struct {
	file string
	now  func() time.Time

	mu   sync.Mutex
	pool *x509.CertPool
	read time.Time
}

func newClientCAs(file string) (*clientCAs, error) {
	c := &clientCAs{file: file, now: time.Now}
	pool, err := c.load()
	c.pool, c.read = pool, c.now()
	return c, err
}

func (c *clientCAs) load() (*x509.CertPool, error) {
	data, err := os.ReadFile(c.file)
	if err != nil {
		return nil, fmt.Errorf("authorities of the webhook's clients: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("authorities of the webhook's clients: %s has no certificate in PEM", c.file)
	}
	return pool, nil
}

// current returns the authorities. If the file cannot be read, it returns the last ones.
func (c *clientCAs) current() *x509.CertPool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.read) > clientCAAge {
		c.read = now
		if pool, err := c.load(); err == nil {
			c.pool = pool
		}
	}
	return c.pool
}

// configure makes the server ask for a certificate. A certificate of another authority ends the handshake. [guard]
// refuses callers without one: they get a message, and a probe of the port causes no line in the log.
func (c *clientCAs) configure(t *tls.Config) {
	t.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool := c.current()
		if pool == nil {
			return nil, errors.New("there are no authorities for clients")
		}
		own := t.Clone()
		own.GetConfigForClient, own.ClientAuth, own.ClientCAs = nil, tls.VerifyClientCertIfGiven, pool
		return own, nil
	}
}
