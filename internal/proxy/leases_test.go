package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// impatient is a backend whose changes wait but a moment for a lock.
func impatient(t *testing.T) Backend {
	t.Helper()
	b := realBackend(t)
	b.Coordinator.(*lock.Coordinator).Update(lock.Options{
		WaitTimeout: 30 * time.Millisecond, LeaseDuration: 5 * time.Second, TTL: time.Hour, CheckoutRetention: time.Hour, Limits: b.Limits, Holder: "sidecar-1",
	})
	return b
}

// until polls, since others have to act first.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what + " did not happen")
		}
	}
}

// Every call that changes a cart is held off by a lease of somebody else, passes under its own, and can give it back;
// locking is off in this sidecar. Reads pass.
func TestEveryChangeHonoursLeases(t *testing.T) {
	changes := []ask{
		{rpc: "PutCart", body: `{"items":{"a":{}}}`}, items(`{"a":{}}`), raw("AddItem", `{"item":{"id":"a"}}`),
		{rpc: "UpdateItem", params: p{"itemId": "keep"}, body: `{"quantityDelta":1}`}, {rpc: "RemoveItem", params: p{"itemId": "a"}},
		raw("PutConditions", `{"conditions":{"c":{}}}`), {rpc: "PutCondition", params: p{"name": "d"}, body: `{"condition":{}}`}, {rpc: "RemoveCondition", params: p{"name": "d"}},
		raw("PatchMetadata", `{"metadata":{"a":1}}`), {rpc: "ClearMetadata"}, {rpc: "PutMetadataValue", params: p{"key": "k"}, body: `{"value":1}`},
		{rpc: "RemoveMetadataValue", params: p{"key": "k"}}, raw("Batch", `{"operations":[{"removeItem":{"id":"a"}}]}`), {rpc: "Clear"},
		raw("Swap", `{"toIdentifier":"u2"}`), raw("Merge", `{"toIdentifier":"u2","strategy":"replace"}`), {rpc: "Forget"},
		raw("Settle", `{"checkoutId":"O-1","outcome":"ORDERED"}`),
	}
	listed := map[string]bool{"Checkout": true} // which waits for nobody: see TestCheckoutWaitsForNobody
	for _, a := range changes {
		listed[a.rpc] = true
	}
	for _, m := range pb.CartService_ServiceDesc.Methods {
		if f := method(t, m.MethodName).Input().Fields().ByTextName("release"); f != nil && !listed[m.MethodName] {
			t.Errorf("%s is not in this list", m.MethodName)
		}
	}
	for _, front := range []string{"http", "grpc"} {
		t.Run(front, func(t *testing.T) {
			w := start(t, impatient(t))
			call := w.http
			if front == "grpc" {
				call = w.grpc
			}
			must := func(what string, a ask) reply {
				t.Helper()
				r := call(a)
				if r.code != 0 {
					t.Fatalf("%s: %s: %s %s", what, a.rpc, r.reason, r.message)
				}
				return r
			}
			for _, a := range changes {
				must("set up", ask{rpc: "PutCart", body: `{"items":{"keep":{}},"conditions":{"c":{}}}`})
				if a.rpc == "Settle" {
					must("check out", raw("Checkout", `{"checkoutId":"O-1"}`))
				}
				token := tokenIn(must("acquire", ask{rpc: "AcquireLease"}))
				before := must("read", ask{rpc: "GetCart"}).body
				r := call(a)
				if r.reason != "LOCK_TIMEOUT" || r.code != codes.Aborted || !r.retry || r.http != 0 && (r.http != 423 || r.header.Get("Retry-After") == "") {
					t.Errorf("%s without the lease: %d %s %s", a.rpc, r.http, r.reason, r.message)
				}
				if r := call(ask{rpc: "AcquireLease", body: `{"parts":["items"],"waitTimeout":"0s"}`}); r.reason != "LOCK_TIMEOUT" {
					t.Errorf("%s: a second lease: %s", a.rpc, r.reason)
				}
				if after := must("read", ask{rpc: "GetCart"}).body; after != before {
					t.Errorf("%s without the lease: changed to %s", a.rpc, after)
				}
				a.lease = token
				must("under the lease", a)
				must("the lease still stands", ask{rpc: "GetLease", params: p{"token": token}})
				if a.rpc == "UpdateItem" { // for the others a second time alters nothing, and releases all the same
					must("set up", ask{rpc: "PutCart", lease: token, body: `{"items":{"keep":{}}}`})
				}
				a.release = true
				must("and gives it back", a)
				if r := call(ask{rpc: "GetLease", params: p{"token": token}}); r.reason != "NOT_FOUND" {
					t.Errorf("%s: after the release: %d %s", a.rpc, r.code, r.reason)
				}
				if r := call(a); r.reason != "NOT_FOUND" || r.code != codes.NotFound {
					t.Errorf("%s under a released lease: %d %s", a.rpc, r.code, r.reason)
				}
			}
			st := admin(t, w, "/statusz", "application/json").body
			if !strings.Contains(st, `"leases":[]`) || !strings.Contains(st, fmt.Sprintf(`"leasesGranted":%d`, len(changes))) {
				t.Errorf("status: %s", st)
			}
		})
	}
}

// A change that is not made does not give the lease back.
func TestFailedChangeKeepsTheLease(t *testing.T) {
	eachFront(t, func(t *testing.T, _ *world, call func(ask) reply) {
		token := tokenIn(call(ask{rpc: "AcquireLease"}))
		for _, a := range []ask{
			{rpc: "UpdateItem", params: p{"itemId": "no"}, body: `{"quantityDelta":1}`},
			{rpc: "Clear", ifMatch: "garbage"},
			{rpc: "Forget", ifMatch: "garbage"},
			{rpc: "Swap", ifMatch: "garbage", body: `{"toIdentifier":"u2"}`},
			items(`{"a":{"quantity":0}}`),
		} {
			a.lease, a.release = token, true
			if r := call(a); r.code == 0 {
				t.Errorf("%s succeeded", a.rpc)
			}
			if r := call(ask{rpc: "GetLease", params: p{"token": token}}); r.code != 0 {
				t.Fatalf("%s took the lease away: %s", a.rpc, r.message)
			}
		}
		if r := call(ask{rpc: "GetLease", params: p{"instance": "other", "token": token}}); r.reason != "NOT_FOUND" {
			t.Errorf("on another cart: %s", r.reason)
		}
		if r := call(ask{rpc: "AcquireLease", lease: token, body: `{"parts":["items"]}`}); r.code != 0 || tokenIn(r) != token {
			t.Errorf("again: %s %s", r.reason, r.message)
		}
	})
}

// A lease that is over is LOCK_LOST, for whatever is done with it.
func TestExpiredLeaseIsLost(t *testing.T) {
	eachFront(t, func(t *testing.T, w *world, call func(ask) reply) {
		r := call(ask{rpc: "AcquireLease", body: `{"parts":["items"],"leaseDuration":"10ms"}`})
		token := tokenIn(r)
		gone := func(a ask) bool {
			r := call(a)
			return r.reason == "LOCK_LOST" && r.code == codes.FailedPrecondition && (r.http == 0 || r.http == 409)
		}
		get := ask{rpc: "GetLease", params: p{"token": token}}
		until(t, "its end", func() bool { return gone(get) })
		for _, a := range []ask{
			get, {rpc: "RenewLease", params: p{"token": token}}, {rpc: "ReleaseLease", params: p{"token": token}}, {rpc: "AcquireLease", lease: token, body: `{"parts":["items"]}`},
			{rpc: "AddItem", lease: token, body: `{"item":{"id":"a"}}`}, {rpc: "Clear", lease: token, release: true}, {rpc: "Forget", lease: token},
			{rpc: "Swap", lease: token, body: `{"toIdentifier":"u2"}`}, {rpc: "Swap", lease: token, release: true, body: `{"toIdentifier":"u1"}`},
		} {
			if !gone(a) {
				t.Errorf("%s: %s", a.rpc, call(a).reason)
			}
		}
		if n := metric(t, w, "sidecart_leases_lost_total"); n == "0" {
			t.Error("not counted")
		}
	})
}

func metric(t *testing.T, w *world, name string) string {
	t.Helper()
	for line := range strings.Lines(admin(t, w, "/metrics", "").body) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no metric %s", name)
	return ""
}

// unlocked is a store that cannot lock.
type unlocked struct{ storage.Store }

func TestLeasesNeedLocks(t *testing.T) {
	store := memory.New()
	t.Cleanup(func() { _ = store.Close() })
	b := realBackend(t)
	b.Coordinator = lock.New(unlocked{store}, lock.Options{WaitTimeout: time.Second, LeaseDuration: time.Second, Limits: b.Limits})
	w := start(t, b)
	for _, call := range []func(ask) reply{w.http, w.grpc} {
		for _, a := range []ask{
			{rpc: "AcquireLease"}, {rpc: "GetLease", params: p{"token": "x"}}, {rpc: "RenewLease", params: p{"token": "x"}}, {rpc: "ReleaseLease", params: p{"token": "x"}},
			{rpc: "Clear", lease: "x"}, {rpc: "Swap", lease: "x", body: `{"toIdentifier":"u2"}`},
		} {
			if r := call(a); r.reason != "UNSUPPORTED" || r.code != codes.Unimplemented || r.http != 0 && r.http != 501 {
				t.Errorf("%s: %d %s %s", a.rpc, r.http, r.reason, r.message)
			}
		}
	}
	if r := w.do("POST", "/v1/carts/u1/default/locks:hold", "", nil); r.http != 501 {
		t.Errorf("hold: %d %s", r.http, r.body)
	}
}

// The token is a secret of its client.
func TestNobodyElseLearnsTheToken(t *testing.T) {
	w := start(t, realBackend(t))
	token := tokenIn(w.http(ask{rpc: "AcquireLease", body: `{"parts":["items","metadata.notes"],"holder":"<checkout>","leaseDuration":"1h"}`}))
	whole := tokenIn(w.grpc(ask{rpc: "AcquireLease", params: p{"instance": "other"}}))
	waiting := make(chan reply, 1)
	go func() { waiting <- w.http(ask{rpc: "AcquireLease", body: `{"waitTimeout":"6s"}`}) }()
	var st struct {
		Leases []struct {
			Identifier, Instance, Holder string
			Parts                        []string
			Fence                        uint64
			Since, ExpiresAt             time.Time
			Waiting                      int
		}
	}
	until(t, "the waiter shows", func() bool {
		if err := json.Unmarshal([]byte(admin(t, w, "/statusz", "application/json").body), &st); err != nil {
			t.Fatal(err)
		}
		return len(st.Leases) == 2 && st.Leases[0].Waiting == 1
	})
	l := st.Leases[0]
	if l.Identifier != "u1" || l.Instance != "default" || l.Holder != "<checkout>" || strings.Join(l.Parts, " ") != "items metadata.notes" || l.Fence == 0 ||
		time.Since(l.Since) > time.Minute || time.Until(l.ExpiresAt) < 50*time.Minute || st.Leases[1].Parts[0] != "*" {
		t.Errorf("got %+v", st.Leases)
	}
	page := admin(t, w, "/statusz", "text/html").body
	for _, text := range []string{"&lt;checkout&gt;", "items, metadata.notes", "whole cart", "2 held, 2 granted"} {
		if !strings.Contains(page, text) {
			t.Errorf("the page lacks %q", text)
		}
	}
	path := "/v1/carts/u1/default/locks/" + token
	for _, r := range []reply{
		admin(t, w, "/statusz", "application/json"), admin(t, w, "/statusz", "text/html"), admin(t, w, "/metrics", ""),
		w.do("POST", path, "", nil), w.do("GET", path+"/x", "", nil), w.do("PUT", path, `{"x":1}`, nil),
		w.do("DELETE", strings.Replace(path, "default", "third", 1), "", nil), w.http(ask{rpc: "ForgetAll", header: http.Header{"Sidecart-Lease": {token}}}),
	} {
		if strings.Contains(r.body, token) || strings.Contains(r.body, whole) {
			t.Errorf("a token is told: %s", r.body)
		}
	}
	if r := w.http(ask{rpc: "ReleaseLease", params: p{"token": token}}); r.http != 200 {
		t.Fatal(r.body)
	}
	if r := <-waiting; r.http != 200 {
		t.Errorf("the waiter: %d %s", r.http, r.message)
	}
	if err := w.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if log := w.log.String(); strings.Contains(log, token) || strings.Contains(log, whole) {
		t.Errorf("a token is logged: %s", log)
	}
}
