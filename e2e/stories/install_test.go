package stories

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// TestInstall is the first quarter of an hour of a new user.
func TestInstall(t *testing.T) {
	s := tellStory(t)
	s.Log("\n" + world.MustKubectl(t, "-n", system, "get", "deployments,pods"))
	s.redis()
	s.apply(s.sample("redis.yaml"))
	s.settles("redis", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "True", "") })

	s.deploy(app{name: "web", storage: "redis", replicas: 2})
	s.rolledOut("web")
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(updated(cs, 2), is(cs, "Ready", "True", ""), is(cs, "BackendReachable", "True", ""), is(cs, "LockingEffective", "True", ""))
	})
	pods := s.kubectl("get", "pods", "-l", "app=web")
	if n := strings.Count(pods, "2/2     Running"); n != 2 {
		t.Errorf("%d pods are 2/2 Running, want 2:\n%s", n, pods)
	}
	s.Log("\n" + pods)
	s.Log("\n" + s.kubectl("get", "cartstorage"))
	s.Log("\n" + s.kubectl("get", "cartstorage", "-o", "wide"))

	// One pod puts an item into a cart through its localhost. The other finds it through its own, and it is in the
	// Redis.
	web := s.pods("web")
	s.shop(web[0].Name, "add", "u1", "mug", "2")
	if got := s.shop(web[1].Name, "show", "u1"); !strings.Contains(got, `"mug"`) {
		t.Errorf("the other pod does not see the cart: %s", got)
	}
	if got := s.redisCLI("HGET", "cart.u1.default", "items"); !strings.Contains(got, `"mug"`) {
		t.Errorf("cart.u1.default in Redis has items %q", got)
	}
	if test := world.MustHelm(t, "test", "sidecart", "--namespace", system); !strings.Contains(test, "Succeeded") {
		t.Errorf("helm test:\n%s", test)
	}
	for _, object := range []string{"configmaps", "events"} {
		if strings.Contains(s.kubectl("get", object, "-o", "yaml"), "correct-horse") {
			t.Errorf("the password is in %s", object)
		}
	}
	for _, pod := range web {
		if got := world.MustKubectl(t, "get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:7422/proxy/statusz", s.namespace, pod.Name)); strings.Contains(got, "correct-horse") {
			t.Errorf("the password is on the status page of %s", pod.Name)
		}
	}
}
