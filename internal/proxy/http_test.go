package proxy

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// Names are free: what a path means to others, it does not mean here.
func TestPaths(t *testing.T) {
	w := start(t, realBackend(t))
	for _, row := range []struct {
		path                 string
		identifier, instance string
	}{
		{"/v1/carts/u1/default", "u1", "default"},
		{"/v1/carts/a%2Fb/c%2fd", "a/b", "c/d"},
		{"/v1/carts/../..", "..", ".."},
		{"/v1/carts/./.", ".", "."},
		{"/v1/carts/%2E%2E/%2e", "..", "."},
		{"/v1/carts/a:b/c:d", "a:b", "c:d"},
		{"/v1/carts/a/default:clear", "a", "default:clear"},
		{"/v1/carts/a/default%3Aclear", "a", "default:clear"},
		{"/v1/carts/a/:clear", "a", ":clear"},
		{"/v1/carts/a/items", "a", "items"},
		{"/v1/carts/%252F/%25", "%2F", "%"},
		{"/v1/carts/a+b/c%20d", "a+b", "c d"},
		{"/v1/carts/%3F%23/;=,&$", "?#", ";=,&$"},
		{"/v1/carts/🛒/%F0%9F%9B%92", "🛒", "🛒"},
		{"/v1/carts/" + long[:255] + "/" + strings.Repeat("%E2%98%83", 85), long[:255], strings.Repeat("☃", 85)},
		{"/v1/carts/{identifier}/*", "{identifier}", "*"},
	} {
		want := `{"identifier":` + string(appendString(nil, row.identifier)) + `,"instance":` + string(appendString(nil, row.instance)) + `,`
		if r := w.do("GET", row.path, "", nil); r.http != 200 || !strings.HasPrefix(r.body, want) {
			t.Errorf("GET %s: %d %s", row.path, r.http, r.body)
		}
		// The other front knows the cart by the same name.
		if r := w.do("PUT", row.path, `{"items":{"`+"x"+`":{}}}`, nil); r.http != 200 {
			t.Errorf("PUT %s: %d %s", row.path, r.http, r.body)
		}
		if r := w.grpc(ask{rpc: "GetCart", params: p{"identifier": row.identifier, "instance": row.instance}}); !strings.HasPrefix(r.body, want) || !strings.Contains(r.body, `"x"`) {
			t.Errorf("PUT %s is not what gRPC reads: %s", row.path, r.body)
		}
		if r := w.do("DELETE", row.path, "", nil); r.body != `{"forgotten":true}` {
			t.Errorf("DELETE %s: %s", row.path, r.body)
		}
	}
}

// A verb is what stands plainly at the end of the path of a POST; an encoded colon is part of the name.
func TestVerbsAndColons(t *testing.T) {
	w := start(t, realBackend(t))
	put := func(instance string) {
		t.Helper()
		if r := w.grpc(ask{rpc: "PutItems", params: p{"instance": instance}, body: `{"items":{"a":{}}}`}); r.code != 0 {
			t.Fatal(r.message)
		}
	}
	count := func(instance string) bool {
		t.Helper()
		return strings.Contains(w.grpc(ask{rpc: "GetItems", params: p{"instance": instance}}).body, `"a"`)
	}
	put("default")
	put("default:clear")
	if r := w.do("POST", "/v1/carts/u1/default%3Aclear:clear", "", nil); r.http != 200 || count("default:clear") || !count("default") {
		t.Errorf("%d %s: cleared the wrong cart", r.http, r.body)
	}
	put("default:clear")
	if r := w.do("POST", "/v1/carts/u1/default:clear", "{}", nil); r.http != 200 || !count("default:clear") || count("default") {
		t.Errorf("%d %s: cleared the wrong cart", r.http, r.body)
	}
	put("a/b")
	if r := w.do("POST", "/v1/carts/u1/a%2Fb:clear", "", nil); r.http != 200 || count("a/b") {
		t.Errorf("%d %s", r.http, r.body)
	}
	// Below a cart a colon is nothing but a colon.
	if r := w.do("PUT", "/v1/carts/u1/default/metadata/a:clear", `{"value":1}`, nil); r.http != 200 || !strings.Contains(r.body, `"a:clear"`) {
		t.Errorf("%d %s", r.http, r.body)
	}
	for _, path := range []string{"/v1/carts/u1/default/items/%2E%2E", "/v1/carts/u1/default/items/..", "/v1/carts/u1/default/conditions/a%2F..", "/v1/carts/u1/default/metadata/%F0%9F%9B%92:batch"} {
		if r := w.do("DELETE", path, "", nil); r.http != 200 {
			t.Errorf("DELETE %s: %d %s", path, r.http, r.body)
		}
	}
}

func TestRouting(t *testing.T) {
	w := start(t, realBackend(t))
	for _, row := range []struct {
		method, path string
		status       int
		reason       string
		allow        string
	}{
		{"GET", "/", 404, "NOT_FOUND", ""},
		{"GET", "/v1", 404, "NOT_FOUND", ""},
		{"GET", "/v1/cart", 404, "NOT_FOUND", ""},
		{"GET", "/v2/carts/u1/default", 404, "NOT_FOUND", ""},
		{"GET", "/v1/carts/u1/default/", 404, "NOT_FOUND", ""},
		{"GET", "/v1/carts/u1/default/notes", 404, "NOT_FOUND", ""},
		{"GET", "/v1/carts/u1/default/items/a/b", 404, "NOT_FOUND", ""},
		{"GET", "//v1/carts/u1/default", 404, "NOT_FOUND", ""},
		{"GET", "/v1/carts//default", 400, "INVALID", ""},
		{"GET", "/v1/carts/u1/", 400, "INVALID", ""},
		{"GET", "/v1/carts/u1/default/items/", 400, "INVALID", ""},
		{"DELETE", "/v1/carts/u1/default/items/", 400, "INVALID", ""},
		{"PUT", "/v1/carts/u1/default/conditions/", 400, "INVALID", ""},
		{"GET", "/v1/carts/u1/default/metadata/", 400, "INVALID", ""},
		{"DELETE", "/v1/carts/u1/default/locks/", 400, "INVALID", ""},
		{"GET", "/v1/carts/", 400, "INVALID", ""},
		{"GET", "/v1/carts/%00/default", 400, "INVALID", ""},
		{"GET", "/v1/carts/%FF/default", 400, "INVALID", ""},
		{"GET", "/v1/carts/u1/" + long, 400, "INVALID", ""},
		{"POST", "/v1/carts/u1/default", 405, "UNSUPPORTED", "GET, PUT, DELETE"},
		{"PATCH", "/v1/carts/u1/default", 405, "UNSUPPORTED", "GET, PUT, DELETE"},
		{"PUT", "/v1/carts/u1", 405, "UNSUPPORTED", "GET, DELETE"},
		{"PATCH", "/v1/carts/u1/default/items", 405, "UNSUPPORTED", "GET, PUT, POST"},
		{"GET", "/v1/carts/u1/default/items/a", 405, "UNSUPPORTED", "PATCH, DELETE"},
		{"GET", "/v1/carts/u1/default/conditions/a", 405, "UNSUPPORTED", "PUT, DELETE"},
		{"POST", "/v1/carts/u1/default/metadata", 405, "UNSUPPORTED", "GET, PATCH, DELETE"},
		{"GET", "/v1/carts:flush", 405, "UNSUPPORTED", "POST"},
		{"OPTIONS", "/v1/carts/u1/default/items", 405, "UNSUPPORTED", "GET, PUT, POST"},
		{"GET", "/v1/carts/u1/default?ifMatch=x", 400, "INVALID", ""},
		{"DELETE", "/v1/carts/u1/default?identifier=u2", 400, "INVALID", ""},
	} {
		r := w.do(row.method, row.path, "", nil)
		if r.http != row.status || r.reason != row.reason || r.header.Get("Allow") != row.allow {
			t.Errorf("%s %.60s: got %d %s, Allow %q: %s", row.method, row.path, r.http, r.reason, r.header.Get("Allow"), r.message)
		}
	}
	// Neither a form nor a header makes another method of it.
	r := w.do("POST", "/v1/carts/u1/default", "a=b", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "X-Http-Method-Override": {"DELETE"}})
	if r.http != 415 {
		t.Errorf("override: %d %s", r.http, r.body)
	}
}

func TestConditionalReads(t *testing.T) {
	w := start(t, realBackend(t))
	w.grpc(raw("Batch", `{"operations":[{"addItem":{"item":{"id":"a"}}},{"putCondition":{"name":"c","condition":{}}},{"putMetadata":{"key":"k","value":1}}]}`))
	for _, path := range []string{"", "/items", "/conditions", "/metadata", "/metadata/k"} {
		path = "/v1/carts/u1/default" + path
		r := w.do("GET", path, "", nil)
		etag := r.header.Get("ETag")
		if r.http != 200 || len(etag) < 3 || etag != quoted(etagOf(t, r)) {
			t.Fatalf("GET %s: %d, ETag %s: %s", path, r.http, etag, r.body)
		}
		for _, given := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
			r := w.do("GET", path, "", http.Header{"If-None-Match": {given}})
			if r.http != 304 || r.body != "" || r.header.Get("ETag") != etag || r.header.Get("Content-Type") != "" {
				t.Errorf("GET %s with If-None-Match %s: %d %v %s", path, given, r.http, r.header, r.body)
			}
		}
		if r := w.do("GET", path, "", http.Header{"If-None-Match": {`"x"`}}); r.http != 200 || r.body == "" {
			t.Errorf("GET %s with another etag: %d", path, r.http)
		}
		if r := w.do("GET", path, "", http.Header{"If-Match": {`"x"`}}); r.http != 412 || r.reason != "CONFLICT" || r.header.Get("ETag") != "" {
			t.Errorf("GET %s with If-Match of another etag: %d %s", path, r.http, r.reason)
		}
		if r := w.do("HEAD", path, "", nil); r.http != 200 || r.body != "" || r.header.Get("ETag") != etag || r.header.Get("Content-Length") == "" {
			t.Errorf("HEAD %s: %d %v", path, r.http, r.header)
		}
	}
	if r := w.do("GET", "/v1/carts/nobody/default", "", http.Header{"If-None-Match": {"*"}}); r.http != 200 || r.header.Get("ETag") != quoted(etagOf(t, r)) || r.header.Get("ETag") == "" {
		t.Errorf("a cart that is not there: %d %v", r.http, r.header)
	}
	// Without a precondition a conflict is no 412; only those who asked are told so.
	if f := (&failure{kind: conflict}); f.httpStatus(false) != 409 {
		t.Error("409")
	}
}

func TestOpenAPI(t *testing.T) {
	w := start(t, realBackend(t))
	for _, base := range []string{w.base, "http://" + w.Addr("admin")} {
		w.base = base
		r := w.do("GET", "/openapi.json", "", nil)
		var doc struct {
			Swagger     string
			Paths       map[string]map[string]any
			Definitions map[string]struct {
				Properties map[string]struct{ Type, Format string }
			}
		}
		if err := json.Unmarshal([]byte(r.body), &doc); err != nil || r.http != 200 || doc.Swagger != "2.0" {
			t.Fatalf("%d %v %.100s", r.http, err, r.body)
		}
		for _, rpc := range script {
			verb, path := route(method(t, rpc.ask.rpc))
			path = strings.NewReplacer("{item_id}", "{itemId}", "{checkout_id}", "{checkoutId}").Replace(path)
			if doc.Paths[path][strings.ToLower(verb)] == nil {
				t.Errorf("%s %s is not described", verb, path)
			}
		}
		cart := doc.Definitions["Cart"].Properties
		if cart["items"].Type != "object" || cart["version"].Type != "integer" || cart["createdAt"].Format != "date-time" {
			t.Errorf("a cart is described as %v", cart)
		}
		if _, ok := doc.Definitions["PutItemsBody"].Properties["ifMatch"]; ok {
			t.Error("a header is described as a field of a body")
		}
	}
}
