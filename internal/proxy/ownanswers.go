package proxy

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
)

// If net/http cannot read a request, it answers before any handler runs, in plain text and directly to the connection.
// All answers of this API are JSON, so the connection replaces that text by a body of ours.
//
// An answer is net/http's own if no handler has begun since the request's first byte.

// ownAnswers marks the answers of s's handler as its own, and replaces those of net/http by JSON.
func ownAnswers(s *http.Server, refused func(*failure)) {
	h := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g, ok := r.Context().Value(guestKey{}).(*guest); ok && g != nil {
			g.busy.Store(true)
		}
		h.ServeHTTP(w, r)
	})
	s.ConnContext = withGuest
	s.DisableGeneralOptionsHandler = true
	s.ConnState = func(c net.Conn, state http.ConnState) {
		g := guestOf(c)
		if g == nil {
			return
		}
		switch state {
		case http.StateNew:
			g.plain = func(line []byte) []byte { return refusal(line, refused) }
		case http.StateActive, http.StateIdle:
			g.busy.Store(false)
		}
	}
}

// Write implements [net.Conn].
func (g *guest) Write(p []byte) (int, error) {
	if g.plain == nil || g.busy.Load() || !bytes.HasPrefix(p, []byte("HTTP/1.1 ")) {
		return g.Conn.Write(p)
	}
	if _, err := g.Conn.Write(g.plain(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// refusal is the answer to a request that net/http could not read. p is net/http's own answer, which begins like
// "HTTP/1.1 431 ".
func refusal(p []byte, refused func(*failure)) []byte {
	status := http.StatusBadRequest
	if f := bytes.Fields(p[:min(len(p), len("HTTP/1.1 000 "))]); len(f) == 2 {
		if n, err := strconv.Atoi(string(f[1])); err == nil {
			status = n
		}
	}
	f := &failure{kind: kind{code: codes.InvalidArgument, reason: invalid.reason, http: status}}
	field := "request"
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		field = "header"
		f.text = fmt.Sprintf("header: is over %d bytes", maxHeaderBytes)
	case http.StatusNotImplemented:
		field = "Transfer-Encoding"
		f.text = "Transfer-Encoding: only chunked is understood"
	case http.StatusExpectationFailed:
		field = "Expect"
		f.text = "Expect: only 100-continue is understood"
	case http.StatusHTTPVersionNotSupported:
		f.text = "request: HTTP/1.0, HTTP/1.1 and HTTP/2 are understood"
	default:
		f.text = "request: is not valid HTTP: look for a bad percent-encoding in the path, a missing or bad Host, or a bad header"
	}
	f.metadata = map[string]string{"field": field}
	refused(f)
	body := f.json()
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", status, http.StatusText(status), contentJSON, len(body))
	return append([]byte(head), body...)
}
