package stories

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// TestUpgrade upgrades the operator, then the sidecars, uninstalls the operator and installs it again. The shop sells
// meanwhile.
func TestUpgrade(t *testing.T) {
	s := tellStory(t)
	t.Cleanup(func() { reinstall(t) })
	s.redis()
	s.apply(s.sample("redis.yaml"))
	account := s.keepAccount("web")
	s.deploy(app{name: "web", storage: "redis", replicas: 3, load: "--carts=20, --clients=4, --rate=60, --items=50, --prefix=upgrade"})
	s.rolledOut("web")
	well := func(cs *v1alpha1.CartStorage) string {
		return both(updated(cs, 3), is(cs, "Ready", "True", ""), locking(cs, true, "MultipleReplicas"))
	}
	storage := s.settles("redis", well)
	account.acknowledges(500)
	before := s.sidecars("web")
	s.runs(before, thisVersion)

	next, err := images(t.Context(), t.TempDir(), nextVersion) // no other story needs them
	if err != nil {
		t.Fatal(err)
	}
	if err := world.Load(t.Context(), next...); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	world.MustHelm(t, helmArgs("upgrade", nextVersion)...)
	took := time.Since(began)
	account.acknowledges(500)
	for _, pod := range operators(t) {
		if image := pod.Spec.Containers[0].Image; image != "sidecart/operator:"+nextVersion {
			t.Errorf("%s runs %s after the upgrade", pod.Name, image)
		}
	}
	// The new operator has looked at the sidecars and is content: an older sidecar is not a fault.
	s.settles("redis", well)
	if diff := cmp.Diff(before, s.sidecars("web")); diff != "" {
		t.Errorf("the upgrade of the operator changed running sidecars (-before +after):\n%s", diff)
	}
	s.listed(3, thisVersion)

	s.kubectl("rollout", "restart", "deployment/web")
	s.rolledOut("web")
	s.settles("redis", well)
	s.runs(s.sidecars("web"), nextVersion)
	s.listed(3, nextVersion)
	account.acknowledges(500)

	world.MustHelm(t, "uninstall", "sidecart", "--namespace", system, "--wait", "--timeout", "2m")
	s.eventually("the operator to be gone", func(context.Context) error {
		if left := operators(t); len(left) > 0 {
			return fmt.Errorf("%d pods are there", len(left))
		}
		return nil
	})
	if _, err := world.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "sidecart", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the webhook is left: %v", err)
	}
	account.acknowledges(1000)
	alone := s.sidecars("web")
	if now, err := s.storage(t.Context(), "redis"); err != nil || now.UID != storage.UID {
		t.Errorf("the CartStorage did not outlive the operator: %v, UID %s was %s", err, now.UID, storage.UID)
	}

	world.MustHelm(t, helmArgs("install", thisVersion)...)
	s.settles("redis", well)
	if diff := cmp.Diff(alone, s.sidecars("web")); diff != "" {
		t.Errorf("sidecars changed while the operator was away (-before +after):\n%s", diff)
	}
	// The operator acts again: all sidecars learn of a change that is made now.
	s.kubectl("patch", "cartstorage", "redis", "--type=merge", "-p", `{"spec":{"ttl":"12h"}}`)
	s.eventually("the sidecars to run a new configuration", func(context.Context) error {
		for pod, now := range s.sidecars("web") {
			if now.Generation <= alone[pod].Generation {
				return fmt.Errorf("%s runs generation %d", pod, now.Generation)
			}
		}
		return nil
	})
	account.acknowledges(500)
	t.Logf("upgrade of the operator took %s", took.Round(100*time.Millisecond))
	account.judgeFlawless("web", 5000)
}

// sidecar identifies one run of a sidecar, and has what it says of itself.
type sidecar struct {
	Container  string
	Version    string
	Generation int64
}

// sidecars of an app's pods, by pod.
func (s *story) sidecars(name string) map[string]sidecar {
	s.Helper()
	all := map[string]sidecar{}
	for _, pod := range s.pods(name) {
		if n := len(pod.Status.InitContainerStatuses); n != 1 {
			s.Fatalf("%s has %d init containers", pod.Name, n)
		}
		// An answer may be lost: the pod's node is asked by way of the API server.
		now := sidecar{Container: pod.Status.InitContainerStatuses[0].ContainerID}
		s.eventually("the status page of "+pod.Name, func(ctx context.Context) error {
			page, err := world.Client().CoreV1().RESTClient().Get().Namespace(s.namespace).Resource("pods").Name(pod.Name+":7422").
				SubResource("proxy").Suffix("statusz").SetHeader("Accept", "application/json").DoRaw(ctx)
			if err != nil {
				return err
			}
			return json.Unmarshal(page, &now)
		})
		all[pod.Name] = now
	}
	return all
}

// runs says whether so many sidecars all are of a version.
func (s *story) runs(sidecars map[string]sidecar, version string) {
	s.Helper()
	if len(sidecars) != 3 {
		s.Errorf("%d pods are there, not 3", len(sidecars))
	}
	for pod, c := range sidecars {
		if c.Version != version {
			s.Errorf("the sidecar of %s is version %s, should be %s", pod, c.Version, version)
		}
	}
}

// listed says whether the command of docs/install.md finds so many sidecars of a version and no others.
func (s *story) listed(sidecars int, version string) {
	s.Helper()
	s.eventually("pods that end to be gone", func(ctx context.Context) error {
		list, err := world.Kubectl(ctx, "-n", s.namespace, "get", "pods", "--selector", "sidecart.dev/inject",
			"--output", "custom-columns=NAME:.metadata.name,SIDECAR:.spec.initContainers[0].image")
		if err != nil {
			return err
		}
		if all, right := strings.Count(list, "\n")-1, strings.Count(list, " sidecart/sidecar:"+version+"\n"); all != sidecars || right != sidecars {
			return fmt.Errorf("%d of %d, should be %d of version %s:\n%s", right, all, sidecars, version, list)
		}
		return nil
	})
}

// operators are the operator's pods that are not ending.
func operators(t *testing.T) (pods []corev1.Pod) {
	t.Helper()
	list, err := world.Client().CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=sidecart-operator"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			pods = append(pods, p)
		}
	}
	return pods
}

// reinstall leaves the operator as the other stories expect it if this one was cut off in the middle.
func reinstall(t *testing.T) {
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*soon)
	defer cancel()
	_, gone := world.Helm(ctx, "uninstall", "sidecart", "--namespace", system, "--ignore-not-found", "--wait")
	_, back := world.Helm(ctx, helmArgs("install", thisVersion)...)
	if err := errors.Join(gone, back); err != nil {
		t.Error(err)
	}
}
