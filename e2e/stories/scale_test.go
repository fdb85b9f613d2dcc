package stories

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

var scaleRuns = flag.Int("stories.scales", 3, "how often TestScaleUnderLoad scales from one to five and back")

// TestScaleUnderLoad scales a shop under load, and measures how long it takes until every sidecar runs the
// configuration for the new number of writers.
func TestScaleUnderLoad(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	s.kubectl("patch", "cartstorage", "redis", "--type=merge", "-p", `{"spec":{"locking":{"autoDisableAfter":"2s"}}}`)
	account := s.keepAccount("web")
	// maxSurge 0: one replica is one writer, also while it rolls.
	s.deploy(app{name: "web", storage: "redis", replicas: 1, strategy: "{rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}",
		load: "--carts=20, --clients=8, --rate=400, --items=50, --prefix=scale"})
	s.settles("redis", func(cs *v1alpha1.CartStorage) string { return both(updated(cs, 1), locking(cs, false, "SingleWriter")) })

	var up []time.Duration
	for range *scaleRuns {
		took := s.watch("redis", func() { s.scale("web", 5) }, func(cs *v1alpha1.CartStorage) string {
			return both(locking(cs, true, "MultipleReplicas"), updated(cs, 5))
		})
		up = append(up, took)
		account.acknowledges(2000)
		s.scale("web", 1)
		s.settles("redis", func(cs *v1alpha1.CartStorage) string { return both(locking(cs, false, "SingleWriter"), updated(cs, 1)) })
	}
	slices.Sort(up)
	t.Logf("from kubectl scale to five of five sidecars on the new configuration: median %s, longest of %d %s",
		up[len(up)/2].Round(time.Millisecond), len(up), up[len(up)-1].Round(time.Millisecond))
	now, _ := account.sum()
	if missing := 20_000 - now.Acknowledged; missing > 0 {
		account.acknowledges(missing)
	}
	account.judgeFlawless("web", 20_000)
}

func locking(cs *v1alpha1.CartStorage, enabled bool, reason string) string {
	l := cs.Status.Locking
	if l == nil || l.Enabled != enabled || l.Reason != reason {
		return fmt.Sprintf("locking is %+v, should be %t for %s", l, enabled, reason)
	}
	return ""
}

// watch measures from the call of do to the moment at which a CartStorage is as it should be, by the API server's own
// stream of changes.
func (s *story) watch(name string, do func(), should func(*v1alpha1.CartStorage) string) time.Duration {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), soon)
	defer cancel()
	client, err := dynamic.NewForConfig(world.RESTConfig())
	if err != nil {
		s.Fatal(err)
	}
	resource := schema.GroupVersionResource{Group: v1alpha1.GroupVersion.Group, Version: v1alpha1.GroupVersion.Version, Resource: "cartstorages"}
	w, err := client.Resource(resource).Namespace(s.namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		s.Fatal(err)
	}
	defer w.Stop()
	began := time.Now()
	do()
	missing := "no change"
	for event := range w.ResultChan() {
		u, ok := event.Object.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		var cs v1alpha1.CartStorage
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &cs); err != nil {
			s.Fatal(err)
		}
		if missing = should(&cs); missing == "" {
			return time.Since(began)
		}
	}
	s.Fatalf("%s: %s", name, missing)
	return 0
}
