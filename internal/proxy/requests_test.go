package proxy

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// Each change of the script is sent three times under a key: the first is made, the others change nothing and say so,
// whatever preconditions and leases they come with.
func TestRepeatsOfTheScript(t *testing.T) {
	eachFront(t, func(t *testing.T, w *world, call func(ask) reply) {
		token, repeats := "", 0
		for i, row := range script {
			if row.ask.lease != "" {
				row.ask.lease = token
			}
			if row.ask.params["token"] != "" {
				row.ask.params = p{"token": token}
			}
			row.ask.key = fmt.Sprintf("key %d", i)
			got := call(row.ask)
			if t := tokenIn(got); t != "" {
				token = t
			}
			if got.header.Get("Idempotency-Replayed") != "" || got.header.Get("Sidecart-Change-Version") != "" {
				t.Errorf("%s: the first says that it is a repeat: %v", row.name, got.header)
			}
			if !has(t, row.ask.rpc, "idempotency_key") || got.header.Get("Sidecart-Cart-Id") == "" {
				continue // no change, or the cart is gone and its keys with it
			}
			for range 2 {
				again := call(row.ask)
				if again.code != codes.OK || again.header.Get("Idempotency-Replayed") != "true" || again.header.Get("Sidecart-Change-Version") != got.header.Get("Sidecart-Version") {
					t.Fatalf("%s, sent again: %s %s %v", row.name, again.code, again.message, again.header)
				}
				if again.body != got.body {
					t.Errorf("%s is answered\n%s, sent again\n%s", row.name, got.body, again.body)
				}
			}
			repeats++
		}
		if repeats < 20 {
			t.Errorf("only %d changes were sent again", repeats)
		}
	})
}

// The same request is the same on both fronts, whatever white space is in it; another one is refused.
func TestWhatTheSameRequestIs(t *testing.T) {
	w := start(t, realBackend(t))
	fronts := []func(ask) reply{w.http, w.grpc}
	add := ask{rpc: "AddItem", body: `{"item":{"id":"a","attributes":{"x":1.50}}}`, key: "k", ifNoneMatch: "*"}
	for i, call := range fronts {
		if r := call(add); r.code != codes.OK || (r.header.Get("Idempotency-Replayed") != "") != (i > 0) {
			t.Fatalf("%s %s %v", r.code, r.message, r.header)
		}
	}
	with := func(alter func(*ask)) ask {
		a := add
		alter(&a)
		return a
	}
	for name, same := range map[string]ask{
		"spaces":      with(func(a *ask) { a.body = "{ \"item\" : {\"id\": \"a\",\n\"attributes\": {\"x\": 1.50}} }" }),
		"quotes":      with(func(a *ask) { a.key = `"k"` }),
		"less answer": with(func(a *ask) { a.minimal = true }),
		"a lease":     with(func(a *ask) { a.lease = "nosuchtokennosuchtoken" }),
	} {
		for _, call := range fronts {
			if r := call(same); r.code != codes.OK || r.header.Get("Sidecart-Change-Version") != "1" {
				t.Errorf("%s: %s %s %v", name, r.code, r.message, r.header)
			}
		}
	}
	for name, other := range map[string]ask{
		"number":       with(func(a *ask) { a.body = `{"item":{"id":"a","attributes":{"x":1.5}}}` }),
		"precondition": with(func(a *ask) { a.ifNoneMatch = "" }),
		"other":        with(func(a *ask) { a.ifNoneMatch, a.ifMatch = "", "*" }),
		"call":         {rpc: "RemoveItem", params: p{"itemId": "a"}, key: "k"},
		"batch":        {rpc: "Batch", body: `{"operations":[{"addItem":{"item":{"id":"a","attributes":{"x":1.50}}}}]}`, key: "k", ifNoneMatch: "*"},
		"source":       {rpc: "Swap", params: p{"identifier": "u2"}, body: `{"toIdentifier":"u1"}`, key: "k"},
	} {
		for front, call := range fronts {
			r := call(other)
			if r.code != codes.InvalidArgument || r.reason != "IDEMPOTENCY_KEY_REUSED" || front == 0 && r.http != http.StatusUnprocessableEntity ||
				!strings.Contains(r.message, "version 1") || !strings.Contains(r.meta["field"], "dempotency") || r.header.Get("Idempotency-Replayed") != "" {
				t.Errorf("%s: %d %s %s %s %v", name, r.http, r.code, r.reason, r.message, r.header)
			}
		}
	}
	for front, call := range fronts { // a batch is compared in its documents too
		batch := ask{rpc: "Batch", key: "b" + strconv.Itoa(front), body: `{"operations":[{"putItems":{"items":{"a":{"quantity":2}}}}]}`}
		loose := batch
		loose.body = `{"operations":[{"putItems":{"items":{ "a": {"quantity": 2}}}}]}`
		call(batch)
		if r := call(loose); r.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("a batch with spaces: %s %s", r.code, r.message)
		}
	}
	if r := w.http(ask{rpc: "GetCart"}); r.header.Get("Sidecart-Version") != "2" {
		t.Errorf("version %s: %s", r.header.Get("Sidecart-Version"), r.body)
	}
}
