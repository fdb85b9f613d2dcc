//go:build compat

package processes

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/testserver"
)

var compatAdds = flag.Int("compat.adds", 1_000, "how many adds TestMixedVersionsLoseNothing makes each time")

type releasedBackend = struct {
	name string
	args func(t *testing.T) []string
}

// releasedBackends are what two releases can share: every backend but the memory of one process.
var releasedBackends = slices.Concat(sharedBackends, []releasedBackend{
	{"memcached", func(t *testing.T) []string {
		return []string{"--backend", "memcached", "--memcached-address", testserver.StartMemcached(t).Addr}
	}},
	{"dynamodb", func(t *testing.T) []string {
		t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
		return []string{
			"--backend", "dynamodb", "--dynamodb-table", "carts", "--dynamodb-region", "local", "--dynamodb-create-table",
			"--dynamodb-endpoint", testserver.StartDynalite(t).Endpoint,
		}
	}},
	{"file", func(t *testing.T) []string {
		return []string{"--backend", "file", "--file-directory", t.TempDir()}
	}},
})

// TestMixedVersionsLoseNothing is [TestNothingLost] while a rollout is under way: every second sidecar is the release
// before this one. One is killed and comes back as the other release, so that each reads what the other wrote. In one
// direction all clients meet in one cart, in the other there are many.
func TestMixedVersionsLoseNothing(t *testing.T) {
	for _, backend := range releasedBackends {
		for _, rollout := range []struct {
			to           string
			first, carts int
		}{{"the release before", 0, 50}, {"this release", 1, 1}} {
			t.Run(fmt.Sprintf("%s/to %s/carts=%d", backend.name, rollout.to, rollout.carts), func(t *testing.T) {
				nothingLost(t, backend.args(t), "switched", rollout.carts, *compatAdds, func(n int) variant {
					return variant{before: (n+rollout.first)%2 == 1}
				})
			})
		}
	}
}

// TestMixedVersionsUnderstand lets each release go on with what the other began: all parts of a cart, a repeated call,
// a lease and a checkout.
func TestMixedVersionsUnderstand(t *testing.T) {
	for _, backend := range releasedBackends {
		t.Run(backend.name, func(t *testing.T) {
			args := append(backend.args(t), "--read-timeout", "5s", "--write-timeout", "5s", "--lock-timeout", "10s", "--locking", "enabled")
			before, now := prepare(t, args...), prepare(t, args...)
			before.build.before = true
			before.run()
			now.run()
			for name, r := range map[string]relay{
				"begun-before": {t, before, now, "/v1/carts/begun-before/default"},
				"begun-now":    {t, now, before, "/v1/carts/begun-now/default"},
			} {
				t.Log(name)
				r.run(before, now)
			}
		})
	}
}

// relay is a cart that one release begins and the other continues.
type relay struct {
	t           *testing.T
	first, then *sidecar
	cart        string
}

func (r relay) run(before, now *sidecar) {
	const add = `{"item":{"id":"b","quantity":1}}`
	same := func(after, path string) {
		r.t.Helper()
		seen, want := now.must(http.MethodGet, r.cart+path, ""), before.must(http.MethodGet, r.cart+path, "")
		for field := range want { // this release may have fields that the one before has not
			if diff := cmp.Diff(want[field], seen[field]); diff != "" {
				r.t.Errorf("%s: %s differs (-the release before +this one):\n%s", after, field, diff)
			}
		}
	}
	r.first.must(http.MethodPut, r.cart, `{"items":{"a":{"id":"a","quantity":2,"price":19.90,"more":{"x":[]}}},"conditions":{"vat":{"name":"vat","value":"6%"}}}`)
	r.first.must(http.MethodPatch, r.cart+"/metadata", `{"metadata":{"notes":"at the door","flag":true}}`)
	same("all parts are set", "")
	r.then.must(http.MethodPatch, r.cart+"/items/a", `{"quantityDelta":1}`)
	same("the other changed it", "")

	r.first.must(http.MethodPost, r.cart+"/items", add, "Idempotency-Key", "once")
	r.then.must(http.MethodPost, r.cart+"/items", add, "Idempotency-Key", "once")
	if n := r.quantities()["b"]; n != 1 {
		r.t.Errorf("a call that was repeated was made %d times", n)
	}

	lease := r.first.must(http.MethodPost, r.cart+"/locks", `{"leaseDuration":"60s"}`)["token"].(string)
	r.then.must(http.MethodPut, r.cart+"/locks/"+lease, `{"leaseDuration":"60s"}`)
	r.then.must(http.MethodPost, r.cart+"/items", add, "Sidecart-Lease", lease)
	r.first.must(http.MethodDelete, r.cart+"/locks/"+lease, "")
	r.then.must(http.MethodPost, r.cart+"/items", add) // nobody has it any more

	r.first.must(http.MethodPost, r.cart+":checkout", `{"checkoutId":"order"}`)
	same("checked out", "/checkouts/order")
	r.first.must(http.MethodPost, r.cart+"/items", add)
	if settled := r.then.must(http.MethodPost, r.cart+":settle", `{"checkoutId":"order","outcome":"ORDERED"}`)["settled"]; settled != true {
		r.t.Errorf("settled: %v", settled)
	}
	same("settled", "/checkouts/order")
	same("settled", "")
	if diff := cmp.Diff(map[string]int{"b": 1}, r.quantities()); diff != "" {
		r.t.Errorf("what was not ordered (-want +got):\n%s", diff)
	}
}

func (r relay) quantities() map[string]int { return r.first.quantities(r.cart[len("/v1/carts/"):]) }

// TestMixedVersionsLinearizable is [TestLinearizable] with both releases, each sidecar now being one and now the other.
func TestMixedVersionsLinearizable(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
	for name, f := range mixedFleets {
		t.Run(name, func(t *testing.T) {
			f.mixed = true
			linearizables(t, f, *linearRuns, slices.Concat(allFaults, []fault{otherVersion, otherVersion}))
		})
	}
}
