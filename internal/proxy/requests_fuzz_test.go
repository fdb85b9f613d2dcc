package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage/memory"
)

// fuzzed is a server without listeners: its HTTP handler is called. Each iteration uses a cart of its own.
type fuzzed struct {
	*Server
	carts int
}

func newFuzzed(f *testing.F, wait time.Duration) *fuzzed {
	f.Helper()
	store := memory.New()
	o := lock.Options{Locking: true, WaitTimeout: wait, LeaseDuration: time.Minute, TTL: time.Hour, Limits: cart.DefaultLimits(), Reason: "Configured"}
	b := Backend{
		Coordinator: lock.New(store, o), Ping: store.Ping, Name: "Memory", Mode: "enabled",
		Limits: o.Limits, RequestTimeout: 10 * time.Second, AllowFlush: true,
	}
	s, err := Start(Options{Log: slog.New(slog.DiscardHandler)}, b)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		_ = store.Close()
	})
	return &fuzzed{Server: s}
}

// fresh is the path of a cart that no iteration used.
func (s *fuzzed) fresh() string {
	s.carts++
	return fmt.Sprintf("/v1/carts/u%d/default", s.carts)
}

// ask calls the handler and checks what holds of every answer: it is JSON, and no failure of the sidecar itself.
func (s *fuzzed) ask(t *testing.T, method, path, body string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Host, r.RemoteAddr = "127.0.0.1:7421", "127.0.0.1:50000"
	if header != nil {
		r.Header = header
	}
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, r)
	var shape struct{ Reason, Message string }
	switch {
	case w.Code == http.StatusNotModified: // net/http leaves the body out
	case w.Header().Get("Content-Type") != contentJSON || json.Unmarshal(w.Body.Bytes(), &shape) != nil:
		t.Errorf("%s %s: %d without JSON: %v %q", method, path, w.Code, w.Header(), w.Body)
	case w.Code == http.StatusGatewayTimeout && r.Header["Grpc-Timeout"] != nil: // as it asked
	case w.Code >= 500, w.Code >= 400 && (shape.Reason == "" || shape.Message == ""):
		t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w
}

// must is ask for what has to succeed; it returns the body.
func (s *fuzzed) must(t *testing.T, method, path, body string) string {
	t.Helper()
	var h http.Header
	if body != "" {
		h = http.Header{"Content-Type": {contentJSON}}
	}
	w := s.ask(t, method, path, body, h)
	for n := 0; n < 100 && w.Code == http.StatusLocked; n++ { // on a slow machine a short wait may pass before the turn has come
		w = s.ask(t, method, path, body, h.Clone())
	}
	if w.Code != http.StatusOK {
		t.Fatalf("%s %s %s: %d %s", method, path, body, w.Code, w.Body)
	}
	return w.Body.String()
}

// headerRoutes are the calls that FuzzHeaders makes. scope is where the etag of what the call is about is read.
var headerRoutes = []struct{ method, path, body, scope string }{
	{http.MethodPut, "", `{"items":{"b":{"id":"b","quantity":7}}}`, ""},
	{http.MethodPut, "/items", `{"items":{"b":{"id":"b","quantity":7}}}`, "/items"},
	{http.MethodPost, "/items", `{"item":{"id":"a","quantity":1}}`, "/items"},
	{http.MethodPatch, "/items/a", `{"quantityDelta":1}`, "/items"},
	{http.MethodDelete, "/items/a", ``, "/items"},
	{http.MethodPut, "/conditions", `{"conditions":{}}`, "/conditions"},
	{http.MethodPut, "/conditions/vat", `{"condition":{"value":"7%"}}`, "/conditions"},
	{http.MethodDelete, "/conditions/vat", ``, "/conditions"},
	{http.MethodPatch, "/metadata", `{"metadata":{"k":2,"l":3}}`, "/metadata"},
	{http.MethodDelete, "/metadata", ``, "/metadata"},
	{http.MethodPut, "/metadata/k", `{"value":"new"}`, "/metadata/k"},
	{http.MethodDelete, "/metadata/k", ``, "/metadata/k"},
	{http.MethodPost, ":batch", `{"operations":[{"addItem":{"item":{"id":"a"}}}]}`, ""},
	{http.MethodPost, ":clear", ``, ""},
	{http.MethodPost, ":swap", `{"toIdentifier":"elsewhere"}`, ""},
	{http.MethodPost, ":merge", `{"toIdentifier":"elsewhere","strategy":"add_quantities"}`, ""},
	{http.MethodDelete, "", ``, ""},
	{http.MethodGet, "", ``, ""},
	{http.MethodGet, "/items", ``, "/items"},
	{http.MethodGet, "/metadata/k", ``, "/metadata/k"},
	{http.MethodHead, "", ``, ""},
	{http.MethodPost, "/locks", `{"parts":["items"],"leaseDuration":"10ms"}`, ""},
}

var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// parseHeaders reads "Name: value" lines as net/http would, and leaves out what it refuses or keeps to itself. $E
// stands for the etag of the scope, $C for that of the cart, $T for the token of a lease.
func parseHeaders(text string, replace *strings.Replacer) http.Header {
	h := http.Header{}
	for line := range strings.SplitSeq(text, "\n") {
		name, value, _ := strings.Cut(line, ":")
		name = textproto.CanonicalMIMEHeaderKey(name)
		value = strings.Trim(replace.Replace(value), " \t")
		if !headerName.MatchString(name) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) ||
			slices.Contains([]string{"Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection"}, name) {
			continue
		}
		h.Add(name, value)
	}
	return h
}

// FuzzHeaders sends every kind of call with random headers. No header makes the sidecar fail; and where one of them
// demands something, a call that succeeds has kept it.
func FuzzHeaders(f *testing.F) {
	for route := range headerRoutes {
		for _, text := range []string{
			"", "If-Match: \"$E\"", "If-Match: $E", "If-Match: \"$C\"", "If-Match: *", "If-None-Match: *", "If-None-Match: \"$E\"", "If-Match: W/\"$E\"",
			"If-Match: \"x\", \"$E\"", "If-Match: \"x, $E\"", "If-Match:", "If-Match: ,", "If-Match: \"\"", "If-None-Match:", "If-None-Match: *, *",
			"If-Match: \"x\"\nIf-Match: \"$E\"", "Sidecart-Lease: $T", "Sidecart-Lease: $T\nSidecart-Release: true", "Sidecart-Lease: other",
			"Sidecart-Lease:", "Sidecart-Lease: $T\nSidecart-Lease: $T", "Sidecart-Release: true", "Sidecart-Lease: $T\nSidecart-Release:",
			"Sidecart-Lease: $T\nSidecart-Release: perhaps", "Idempotency-Key: 1", "Idempotency-Key: \"1\"", "Idempotency-Key: \"\"", "Idempotency-Key: 1\nIdempotency-Key: 2", "Idempotency-Key:", "Content-Type: text/plain", "Content-Type:",
			"Content-Type: application/json; charset=latin1", "Content-Encoding: gzip", "Origin: https://evil.example", "Origin: null",
			"Sec-Fetch-Site: cross-site", "If-Unmodified-Since: Wed, 21 Oct 2015 07:28:00 GMT", "If-Range: x", "Content-Range: bytes 0-1/2",
			"X-HTTP-Method-Override: DELETE", "Accept: text/html", "Expect: 100-continue", "Grpc-Timeout: 1n", "Grpc-Timeout: \"1n", "Grpc-Timeout: 5", "Grpc-Metadata-If-Match: x", "Range: bytes=0-1",
		} {
			if !strings.Contains(text, "Content-Type") {
				text += "\nContent-Type: application/json"
			}
			f.Add(byte(route), true, strings.Contains(text, "$T"), text)
			f.Add(byte(route), false, false, text)
		}
	}
	s := newFuzzed(f, 20*time.Millisecond) // for a lease that is not given back in the iteration
	f.Fuzz(func(t *testing.T, route byte, there, leased bool, text string) {
		call := headerRoutes[int(route)%len(headerRoutes)]
		path := s.fresh()
		if there {
			s.must(t, http.MethodPut, path, `{"items":{"a":{"id":"a","quantity":3}},"conditions":{"vat":{"name":"vat","value":"6%"}}}`)
			s.must(t, http.MethodPut, path+"/metadata/k", `{"value":"old"}`)
		}
		token := "none"
		if leased {
			token = jsonField(t, s.must(t, http.MethodPost, path+"/locks", `{"waitTimeout":"5s"}`), "token")
		}
		before := s.must(t, http.MethodGet, path, "")
		etags := []string{jsonField(t, s.must(t, http.MethodGet, path+call.scope, ""), "etag"), jsonField(t, before, "etag")}
		h := parseHeaders(text, strings.NewReplacer("$E", etags[0], "$C", etags[1], "$T", token))
		w := s.ask(t, call.method, path+call.path, call.body, h)

		reads := call.method == http.MethodGet || call.method == http.MethodHead
		after := s.must(t, http.MethodGet, path, "")
		if reads && after != before {
			t.Fatalf("a read changed the cart: %s\n%s", before, after)
		}
		done := w.Code < 300
		if !done && w.Code != http.StatusGatewayTimeout && after != before {
			t.Fatalf("%s %s was refused (%d %s) and changed the cart:\n%s\n%s", call.method, call.path, w.Code, w.Body, before, after)
		}
		if why := unkept(h, reads, there, call.path == "/locks", call.body != "", etags, token); done && why != "" {
			t.Fatalf("%s %s succeeded, though %s: %q\n%s", call.method, call.path, why, h, w.Body)
		}
		if token != "none" {
			s.ask(t, http.MethodDelete, path+"/locks/"+token, "", nil)
		}
		s.ask(t, http.MethodDelete, path, "", nil) // in vain where the call took a lease
	})
}

// unkept says which demand of the headers does not hold, "" where all do. It reads them in its own, simple way, and
// lets through what it is not sure of.
func unkept(h http.Header, reads, there, locks, body bool, etags []string, token string) string {
	for _, name := range []string{"If-Match", "If-None-Match", headerLease, headerRelease, headerKey} {
		for _, value := range h[name] {
			if strings.Trim(value, ", \t") == "" {
				return name + " is empty"
			}
		}
	}
	if values := h["If-Match"]; values != nil && !reads {
		holds := false
		list := "," + strings.Join(values, ",") + ","
		for _, etag := range etags {
			holds = holds || etag != "" && regexp.MustCompile(`,[ \t]*("`+regexp.QuoteMeta(etag)+`"|`+regexp.QuoteMeta(etag)+`)[ \t]*,`).MatchString(list)
		}
		if !holds && (!there || !regexp.MustCompile(`,[ \t]*\*[ \t]*,`).MatchString(list)) {
			return "If-Match names no current etag"
		}
	}
	if values := h["If-None-Match"]; values != nil && !reads && (there || strings.Trim(strings.Join(values, ","), " \t") != "*") {
		return "If-None-Match does not hold"
	}
	switch lease := h[headerLease]; {
	case lease == nil || locks: // there it names the lease that is asked for
	case reads:
		return "a read takes no lease"
	case len(lease) != 1 || lease[0] != token:
		return "the lease is not held"
	}
	switch release := h[headerRelease]; {
	case release == nil:
	case reads, locks, len(release) != 1, release[0] != "true" && release[0] != "false", release[0] == "true" && h[headerLease] == nil:
		return "nothing can be released"
	}
	if keys := h[headerKey]; keys != nil && (reads || locks || len(keys) != 1) {
		return "no key is kept here"
	}
	for _, origin := range h["Origin"] {
		if !strings.Contains(origin, "localhost") && !strings.Contains(origin, "127.") && !strings.Contains(origin, "::1") {
			return "another site asks"
		}
	}
	if slices.Contains(h["Sec-Fetch-Site"], "cross-site") {
		return "another site asks"
	}
	if types := h["Content-Type"]; body && (len(types) == 0 || !strings.HasPrefix(strings.ToLower(types[0]), contentJSON)) {
		return "the body is not said to be JSON"
	}
	return ""
}

// jsonField is a text field of an answer.
func jsonField(t *testing.T, body, name string) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(body), &fields); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	text, _ := fields[name].(string)
	return text
}
