package proxy

import (
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"
)

// What is not there has an etag by either front, with which one of two clients that open a cart at once is refused.
func TestAbsentETags(t *testing.T) {
	eachFront(t, func(t *testing.T, w *world, call func(ask) reply) {
		reads := []ask{{rpc: "GetCart"}, {rpc: "GetItems"}, {rpc: "GetConditions"}, {rpc: "GetMetadata"}, {rpc: "GetMetadataValue", params: p{"key": "k"}}}
		etags := map[string]string{}
		for _, a := range reads {
			r := call(a)
			etags[a.rpc] = etagOf(t, r)
			if etags[a.rpc] == "" {
				t.Fatalf("%s: %s", a.rpc, r.body)
			}
			if r.http == 0 {
				continue
			}
			for _, given := range []string{`"` + etags[a.rpc] + `"`, `W/"` + etags[a.rpc] + `"`, `"x", "` + etags[a.rpc] + `"`} {
				a.ifNoneMatch = given
				if r := w.http(a); r.http != http.StatusNotModified || r.body != "" || r.header.Get("ETag") != `"`+etags[a.rpc]+`"` {
					t.Errorf("%s, If-None-Match %s: %d %s", a.rpc, given, r.http, r.body)
				}
			}
		}
		ok := func(what string, r reply) {
			t.Helper()
			if r.code != 0 {
				t.Fatalf("%s: %s %s", what, r.reason, r.message)
			}
		}
		refused := func(what string, r reply, message string) {
			t.Helper()
			if r.code != codes.Aborted || r.reason != "CONFLICT" || r.message != message || r.meta["attemptedVersion"] != "0" || r.http != 0 && r.http != http.StatusPreconditionFailed {
				t.Fatalf("%s: %s %s %v, want %s", what, r.reason, r.message, r.meta, message)
			}
		}
		first, second := items(`{"a":{}}`), items(`{"b":{}}`)
		first.ifMatch, second.ifMatch = etags["GetItems"], etags["GetItems"]
		ok("the first", call(first))
		refused("the second", call(second), "items were set meanwhile, at version 1")
		second.ifMatch = etags["GetCart"]
		refused("the second, for the cart", call(second), "there is a cart now, at version 1")
		fee := ask{rpc: "PutCondition", params: p{"name": "fee"}, body: `{"condition":{}}`, ifMatch: etags["GetConditions"]}
		ok("another part, which is still not set", call(fee))
		refused("and now it is", call(fee), "conditions were set meanwhile, at version 2")
		value := ask{rpc: "PutMetadataValue", params: p{"key": "k"}, body: `{"value":1}`, ifMatch: etags["GetMetadataValue"]}
		ok("a value", call(value))
		refused("again", call(value), `metadata["k"] was set meanwhile, at version 3`)
		ok("forget", call(ask{rpc: "Forget"}))
		refused("of a cart that was forgotten", call(ask{rpc: "Clear", ifMatch: etags["GetItems"]}), "the etag is of another part of the cart")
		ok("there is none again", call(ask{rpc: "PutItems", body: `{"items":{"c":{}}}`, ifMatch: etags["GetCart"]}))
	})
}
