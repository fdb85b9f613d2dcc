package proxy

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// has reports whether the request of a call has a field.
func has(t *testing.T, rpc string, field protoreflect.Name) bool {
	t.Helper()
	return method(t, rpc).Input().Fields().ByName(field) != nil
}

// bare is an answer without its documents.
func bare(t *testing.T, body string) any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	drop := func(m map[string]any) {
		for _, name := range []string{"items", "conditions", "metadata", "value", "attributes"} {
			delete(m, name)
		}
	}
	drop(v)
	for _, name := range []string{"cart", "checkout"} {
		if c, ok := v[name].(map[string]any); ok {
			drop(c)
		}
	}
	return v
}

// The script, with documents left out wherever that can be asked for: a change answers as it did, less the documents,
// and reads and leases answer whole.
func TestScriptInMinimalAnswers(t *testing.T) {
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		token, shorter := "", 0
		for _, row := range script {
			if row.ask.lease != "" {
				row.ask.lease = token
			}
			if row.ask.params["token"] != "" {
				row.ask.params = p{"token": token}
			}
			row.ask.minimal = true
			got := call(row.ask)
			if t := tokenIn(got); t != "" {
				token = t
			}
			if got.code != 0 {
				t.Fatalf("%s: %s %s: %s", row.name, got.code, got.reason, got.message)
			}
			if !has(t, row.ask.rpc, "minimal") {
				if diff := cmp.Diff(row.want, steady(got.body)); diff != "" || got.header.Get("Preference-Applied") != "" {
					t.Fatalf("%s, applied %q (-want +got):\n%s", row.name, got.header.Get("Preference-Applied"), diff)
				}
				continue
			}
			var all any
			if err := json.Unmarshal([]byte(steady(got.body)), &all); err != nil {
				t.Fatalf("%s: %v: %s", row.name, err, got.body)
			}
			if diff := cmp.Diff(bare(t, row.want), all); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", row.name, diff)
			}
			if len(steady(got.body)) < len(row.want) {
				shorter++
			}
			if got.http != 0 && (got.header.Get("Preference-Applied") != "return=minimal" || got.header.Get("ETag") != quoted(etagOf(t, got))) {
				t.Errorf("%s: %v", row.name, got.header)
			}
		}
		if shorter < 25 {
			t.Errorf("only %d answers are shorter", shorter)
		}
	})
}

// Prefer is read as RFC 7240 has it.
func TestPrefer(t *testing.T) {
	w := start(t, realBackend(t))
	for _, tc := range []struct {
		prefer  []string
		minimal bool
	}{
		{nil, false},
		{[]string{"return=minimal"}, true},
		{[]string{`Return = "MINIMAL" ; foo="a,b"`}, true},
		{[]string{"respond-async, wait=10; return=minimal"}, false}, // a parameter of wait
		{[]string{"respond-async, wait=10, return=minimal"}, true},
		{[]string{`x="a, return=minimal", wait`}, false},
		{[]string{`x="\", return=minimal"`}, false},
		{[]string{"wait=1", "return=minimal"}, true},
		{[]string{"return=minimal, return=minimal"}, true},
		{[]string{"return=minimal, return=representation"}, false},
		{[]string{"return=representation", "return=minimal"}, false},
		{[]string{"return=representation"}, false},
		{[]string{"return=tiny"}, false},
		{[]string{"return"}, false},
		{[]string{`return=""`}, false},
		{[]string{""}, false},
		{[]string{",;=\"", "return=minimal"}, false}, // in a quote that does not end
		{[]string{"return-minimal"}, false},
	} {
		h := http.Header{}
		if tc.prefer != nil {
			h["Prefer"] = tc.prefer
		}
		r := w.do(http.MethodPut, "/v1/carts/u1/default/metadata/k", `{"value":1}`, h)
		applied := r.header.Get("Preference-Applied") == "return=minimal"
		if r.http != http.StatusOK || applied != tc.minimal || strings.Contains(r.body, `"value"`) == tc.minimal {
			t.Errorf("%q: %d, applied %t, %s", tc.prefer, r.http, applied, r.body)
		}
	}
	stale := http.Header{"Prefer": {"return=minimal"}, "If-Match": {`"x"`}}
	r := w.do(http.MethodPut, "/v1/carts/u1/default/metadata/k", `{"value":2}`, stale)
	if r.http != http.StatusPreconditionFailed || r.header.Get("Preference-Applied") != "" || r.header.Get("Sidecart-Version") != "" {
		t.Errorf("a refusal: %d %v", r.http, r.header)
	}
}

// Each answer about a cart or a part names the cart and its version in headers, the cart's own where the answer has
// that of a part.
func TestAnswersNameTheCart(t *testing.T) {
	eachFront(t, func(t *testing.T, w *world, call func(ask) reply) {
		token, named := "", 0
		for _, row := range script {
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
			id, version := got.header.Get("Sidecart-Cart-Id"), got.header.Get("Sidecart-Version")
			ofCheckouts := row.ask.rpc == "GetCheckout" || row.ask.rpc == "ListCheckouts" // of a cart as it was
			if !has(t, row.ask.rpc, "instance") || has(t, row.ask.rpc, "token") || ofCheckouts {
				if id != "" || version != "" {
					t.Errorf("%s is about no cart, and names %q at version %q", row.name, id, version)
				}
				continue
			}
			var answer struct{ Cart struct{ Identifier string } }
			_ = json.Unmarshal([]byte(got.body), &answer) // most have no cart
			at := ask{rpc: "GetCart", params: row.ask.params}
			if answer.Cart.Identifier != "" {
				at.params = p{"identifier": answer.Cart.Identifier}
			}
			var now struct {
				ID      string
				Version uint64
			}
			if err := json.Unmarshal([]byte(call(at).body), &now); err != nil {
				t.Fatal(err)
			}
			if _, there := got.header["Sidecart-Cart-Id"]; there != (now.ID != "") {
				t.Errorf("%s: %v of cart %q", row.name, got.header, now.ID)
			}
			if id != now.ID || version != strconv.FormatUint(now.Version, 10) {
				t.Errorf("%s names cart %q at version %q, it is %q at %d", row.name, id, version, now.ID, now.Version)
			}
			named++
		}
		if named < 40 {
			t.Errorf("only %d answers name a cart", named)
		}
		stream, err := pb.NewCartServiceClient(w.conn).HoldLease(t.Context(), &pb.HoldLeaseRequest{Identifier: "u7", Instance: "default"})
		if err != nil {
			t.Fatal(err)
		}
		if md, err := stream.Header(); err != nil || len(md.Get("sidecart-version")) != 1 || md.Get("sidecart-version")[0] != "0" {
			t.Errorf("a held lease: %v, %v", md, err)
		}
	})
}

// HEAD answers as GET does, less the body.
func TestHead(t *testing.T) {
	w := start(t, realBackend(t))
	if r := w.do(http.MethodHead, "/v1/carts/u1", "", nil); r.http != http.StatusOK || r.body != "" {
		t.Errorf("of a list: %d %s", r.http, r.body)
	}
	for _, path := range []string{"", "/items", "/conditions", "/metadata", "/metadata/k"} {
		for _, state := range []string{"absent", "there"} {
			if state == "there" {
				w.do(http.MethodPost, "/v1/carts/u1/default:batch", `{"operations":[{"putMetadata":{"key":"k","value":1}},{"addItem":{"item":{"id":"a"}}}]}`, nil)
			} else {
				w.do(http.MethodDelete, "/v1/carts/u1/default", "", nil)
			}
			get := w.do(http.MethodGet, "/v1/carts/u1/default"+path, "", nil)
			head := w.do(http.MethodHead, "/v1/carts/u1/default"+path, "", nil)
			for _, r := range []*reply{&get, &head} {
				r.header.Del("Date")
			}
			if diff := cmp.Diff(get.header, head.header); diff != "" || head.http != http.StatusOK || head.body != "" || get.body == "" {
				t.Errorf("%s, %s: %d %q (-GET +HEAD):\n%s", path, state, head.http, head.body, diff)
			}
			if (head.header.Get("Sidecart-Cart-Id") != "") != (state == "there") || head.header.Get("ETag") == "" {
				t.Errorf("%s, %s: %v", path, state, head.header)
			}
			same := w.do(http.MethodHead, "/v1/carts/u1/default"+path, "", http.Header{"If-None-Match": {head.header.Get("ETag")}})
			if same.http != http.StatusNotModified || same.header.Get("Sidecart-Version") != head.header.Get("Sidecart-Version") {
				t.Errorf("%s, %s: what the client has already: %d %v", path, state, same.http, same.header)
			}
		}
	}
}
