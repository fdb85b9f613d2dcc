package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/memory"
)

// listed is a page of a list.
type listed struct {
	Carts []struct {
		Identifier, Instance string
		Version              uint64
		UpdatedAt, ExpiresAt time.Time
	}
	NextPageToken string
}

func pageOf(t *testing.T, r reply) (l listed) {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("%s %s", r.reason, r.message)
	}
	if err := json.Unmarshal([]byte(r.body), &l); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	return l
}

// Page after page, a list has every cart, and ends.
func TestListCarts(t *testing.T) {
	eachFront(t, func(t *testing.T, w *world, call func(ask) reply) {
		const carts = 130
		for i := range carts {
			a := items(`{"a":{}}`)
			a.params = p{"identifier": fmt.Sprintf("u %d", i), "instance": "wish/list"}
			call(a)
		}
		if first := pageOf(t, call(ask{rpc: "ListCarts"})); len(first.Carts) != 100 || first.NextPageToken == "" {
			t.Errorf("%d carts on the first page, then %q", len(first.Carts), first.NextPageToken)
		}
		for _, size := range []int{1, 50, 1000} {
			met, token := map[string]bool{}, ""
			for pages := 1; ; pages++ {
				l := pageOf(t, call(ask{rpc: "ListCarts", params: p{"pageSize": fmt.Sprint(size), "pageToken": token, "idleFor": "0s"}}))
				for _, c := range l.Carts {
					met[c.Identifier] = true
					if c.Instance != "wish/list" || c.Version != 1 || c.UpdatedAt.IsZero() || c.ExpiresAt.Sub(c.UpdatedAt) != time.Hour {
						t.Errorf("%+v", c)
					}
				}
				if len(l.Carts) > size || pages > carts+1 {
					t.Fatalf("%d carts on page %d", len(l.Carts), pages)
				}
				if token = l.NextPageToken; token == "" {
					break
				}
			}
			if len(met) != carts {
				t.Errorf("pages of %d have %d carts", size, len(met))
			}
		}
		if l := pageOf(t, call(ask{rpc: "ListCarts", params: p{"idleFor": "1h"}})); len(l.Carts) != 0 {
			t.Errorf("idle for an hour: %v", l.Carts)
		}
	})
}

// A token is good for the list that it is of, as it is, and for nothing else.
func TestPageTokens(t *testing.T) {
	b := realBackend(t)
	w := start(t, b)
	for _, call := range []func(ask) reply{w.http, w.grpc} {
		for i := range 20 {
			a := items(`{"a":{}}`)
			a.params = p{"identifier": fmt.Sprint("u", i)}
			call(a)
		}
		token := pageOf(t, call(ask{rpc: "ListCarts", params: p{"pageSize": "5", "idleFor": "0s"}})).NextPageToken
		if token == "" {
			t.Fatal("no token")
		}
		refused := func(what, field, token, idle string) {
			t.Helper()
			r := call(ask{rpc: "ListCarts", params: p{"pageToken": token, "idleFor": idle}})
			if r.code != codes.InvalidArgument || r.reason != "INVALID" || r.meta["field"] != field || r.http != 0 && r.http != http.StatusBadRequest {
				t.Errorf("%s: %d %s %s", what, r.http, r.reason, r.message)
			}
		}
		for i := range token {
			altered := []byte(token)
			if altered[i] == 'A' {
				altered[i] = 'B'
			} else {
				altered[i] = 'A'
			}
			refused(fmt.Sprint("altered at ", i), "pageToken", string(altered), "0s")
			refused(fmt.Sprint("cut at ", i), "pageToken", token[:i]+strings.Repeat("A", 1), "0s")
		}
		refused("longer", "pageToken", token+"AAAA", "0s")
		refused("another idleFor", "idleFor", token, "1m")
		pageOf(t, call(ask{rpc: "ListCarts", params: p{"pageToken": token, "pageSize": "1"}})) // another size is allowed

		other := b
		other.Prefix = "another"
		w.Swap(other)
		refused("of other carts", "pageToken", token, "0s")
		w.Swap(b)
	}
}

// The parameters of a list are the only ones of the API, and are read strictly.
func TestListParameters(t *testing.T) {
	w := start(t, realBackend(t))
	for path, field := range map[string]string{
		"/v1/carts?page_size=1":            "page_size",
		"/v1/carts?pageSize=1&pageSize=2":  "pageSize",
		"/v1/carts?pagesize=1":             "pagesize",
		"/v1/carts?pageSize=%zz":           "query",
		"/v1/carts?a;b":                    "query",
		"/v1/carts/u1?pageSize=1":          "?pageSize",
		"/v1/carts/u1/default?pageToken=x": "?pageToken",
	} {
		if r := w.do(http.MethodGet, path, "", nil); r.http != http.StatusBadRequest || r.meta["field"] != field {
			t.Errorf("%s: %d %s %v", path, r.http, r.message, r.meta)
		}
	}
	if r := w.do(http.MethodHead, "/v1/carts?pageSize=1", "", nil); r.http != http.StatusOK || r.body != "" {
		t.Errorf("HEAD: %d %s", r.http, r.body)
	}
}

func TestListIsForbiddenUnlessAllowed(t *testing.T) {
	b := realBackend(t)
	b.AllowList = false
	w := start(t, b)
	for _, call := range []func(ask) reply{w.http, w.grpc} {
		r := call(ask{rpc: "ListCarts", params: p{"pageSize": "0"}})
		if r.code != codes.PermissionDenied || r.reason != "FORBIDDEN" || r.http != 0 && r.http != http.StatusForbidden {
			t.Errorf("got %d %s %s", r.http, r.code, r.reason)
		}
	}
}

// A backend that cannot find its carts says so.
func TestListIsUnsupportedWhereCartsCannotBeFound(t *testing.T) {
	b := realBackend(t)
	store := memory.New()
	t.Cleanup(func() { _ = store.Close() })
	b.Coordinator = lock.New(struct{ storage.Locker }{store}, lock.Options{WaitTimeout: time.Second, LeaseDuration: time.Second, Limits: cart.DefaultLimits()})
	w := start(t, b)
	for _, call := range []func(ask) reply{w.http, w.grpc} {
		r := call(ask{rpc: "ListCarts"})
		if r.code != codes.Unimplemented || r.reason != "UNSUPPORTED" || r.http != 0 && r.http != http.StatusNotImplemented {
			t.Errorf("got %d %s %s", r.http, r.code, r.reason)
		}
	}
}
