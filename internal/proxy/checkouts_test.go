package proxy

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/sidecart/sidecart/internal/lock"
)

// What a checkout and a settlement refuse, they say of which field and change nothing.
func TestCheckoutRefuses(t *testing.T) {
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		fine := func(a ask) reply {
			t.Helper()
			r := call(a)
			if r.code != 0 {
				t.Fatalf("%s: %s %s", a.rpc, r.reason, r.message)
			}
			return r
		}
		empty := raw("Checkout", `{"checkoutId":"O-1"}`)
		for range 2 {
			if r := call(empty); r.code != codes.FailedPrecondition || r.reason != "EMPTY_CART" || r.http != 0 && r.http != 409 {
				t.Errorf("an empty cart: %d %s", r.http, r.reason)
			}
			fine(ask{rpc: "PutCondition", params: p{"name": "vat"}, body: `{"condition":{}}`}) // not empty, and still nothing to buy
		}
		fine(raw("AddItem", `{"item":{"id":"a"}}`))
		before := fine(ask{rpc: "GetCart"}).body
		for _, tc := range []struct {
			ask         ask
			reason, say string
		}{
			{raw("Checkout", `{"checkoutId":"`+strings.Repeat("x", 256)+`"}`), "INVALID", "checkoutId"},
			{raw("Checkout", `{"expiresIn":"9ms"}`), "INVALID", "expiresIn"},
			{raw("Checkout", `{"expiresIn":"721h"}`), "INVALID", "expiresIn"},
			{raw("Checkout", `{"attributes":[1]}`), "INVALID", "attributes"},
			{raw("Checkout", `{"attributes":{"a":"`+strings.Repeat("x", maxAttributeBytes)+`"}}`), "TOO_LARGE", "attributes"},
			{ask{rpc: "Checkout", ifMatch: "old"}, "CONFLICT", ""},
			{raw("Settle", `{"outcome":"ORDERED"}`), "INVALID", "checkoutId"},
			{raw("Settle", `{"checkoutId":"O-1"}`), "INVALID", "outcome"},
			{raw("Settle", `{"checkoutId":"O-1","outcome":"ordered"}`), "INVALID", "ORDERED or CANCELLED"},
			{raw("Settle", `{"checkoutId":"O-1","outcome":"ORDERED"}`), "NOT_FOUND", `checkout "O-1" is not there`},
			{ask{rpc: "GetCheckout", params: p{"checkoutId": "O-1"}}, "NOT_FOUND", `checkout "O-1" is not there`},
		} {
			if r := call(tc.ask); r.reason != tc.reason || !strings.Contains(r.message, tc.say) {
				t.Errorf("%s %.60s: %s %s, want %s of %s", tc.ask.rpc, tc.ask.body, r.reason, r.message, tc.reason, tc.say)
			}
		}
		if r := fine(ask{rpc: "ListCheckouts"}); r.body != `{"checkouts":[]}` {
			t.Errorf("list: %s", r.body)
		}
		for i := range lock.MaxOpenCheckouts {
			fine(raw("Checkout", fmt.Sprintf(`{"checkoutId":"O-%d"}`, i)))
		}
		if r := call(raw("Checkout", `{"checkoutId":"more"}`)); r.reason != "TOO_LARGE" || r.meta["limit"] != "16" || r.meta["actual"] != "17" {
			t.Errorf("one too many: %s %v", r.reason, r.meta)
		}
		fine(raw("Settle", `{"checkoutId":"O-0","outcome":"CANCELLED"}`))
		if r := call(raw("Settle", `{"checkoutId":"O-0","outcome":"ORDERED"}`)); r.code != codes.Aborted || r.reason != "ALREADY_SETTLED" || r.http != 0 && r.http != 409 {
			t.Errorf("the other outcome: %d %s", r.http, r.reason)
		}
		fine(raw("Checkout", `{"checkoutId":"more"}`))
		before, _, _ = strings.Cut(before, `,"expiresAt"`)
		if after := fine(ask{rpc: "GetCart"}).body; !strings.HasPrefix(after, before) {
			t.Errorf("the cart changed from %s to %s", before, after)
		}
	})
}

// A checkout and a cancellation wait for nobody. Both keep a lease and give it back.
func TestCheckoutWaitsForNobody(t *testing.T) {
	for _, front := range []string{"http", "grpc"} {
		t.Run(front, func(t *testing.T) {
			w := start(t, impatient(t))
			call := w.http
			if front == "grpc" {
				call = w.grpc
			}
			fine := func(a ask) reply {
				t.Helper()
				r := call(a)
				if r.code != 0 {
					t.Fatalf("%s: %s %s", a.rpc, r.reason, r.message)
				}
				return r
			}
			fine(raw("AddItem", `{"item":{"id":"a"}}`))
			token := tokenIn(fine(ask{rpc: "AcquireLease"}))
			fine(raw("Checkout", `{"checkoutId":"O-1"}`))
			fine(raw("Checkout", `{"checkoutId":"O-2"}`))
			fine(raw("Settle", `{"checkoutId":"O-1","outcome":"CANCELLED"}`))
			ordered := raw("Settle", `{"checkoutId":"O-2","outcome":"ORDERED"}`)
			if r := call(ordered); r.reason != "LOCK_TIMEOUT" {
				t.Errorf("an order: %s", r.reason)
			}
			under := ask{rpc: "Checkout", body: `{"checkoutId":"O-3"}`, lease: token}
			fine(under)
			under.release = true
			fine(under)
			if r := call(ask{rpc: "GetLease", params: p{"token": token}}); r.reason != "NOT_FOUND" {
				t.Errorf("the lease was not given back: %s", r.reason)
			}
			under.body = `{"checkoutId":"O-4"}`
			if r := call(under); r.reason != "NOT_FOUND" {
				t.Errorf("under a lease that is over: %s", r.reason)
			}
			if r := call(ask{rpc: "GetCheckout", params: p{"checkoutId": "O-4"}}); r.reason != "NOT_FOUND" {
				t.Errorf("and it was made: %s", r.body)
			}
			fine(ordered)
		})
	}
}

// A request that is sent again with its key gets the id that was made for the first one, and settles once.
func TestCheckoutsAndKeys(t *testing.T) {
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		fine := func(a ask) reply {
			t.Helper()
			r := call(a)
			if r.code != 0 {
				t.Fatalf("%s: %s %s", a.rpc, r.reason, r.message)
			}
			return r
		}
		fine(raw("AddItem", `{"item":{"id":"a","quantity":3}}`))
		out := ask{rpc: "Checkout", body: `{"expiresIn":"1h"}`, key: "k-1"}
		first, again := fine(out), fine(out)
		if first.body != again.body || again.header.Get("Idempotency-Replayed") != "true" || first.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("again: %s after %s", again.body, first.body)
		}
		out.body = `{"expiresIn":"2h"}`
		if r := call(out); r.reason != "IDEMPOTENCY_KEY_REUSED" {
			t.Errorf("the key of another request: %s", r.reason)
		}
		fine(raw("Checkout", `{"checkoutId":"O-1"}`))
		settle := ask{rpc: "Settle", body: `{"checkoutId":"O-1","outcome":"ORDERED"}`, key: "k-2"}
		one := fine(settle)
		fine(raw("AddItem", `{"item":{"id":"a","quantity":3}}`))
		two := fine(settle)
		if !strings.HasPrefix(one.body, `{"settled":true`) || !strings.HasPrefix(two.body, `{"settled":true`) || two.header.Get("Idempotency-Replayed") != "true" ||
			!strings.Contains(two.body, `"quantity":3}},"conditions":{},"metadata":{},"createdAt"`) {
			t.Errorf("settled again: %s after %s", two.body, one.body)
		}
		settle.key = "k-3"
		if r := fine(settle); !strings.HasPrefix(r.body, `{"settled":false`) {
			t.Errorf("under another key: %s", r.body)
		}
	})
}

// A checkout that ran out can still be settled.
func TestExpiredCheckoutIsSettled(t *testing.T) {
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		call(raw("AddItem", `{"item":{"id":"a","quantity":3}}`))
		call(raw("Checkout", `{"checkoutId":"O-1","expiresIn":"10ms"}`))
		until(t, "the expiry", func() bool {
			return strings.Contains(call(ask{rpc: "GetCheckout", params: p{"checkoutId": "O-1"}}).body, `"state":"EXPIRED"`)
		})
		r := call(raw("Settle", `{"checkoutId":"O-1","outcome":"ORDERED"}`))
		if !strings.HasPrefix(r.body, `{"settled":true`) || !strings.Contains(r.body, `"cart":{"identifier":"u1"`) || !strings.Contains(r.body, `"version":2`) {
			t.Errorf("settled: %s %s", r.reason, r.body)
		}
	})
}

// Both documents of a large cart do not fit into what a client takes: then the cart's are left out.
func TestLargeCheckoutFits(t *testing.T) {
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		large := `"` + strings.Repeat("x", 1<<20-64) + `"`
		for _, a := range []ask{
			raw("AddItem", `{"item":{"id":"a","note":`+large+`}}`), {rpc: "PutMetadataValue", params: p{"key": "k"}, body: `{"value":` + large + `}`},
		} {
			if r := call(a); r.code != 0 {
				t.Fatal(r.reason, r.message)
			}
		}
		r := call(raw("Checkout", `{"checkoutId":"O-1"}`))
		if r.code != 0 || len(r.body) < 2<<20-1024 || len(r.body) > 2<<20+1024 || !strings.Contains(r.body, `"version":2,"etag":`) {
			t.Fatalf("%s %s: %d bytes", r.reason, r.message, len(r.body))
		}
		call(raw("Checkout", `{"checkoutId":"O-2"}`))
		if r := call(ask{rpc: "ListCheckouts"}); r.code != 0 || strings.Count(r.body, `"state":"OPEN"`) != 2 || strings.Count(r.body, `"items"`) != 1 {
			t.Errorf("list: %s %s: %d bytes", r.reason, r.message, len(r.body))
		}
	})
}
