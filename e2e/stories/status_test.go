package stories

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// TestStatus looks at a CartStorage as its owner does: while the shop is scaled, restarted, given another sidecar,
// refused and without its backend for ten seconds.
func TestStatus(t *testing.T) {
	s := tellStory(t)
	s.redis()
	// Its CartStorage comes later. Until then its controller waits longer after each try.
	refusedAt := time.Now()
	s.deploy(app{name: "early", storage: "late", replicas: 2})
	s.refused("early", "there is no CartStorage late in namespace "+s.namespace)

	s.apply(s.sample("redis.yaml"))
	s.kubectl("patch", "cartstorage", "redis", "--type=merge", "-p", `{"spec":{"locking":{"autoDisableAfter":"2s"}}}`)
	s.deploy(app{name: "web", storage: "redis", replicas: 1, strategy: "{rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}"})
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(seen(cs), updated(cs, 1), locking(cs, false, "SingleWriter"), is(cs, "Ready", "True", "AllUpdated"))
	})
	s.hasTold("redis", 0, "BackendDurable is True") // the last that a first pod brings
	calm := s.watchReady("redis")
	s.newEvents("redis", 0, "the first pod")

	before := len(s.told("redis"))
	s.scale("web", 3)
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(locking(cs, true, "MultipleReplicas"), updated(cs, 3), is(cs, "Ready", "True", "AllUpdated"))
	})
	s.scale("web", 1)
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(locking(cs, false, "SingleWriter"), updated(cs, 1), is(cs, "Ready", "True", "AllUpdated"))
	})
	s.hasTold("redis", before, "locking is off: Deployment web is the only writer")
	s.newEvents("redis", before, "a scale from 1 to 3 and back")
	if n := len(s.told("redis")) - before; n != 2 {
		t.Errorf("a scale from 1 to 3 and back has %d events, want the two decisions about locking", n)
	}
	if not := calm(); len(not) > 0 {
		t.Errorf("Ready was not true in an ordinary scale: %v", not)
	}

	s.scale("web", 3)
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(updated(cs, 3), is(cs, "Ready", "True", "AllUpdated"))
	})
	before = len(s.told("redis"))
	s.kubectl("rollout", "restart", "deployment/web")
	s.rolledOut("web")
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(updated(cs, 3), is(cs, "Ready", "True", "AllUpdated"))
	})
	s.newEvents("redis", before, "a rolling update")
	if n := len(s.told("redis")) - before; n != 0 {
		t.Errorf("a rolling update has %d events, want none", n)
	}

	made := time.Now()
	s.apply(strings.Replace(s.sample("redis.yaml"), "name: redis\n", "name: late\n", 1) + "  keyPrefix: late\n")
	s.eventually("the pods that were refused", func(context.Context) error {
		if n := len(s.pods("early")); n != 2 {
			return fmt.Errorf("%d of 2", n)
		}
		return nil
	})
	took := time.Since(made)
	t.Logf("pods that had been refused for %s were there %s after their CartStorage was made", made.Sub(refusedAt).Round(time.Second), round(took))
	if took > 5*time.Second {
		t.Errorf("pods that had been refused came after %s, want 5s at most", round(took))
	}

	began := time.Now()
	var down time.Duration
	s.watch("redis", func() {
		s.redisCLI("CLIENT", "PAUSE", "10000", "ALL")
	}, func(cs *v1alpha1.CartStorage) string {
		if missing := is(cs, "BackendReachable", "False", v1alpha1.ReasonUnreachable); missing != "" {
			return missing
		}
		down = time.Since(began)
		return ""
	})
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(is(cs, "BackendReachable", "True", ""), is(cs, "Ready", "True", "AllUpdated"))
	})
	t.Logf("an outage of 10 s: BackendReachable is False after %s, and all is well again %s after it began", round(down), round(time.Since(began)))

	s.outdated()
}

// outdated gives the sidecars other resources: the status says which pods have the old ones, and the operator restarts
// their workloads when it is asked to.
func (s *story) outdated() {
	s.kubectl("patch", "cartstorage", "redis", "--type=merge", "-p", `{"spec":{"sidecar":{"resources":{"limits":{"memory":"160Mi"}}}}}`)
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		if cs.Status.Outdated != 3 {
			return "3 pods are not outdated"
		}
		return is(cs, "Ready", "True", "AllUpdated")
	})
	s.Log("\n" + s.kubectl("get", "cartstorages", "-o", "wide"))
	s.Log("\n" + s.kubectl("describe", "cartstorage", "redis"))
	role := filepath.Join("..", "..", "config", "rbac", "rollouts_role.yaml")
	world.MustKubectl(s.T, "apply", "-f", role)
	s.Cleanup(func() {
		if text, err := world.Kubectl(context.WithoutCancel(s.Context()), "delete", "-f", role); err != nil {
			s.Error(text, err)
		}
	})
	began := time.Now()
	s.kubectl("patch", "cartstorage", "redis", "--type=merge", "-p", `{"spec":{"sidecar":{"rollout":"Restart"}}}`)
	s.within(3*time.Minute, "the operator to restart web", func(ctx context.Context) error {
		cs, err := s.storage(ctx, "redis")
		if err != nil {
			return err
		}
		if missing := both(updated(cs, 3), is(cs, "Ready", "True", "AllUpdated")); missing != "" || cs.Status.Outdated != 0 {
			return fmt.Errorf("%s; status %+v", missing, cs.Status)
		}
		return nil
	})
	s.Logf("the operator restarted 3 pods with an outdated sidecar within %s", round(time.Since(began)))
	for _, pod := range s.pods("web") {
		if limit := pod.Spec.InitContainers[0].Resources.Limits.Memory().String(); limit != "160Mi" {
			s.Errorf("the sidecar of %s has a limit of %s", pod.Name, limit)
		}
	}
	s.newEvents("redis", 0, "all of it")
	s.Log(s.kubectl("get", "--raw", "/api/v1/namespaces/"+s.namespace+"/pods/"+s.pods("web")[0].Name+":7422/proxy/statusz"))
}

// told are the events about a CartStorage, as they came.
func (s *story) told(name string) (out []string) {
	s.Helper()
	var list eventsv1.EventList
	if err := s.get(s.Context(), &list, "events.events.k8s.io"); err != nil {
		s.Fatal(err)
	}
	at := func(e *eventsv1.Event) time.Time {
		return cmp.Or(e.EventTime.Time, e.DeprecatedFirstTimestamp.Time, e.CreationTimestamp.Time)
	}
	slices.SortStableFunc(list.Items, func(a, b eventsv1.Event) int { return at(&a).Compare(at(&b)) })
	for i := range list.Items {
		e := &list.Items[i]
		if e.Regarding.Kind != "CartStorage" || e.Regarding.Name != name {
			continue
		}
		count := int32(1)
		if e.Series != nil {
			count = e.Series.Count
		}
		for range count {
			out = append(out, fmt.Sprintf("%-8s%-20s%s", e.Type, e.Reason, e.Note))
		}
	}
	return out
}

// hasTold waits until an event after the first so many says so. Events reach the API server later than the status.
func (s *story) hasTold(name string, before int, what string) {
	s.Helper()
	s.eventually("an event of "+name, func(context.Context) error {
		since := s.told(name)[before:]
		if !slices.ContainsFunc(since, func(event string) bool { return strings.Contains(event, what) }) {
			return fmt.Errorf("none of %q says %q", since, what)
		}
		return nil
	})
}

// newEvents shows the events after the first so many.
func (s *story) newEvents(name string, before int, what string) {
	s.Helper()
	all := s.told(name)[before:]
	s.Logf("events of %s:\n%s", what, strings.Join(all, "\n"))
}

// watchReady notes each state of Ready that is not true, until the function that it returns is called.
func (s *story) watchReady(name string) func() []string {
	ctx, cancel := context.WithCancel(s.Context())
	seen := make(chan []string, 1)
	cmd := world.Command(ctx, "kubectl", "-n", s.namespace, "get", "cartstorage", name, "--watch", "--no-headers", "-o",
		`jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].message}{"\n"}`)
	var out strings.Builder
	cmd.Stdout = &out
	go func() {
		if err := cmd.Run(); err != nil && ctx.Err() == nil {
			seen <- []string{errors.Join(errors.New("kubectl get --watch"), err).Error()}
			return
		}
		var not []string
		for line := range strings.Lines(out.String()) {
			if !strings.HasPrefix(line, string(corev1.ConditionTrue)) {
				not = append(not, strings.TrimSpace(line))
			}
		}
		seen <- not
	}()
	return func() []string {
		cancel()
		return <-seen
	}
}
