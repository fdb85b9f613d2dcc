package proxy

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// A call whose time is over before the backend was asked is BUSY, and not a fault of the backend.
func TestCallsThatAreLate(t *testing.T) {
	b := realBackend(t)
	b.RequestTimeout = time.Nanosecond
	w := start(t, b)
	for front, call := range map[string]func(ask) reply{"http": w.http, "grpc": w.grpc} {
		for _, a := range []ask{{rpc: "GetCart"}, items(`{"a":{}}`), raw("Swap", `{"toIdentifier":"u2"}`)} {
			r := call(a)
			if r.code != codes.ResourceExhausted || r.reason != "BUSY" || !r.retry {
				t.Errorf("%s by %s: %v %s, retry %v: %s", a.rpc, front, r.code, r.reason, r.retry, r.message)
			}
			if front == "http" && (r.http != 429 || r.header.Get("Retry-After") == "") {
				t.Errorf("%s: status %d, Retry-After %q", a.rpc, r.http, r.header.Get("Retry-After"))
			}
		}
	}
}

// TOO_LARGE says the limit and what there would have been, in numbers.
func TestTooLargeSaysLimitAndActual(t *testing.T) {
	b := realBackend(t)
	b.Limits.MaxItems, b.Limits.MaxDocumentBytes = 2, 100
	w := start(t, b)
	for _, row := range []struct {
		ask           ask
		field         string
		limit, actual string
	}{
		{items(`{"a":{},"b":{},"c":{}}`), "items", "2", "3"},
		{items(`{"a":{"x":"` + strings.Repeat("x", 100) + `"}}`), "items", "100", "114"},
	} {
		for front, call := range map[string]func(ask) reply{"http": w.http, "grpc": w.grpc} {
			r := call(row.ask)
			if r.reason != "TOO_LARGE" || r.meta["field"] != row.field || r.meta["limit"] != row.limit || r.meta["actual"] != row.actual {
				t.Errorf("%s by %s: %s %v, want %v", row.ask.rpc, front, r.reason, r.meta, row)
			}
		}
	}
}
