package proxy

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

type p = map[string]string

// The script is run by both fronts, each on an empty store; every answer must be the same, to the byte.
var script = []struct {
	name string
	ask  ask
	want string
}{
	{"a cart that is not there reads as empty", ask{rpc: "GetCart"},
		`{"identifier":"u1","instance":"default","id":"","version":0,"etag":"…","items":{},"conditions":{},"metadata":{},"createdAt":null,"updatedAt":null,"expiresAt":null}`},
	{"so do its items", ask{rpc: "GetItems"}, `{"items":{},"version":0,"etag":"…"}`},
	{"its conditions", ask{rpc: "GetConditions"}, `{"conditions":{},"version":0,"etag":"…"}`},
	{"its metadata", ask{rpc: "GetMetadata"}, `{"metadata":{},"version":0,"etag":"…"}`},
	{"and a value", ask{rpc: "GetMetadataValue", params: p{"key": "notes"}}, `{"key":"notes","value":null,"version":0,"etag":"…"}`},
	{"to read did not create", ask{rpc: "ListInstances"}, `{"identifier":"u1","instances":[]}`},
	{"to remove what is not there succeeds", ask{rpc: "RemoveItem", params: p{"itemId": "a"}}, `{"items":{},"version":0,"etag":"…"}`},
	{"and does not create", ask{rpc: "Forget"}, `{"forgotten":false}`},

	{"add", ask{rpc: "AddItem", body: `{"item":{"id":"a","price":19.90,"own":{"z":1e2,"a":[ 1 ]},"quantity":2}}`},
		`{"items":{"a":{"id":"a","price":19.90,"own":{"z":1e2,"a":[1]},"quantity":2}},"version":1,"etag":"…"}`},
	{"add again", ask{rpc: "AddItem", body: `{"item":{"id":"a"}}`},
		`{"items":{"a":{"id":"a","price":19.90,"own":{"z":1e2,"a":[1]},"quantity":3}},"version":2,"etag":"…"}`},
	{"update", ask{rpc: "UpdateItem", params: p{"itemId": "a"}, body: `{"item":{"name":"Mug <&> \u00fc","own":null}}`},
		`{"items":{"a":{"id":"a","price":19.90,"own":null,"quantity":3,"name":"Mug <&> \u00fc"}},"version":3,"etag":"…"}`},
	{"quantityDelta", ask{rpc: "UpdateItem", params: p{"itemId": "a"}, body: `{"quantityDelta":-1}`},
		`{"items":{"a":{"id":"a","price":19.90,"own":null,"quantity":2,"name":"Mug <&> \u00fc"}},"version":4,"etag":"…"}`},
	{"to 0 removes", ask{rpc: "UpdateItem", params: p{"itemId": "a"}, body: `{"quantityDelta":-2}`},
		`{"items":{},"version":5,"etag":"…"}`},
	{"PHP's empty map", ask{rpc: "PutItems", body: `{"items":[]}`}, `{"items":{},"version":5,"etag":"…"}`},
	{"put items", ask{rpc: "PutItems", body: `{"items":{"z":{"quantity":1},"b/..":{"quantity":2,"price":1999}}}`},
		`{"items":{"z":{"quantity":1},"b/..":{"quantity":2,"price":1999}},"version":6,"etag":"…"}`},
	{"the same again changes nothing", ask{rpc: "PutItems", body: `{"items":{"z":{"quantity":1},"b/..":{"quantity":2,"price":1999}}}`},
		`{"items":{"z":{"quantity":1},"b/..":{"quantity":2,"price":1999}},"version":6,"etag":"…"}`},
	{"remove", ask{rpc: "RemoveItem", params: p{"itemId": "b/.."}}, `{"items":{"z":{"quantity":1}},"version":7,"etag":"…"}`},

	{"put condition", ask{rpc: "PutCondition", params: p{"name": "vat"}, body: `{"condition":{"name":"vat","value":"6%"}}`},
		`{"conditions":{"vat":{"name":"vat","value":"6%"}},"version":8,"etag":"…"}`},
	{"put conditions", ask{rpc: "PutConditions", body: `{"conditions":{"fee":{"value":1},"vat":{"value":"7%"}}}`},
		`{"conditions":{"fee":{"value":1},"vat":{"value":"7%"}},"version":9,"etag":"…"}`},
	{"remove condition", ask{rpc: "RemoveCondition", params: p{"name": "fee"}}, `{"conditions":{"vat":{"value":"7%"}},"version":10,"etag":"…"}`},

	{"put value", ask{rpc: "PutMetadataValue", params: p{"key": "no\"tes"}, body: `{"value": [ 1.0, {"x" :null}] }`},
		`{"key":"no\"tes","value":[1.0,{"x":null}],"version":11,"etag":"…"}`},
	{"patch", ask{rpc: "PatchMetadata", body: `{"metadata":{"gift":true,"no\"tes":null,"coupon":{"code":"SAVE20"}}}`},
		`{"metadata":{"gift":true,"coupon":{"code":"SAVE20"}},"version":12,"etag":"…"}`},
	{"a removed key keeps a version", ask{rpc: "GetMetadataValue", params: p{"key": "no\"tes"}}, `{"key":"no\"tes","value":null,"version":12,"etag":"…"}`},
	{"null removes", ask{rpc: "PutMetadataValue", params: p{"key": "gift"}, body: `{"value":null}`}, `{"key":"gift","value":null,"version":13,"etag":"…"}`},
	{"remove value", ask{rpc: "RemoveMetadataValue", params: p{"key": "coupon"}}, `{"key":"coupon","value":null,"version":14,"etag":"…"}`},
	{"clear metadata", ask{rpc: "ClearMetadata"}, `{"metadata":{},"version":14,"etag":"…"}`},

	{"put both", ask{rpc: "PutCart", body: `{"items":{"a":{"quantity":1}},"conditions":[]}`},
		`{"identifier":"u1","instance":"default","id":"…","version":15,"etag":"…","items":{"a":{"quantity":1}},"conditions":{},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}`},
	{"a batch is one change", ask{rpc: "Batch", body: `{"operations":[{"addItem":{"item":{"id":"c","quantity":5}}},{"updateItem":{"id":"c","quantityDelta":1}},
		{"updateItem":{"id":"c","item":{"name":"C"}}},{"removeItem":{"id":"a"}},{"putCondition":{"name":"vat","condition":{"value":1}}},{"removeCondition":{"name":"x"}},
		{"putMetadata":{"key":"k","value":1.50}},{"putMetadata":{"key":"l","value":2}},{"removeMetadata":{"key":"l"}}]}`},
		`{"identifier":"u1","instance":"default","id":"…","version":16,"etag":"…","items":{"c":{"id":"c","quantity":6,"name":"C"}},"conditions":{"vat":{"value":1}},"metadata":{"k":1.50},"createdAt":"…","updatedAt":"…","expiresAt":"…"}`},
	{"putItems in a batch", ask{rpc: "Batch", body: `{"operations":[{"putItems":{"items":{"d":{"quantity":1}}}}]}`},
		`{"identifier":"u1","instance":"default","id":"…","version":17,"etag":"…","items":{"d":{"quantity":1}},"conditions":{"vat":{"value":1}},"metadata":{"k":1.50},"createdAt":"…","updatedAt":"…","expiresAt":"…"}`},

	{"all that a batch can clear, count and replace", ask{rpc: "Batch", body: `{"operations":[{"clear":{}},{"putItems":{"items":{"d":{"quantity":1}}}},{"putConditions":{"conditions":{"vat":{"value":1},"fee":{}}}},
		{"patchMetadata":{"metadata":{"x":1,"k":null}}},{"clearMetadata":{}},{"incrementMetadata":{"key":"n","by":-3}},{"incrementMetadata":{"key":"n"}},{"putConditions":{"conditions":{"vat":{"value":1}}}},
		{"patchMetadata":{"metadata":{"k":1.50,"n":null}}}]}`},
		`{"identifier":"u1","instance":"default","id":"…","version":17,"etag":"…","items":{"d":{"quantity":1}},"conditions":{"vat":{"value":1}},"metadata":{"k":1.50},"createdAt":"…","updatedAt":"…","expiresAt":"…"}`},
	{"counted", ask{rpc: "Batch", params: p{"identifier": "counts"}, body: `{"operations":[{"incrementMetadata":{"key":"n","by":-3}},{"incrementMetadata":{"key":"n"}}]}`},
		`{"identifier":"counts","instance":"default","id":"…","version":1,"etag":"…","items":{},"conditions":{},"metadata":{"n":-2},"createdAt":"…","updatedAt":"…","expiresAt":"…"}`},

	{"swap", ask{rpc: "Swap", body: `{"toIdentifier":"u2"}`},
		`{"swapped":true,"cart":{"identifier":"u2","instance":"default","id":"…","version":18,"etag":"…","items":{"d":{"quantity":1}},"conditions":{"vat":{"value":1}},"metadata":{"k":1.50},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"nothing left to swap", ask{rpc: "Swap", body: `{"toIdentifier":"u3"}`},
		`{"swapped":false,"cart":{"identifier":"u3","instance":"default","id":"","version":0,"etag":"…","items":{},"conditions":{},"metadata":{},"createdAt":null,"updatedAt":null,"expiresAt":null}}`},
	{"onto itself", ask{rpc: "Swap", params: p{"identifier": "u2"}, body: `{"toIdentifier":"u2"}`},
		`{"swapped":false,"cart":{"identifier":"u2","instance":"default","id":"…","version":18,"etag":"…","items":{"d":{"quantity":1}},"conditions":{"vat":{"value":1}},"metadata":{"k":1.50},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"a guest", ask{rpc: "AddItem", params: p{"identifier": "guest"}, body: `{"item":{"id":"d","quantity":2}}`}, `{"items":{"d":{"id":"d","quantity":2}},"version":1,"etag":"…"}`},
	{"merge", ask{rpc: "Merge", params: p{"identifier": "guest"}, body: `{"toIdentifier":"u2","strategy":"add_quantities"}`},
		`{"merged":true,"cart":{"identifier":"u2","instance":"default","id":"…","version":19,"etag":"…","items":{"d":{"quantity":3,"id":"d"}},"conditions":{"vat":{"value":1}},"metadata":{"k":1.50},"createdAt":"…","updatedAt":"…","expiresAt":"…"},"capped":[]}`},
	{"the guest is gone", ask{rpc: "ListInstances", params: p{"identifier": "guest"}}, `{"identifier":"guest","instances":[]}`},

	{"another instance", ask{rpc: "PutMetadataValue", params: p{"identifier": "u2", "instance": "wish.list", "key": "k"}, body: `{"value":1}`}, `{"key":"k","value":1,"version":1,"etag":"…"}`},
	{"are listed in order", ask{rpc: "ListInstances", params: p{"identifier": "u2"}}, `{"identifier":"u2","instances":["default","wish.list"]}`},
	{"clear keeps the id", ask{rpc: "Clear", params: p{"identifier": "u2"}},
		`{"identifier":"u2","instance":"default","id":"…","version":20,"etag":"…","items":{},"conditions":{},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}`},
	{"clear takes an empty object", ask{rpc: "Clear", params: p{"identifier": "u2"}, body: ` {} `},
		`{"identifier":"u2","instance":"default","id":"…","version":20,"etag":"…","items":{},"conditions":{},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}`},
	{"forget", ask{rpc: "Forget", params: p{"identifier": "u2"}}, `{"forgotten":true}`},
	{"forget all", ask{rpc: "ForgetAll", params: p{"identifier": "u2"}}, `{"forgotten":1}`},

	{"a lease", ask{rpc: "AcquireLease", body: `{"parts":["items","metadata.notes"],"waitTimeout":"2s","leaseDuration":"30s","holder":"checkout"}`},
		`{"token":"…","fence":1,"expiresAt":"…","parts":["items","metadata.notes"],"holder":"checkout","cart":{"identifier":"u1","instance":"default","id":"","version":0,"etag":"…","items":{},"conditions":{},"metadata":{},"createdAt":null,"updatedAt":null,"expiresAt":null}}`},
	{"under it", ask{rpc: "AddItem", lease: "$token", body: `{"item":{"id":"d"}}`}, `{"items":{"d":{"id":"d","quantity":1}},"version":1,"etag":"…"}`},
	{"other parts are free", ask{rpc: "PutCondition", params: p{"name": "vat"}, body: `{"condition":{"value":1}}`}, `{"conditions":{"vat":{"value":1}},"version":2,"etag":"…"}`},
	{"it stands", ask{rpc: "GetLease", params: p{"token": "$token"}}, `{"token":"…","fence":1,"expiresAt":"…","parts":["items","metadata.notes"],"holder":"checkout"}`},
	{"it is renewed", ask{rpc: "RenewLease", params: p{"token": "$token"}, body: `{"leaseDuration":"1h"}`}, `{"token":"…","fence":1,"expiresAt":"…","parts":["items","metadata.notes"],"holder":"checkout"}`},
	{"acquired again", ask{rpc: "AcquireLease", lease: "$token", body: `{"parts":["items"]}`},
		`{"token":"…","fence":1,"expiresAt":"…","parts":["items","metadata.notes"],"holder":"checkout","cart":{"identifier":"u1","instance":"default","id":"…","version":2,"etag":"…","items":{"d":{"id":"d","quantity":1}},"conditions":{"vat":{"value":1}},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"no change, and given back", ask{rpc: "RemoveItem", params: p{"itemId": "no"}, lease: "$token", release: true}, `{"items":{"d":{"id":"d","quantity":1}},"version":1,"etag":"…"}`},
	{"another, of the whole cart", ask{rpc: "AcquireLease", body: `{"holder":"me"}`},
		`{"token":"…","fence":1,"expiresAt":"…","parts":["*"],"holder":"me","cart":{"identifier":"u1","instance":"default","id":"…","version":2,"etag":"…","items":{"d":{"id":"d","quantity":1}},"conditions":{"vat":{"value":1}},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"released", ask{rpc: "ReleaseLease", params: p{"token": "$token"}}, `{}`},
	{"and one that ends with the cart", ask{rpc: "AcquireLease", body: `{"parts":["*"],"holder":"me","waitTimeout":"0s"}`},
		`{"token":"…","fence":1,"expiresAt":"…","parts":["*"],"holder":"me","cart":{"identifier":"u1","instance":"default","id":"…","version":2,"etag":"…","items":{"d":{"id":"d","quantity":1}},"conditions":{"vat":{"value":1}},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"forget under it", ask{rpc: "Forget", lease: "$token", release: true}, `{"forgotten":true}`},
	{"one more", ask{rpc: "AddItem", body: `{"item":{"id":"d"}}`}, `{"items":{"d":{"id":"d","quantity":1}},"version":1,"etag":"…"}`},
	{"a checkout", ask{rpc: "Checkout", body: `{"checkoutId":"O-1","expiresIn":"30m","attributes":{"total": 19.90}}`},
		`{"checkout":{"id":"O-1","state":"OPEN","cartId":"…","version":1,"items":{"d":{"id":"d","quantity":1}},"conditions":{},"metadata":{},"attributes":{"total":19.90},"createdAt":"…","expiresAt":"…","settledAt":null},"cart":{"identifier":"u1","instance":"default","id":"…","version":1,"etag":"…","items":{"d":{"id":"d","quantity":1}},"conditions":{},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"again", ask{rpc: "Checkout", body: `{"checkoutId":"O-1"}`},
		`{"checkout":{"id":"O-1","state":"OPEN","cartId":"…","version":1,"items":{"d":{"id":"d","quantity":1}},"conditions":{},"metadata":{},"attributes":{"total":19.90},"createdAt":"…","expiresAt":"…","settledAt":null},"cart":{"identifier":"u1","instance":"default","id":"…","version":1,"etag":"…","items":{"d":{"id":"d","quantity":1}},"conditions":{},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"added meanwhile", ask{rpc: "AddItem", body: `{"item":{"id":"d","quantity":2}}`}, `{"items":{"d":{"id":"d","quantity":3}},"version":2,"etag":"…"}`},
	{"paid", ask{rpc: "Settle", body: `{"checkoutId":"O-1","outcome":"ORDERED"}`},
		`{"settled":true,"checkout":{"id":"O-1","state":"ORDERED","cartId":"…","version":1,"items":{"d":{"id":"d","quantity":1}},"conditions":{},"metadata":{},"attributes":{"total":19.90},"createdAt":"…","expiresAt":"…","settledAt":"…"},"cart":{"identifier":"u1","instance":"default","id":"…","version":3,"etag":"…","items":{"d":{"id":"d","quantity":2}},"conditions":{},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"paid twice", ask{rpc: "Settle", body: `{"checkoutId":"O-1","outcome":"ORDERED"}`},
		`{"settled":false,"checkout":{"id":"O-1","state":"ORDERED","cartId":"…","version":1,"items":{"d":{"id":"d","quantity":1}},"conditions":{},"metadata":{},"attributes":{"total":19.90},"createdAt":"…","expiresAt":"…","settledAt":"…"},"cart":{"identifier":"u1","instance":"default","id":"…","version":3,"etag":"…","items":{"d":{"id":"d","quantity":2}},"conditions":{},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"another", ask{rpc: "Checkout", body: `{"checkoutId":"O 2/"}`},
		`{"checkout":{"id":"O 2/","state":"OPEN","cartId":"…","version":3,"items":{"d":{"id":"d","quantity":2}},"conditions":{},"metadata":{},"attributes":{},"createdAt":"…","expiresAt":"…","settledAt":null},"cart":{"identifier":"u1","instance":"default","id":"…","version":3,"etag":"…","items":{"d":{"id":"d","quantity":2}},"conditions":{},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"given up", ask{rpc: "Settle", body: `{"checkoutId":"O 2/","outcome":"CANCELLED"}`},
		`{"settled":true,"checkout":{"id":"O 2/","state":"CANCELLED","cartId":"…","version":3,"items":{"d":{"id":"d","quantity":2}},"conditions":{},"metadata":{},"attributes":{},"createdAt":"…","expiresAt":"…","settledAt":"…"},"cart":{"identifier":"u1","instance":"default","id":"…","version":3,"etag":"…","items":{"d":{"id":"d","quantity":2}},"conditions":{},"metadata":{},"createdAt":"…","updatedAt":"…","expiresAt":"…"}}`},
	{"one checkout", ask{rpc: "GetCheckout", params: p{"checkoutId": "O 2/"}},
		`{"id":"O 2/","state":"CANCELLED","cartId":"…","version":3,"items":{"d":{"id":"d","quantity":2}},"conditions":{},"metadata":{},"attributes":{},"createdAt":"…","expiresAt":"…","settledAt":"…"}`},
	{"all checkouts", ask{rpc: "ListCheckouts"},
		`{"checkouts":[{"id":"O 2/","state":"CANCELLED","cartId":"…","version":3,"items":{"d":{"id":"d","quantity":2}},"conditions":{},"metadata":{},"attributes":{},"createdAt":"…","expiresAt":"…","settledAt":"…"},{"id":"O-1","state":"ORDERED","cartId":"…","version":1,"items":{"d":{"id":"d","quantity":1}},"conditions":{},"metadata":{},"attributes":{"total":19.90},"createdAt":"…","expiresAt":"…","settledAt":"…"}]}`},
	{"all carts", ask{rpc: "ListCarts"}, `{"carts":[{"identifier":"counts","instance":"default","version":1,"updatedAt":"…","expiresAt":"…"},{"identifier":"u1","instance":"default","version":3,"updatedAt":"…","expiresAt":"…"}],"nextPageToken":""}`},
	{"that nobody changed for two hours", ask{rpc: "ListCarts", params: p{"idleFor": "2h", "pageSize": "1"}}, `{"carts":[],"nextPageToken":""}`},
	{"flush", ask{rpc: "Flush"}, `{}`},
	{"all is gone", ask{rpc: "ListInstances"}, `{"identifier":"u1","instances":[]}`},
}

func TestScript(t *testing.T) {
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		asked := map[string]bool{}
		token := ""
		for _, row := range script {
			asked[row.ask.rpc] = true
			if row.ask.lease != "" {
				row.ask.lease = token
			}
			if row.ask.params["token"] != "" {
				row.ask.params = p{"token": token}
			}
			got := call(row.ask)
			if t := tokenIn(got); t != "" {
				token = t
			}
			if got.code != 0 {
				t.Fatalf("%s: %s %s: %s", row.name, got.code, got.reason, got.message)
			}
			if diff := cmp.Diff(row.want, steady(got.body)); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", row.name, diff)
			}
			if got.http != 0 && got.header.Get("ETag") != quoted(etagOf(t, got)) {
				t.Errorf("%s: ETag %s of %s", row.name, got.header.Get("ETag"), got.body)
			}
		}
		for _, m := range pb.CartService_ServiceDesc.Methods {
			if !asked[m.MethodName] {
				t.Errorf("the script does not call %s", m.MethodName)
			}
		}
	})
}

func tokenIn(r reply) string {
	var v struct{ Token string }
	_ = json.Unmarshal([]byte(r.body), &v) // an answer without one
	return v.Token
}

func quoted(etag string) string {
	if etag == "" {
		return ""
	}
	return `"` + etag + `"`
}

// Each resource has its own etag, the cart's is good for all, and the one of a cart that was forgotten is good for
// nothing.
func TestPreconditions(t *testing.T) {
	changes := []ask{
		{rpc: "PutItems", body: `{"items":{"%d":{"quantity":1}}}`},
		{rpc: "AddItem", body: `{"item":{"id":"%d"}}`},
		{rpc: "UpdateItem", params: p{"itemId": "keep"}, body: `{"item":{"n":%d}}`},
		{rpc: "PutConditions", body: `{"conditions":{"%d":{}}}`},
		{rpc: "PutCondition", params: p{"name": "vat"}, body: `{"condition":{"value":%d}}`},
		{rpc: "PatchMetadata", body: `{"metadata":{"k":%d}}`},
		{rpc: "PutMetadataValue", params: p{"key": "k"}, body: `{"value":%d}`},
		{rpc: "PutCart", body: `{"items":{"%d":{"quantity":1}}}`},
		{rpc: "Batch", body: `{"operations":[{"putMetadata":{"key":"other","value":%d}}]}`},
	}
	reads := map[string]string{
		"PutItems": "GetItems", "AddItem": "GetItems", "UpdateItem": "GetItems", "PutConditions": "GetConditions", "PutCondition": "GetConditions",
		"PatchMetadata": "GetMetadata", "PutMetadataValue": "GetMetadataValue", "PutCart": "GetCart", "Batch": "GetCart",
	}
	setup := ask{rpc: "Batch", body: `{"operations":[{"putItems":{"items":{"keep":{"quantity":1}}}},{"putCondition":{"name":"c","condition":{}}},{"putMetadata":{"key":"k","value":0}}]}`}
	eachFront(t, func(t *testing.T, w *world, call func(ask) reply) {
		must := func(a ask) reply {
			t.Helper()
			r := call(a)
			if r.code != 0 || r.http != 0 && r.http != 200 {
				t.Fatalf("%s: %d %s", a.rpc, r.http, r.message)
			}
			return r
		}
		n := 0
		for _, a := range changes {
			form := a.body
			next := func(ifMatch, ifNoneMatch string) ask {
				n++
				a.body, a.ifMatch, a.ifNoneMatch = fmt.Sprintf(form, n), ifMatch, ifNoneMatch
				return a
			}
			conflicts := func(what string, a ask, attempted, current string) {
				t.Helper()
				before := must(ask{rpc: "GetCart"})
				r := call(a)
				if r.reason != "CONFLICT" || r.code != 10 || r.meta["attemptedVersion"] != attempted || r.meta["currentVersion"] != current {
					t.Errorf("%s of %s: got %s %s %v: %s", what, a.rpc, r.code, r.reason, r.meta, r.body)
				}
				if r.http != 0 && r.http != 412 {
					t.Errorf("%s of %s: status %d, not 412", what, a.rpc, r.http)
				}
				if after := must(ask{rpc: "GetCart"}); after.body != before.body {
					t.Errorf("%s of %s changed the cart:\n%s\n%s", what, a.rpc, before.body, after.body)
				}
			}
			must(ask{rpc: "Forget"})
			must(setup)
			get := ask{rpc: reads[a.rpc], params: a.params}
			etag := etagOf(t, must(get))
			must(next(etag, ""))
			conflicts("a stale etag", next(etag, ""), "1", "2")
			must(next(`"x", "`+etagOf(t, must(get))+`"`, ""))
			must(next(etagOf(t, must(ask{rpc: "GetCart"})), ""))
			must(next("*", ""))
			conflicts("a garbage etag", next("garbage", ""), "0", "5")
			conflicts("a weak etag", next(`W/"`+etagOf(t, must(get))+`"`, ""), "0", "5")
			conflicts("if none match", next("", "*"), "0", "5")
			old := etagOf(t, must(ask{rpc: "GetCart"}))
			must(ask{rpc: "Forget"})
			if a.rpc != "UpdateItem" { // its item is gone, and that is said
				conflicts("the etag of a cart that is gone", next(old, ""), "5", "0")
				conflicts("exists", next("*", ""), "0", "0")
				must(next("", "*"))
			}
			if r := call(next("", "abc")); r.reason != "INVALID" {
				t.Errorf("If-None-Match that is no *, of a change: %s", r.reason)
			}
		}
		w.t.Logf("%d changes", n)
	})
}

// Over gRPC a document is always JSON, never nothing.
func TestDocumentsOverGRPCAreNeverEmpty(t *testing.T) {
	w := start(t, realBackend(t))
	c := pb.NewCartServiceClient(w.conn)
	value, err := c.GetMetadataValue(t.Context(), &pb.GetMetadataValueRequest{Identifier: "u1", Instance: "default", Key: "k"})
	if err != nil || string(value.Value) != "null" {
		t.Errorf("%q, %v", value.GetValue(), err)
	}
	k, err := c.GetCart(t.Context(), &pb.GetCartRequest{Identifier: "u1", Instance: "default"})
	if err != nil || string(k.Items) != "{}" || string(k.Conditions) != "{}" || string(k.Metadata) != "{}" {
		t.Errorf("%v, %v", k, err)
	}
}
