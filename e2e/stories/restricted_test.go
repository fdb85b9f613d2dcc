package stories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// TestRestricted uses Sidecart under strict administrators: the namespace enforces the restricted Pod Security Standard
// and has a ResourceQuota of every kind. The operator's namespace is like that in all stories.
func TestRestricted(t *testing.T) {
	s := tellStory(t, restricted...)
	// Room for Redis and two pods. A third shop would fit, a third shop with its sidecar does not.
	s.apply(`
apiVersion: v1
kind: ResourceQuota
metadata: {name: room}
spec:
  hard: {pods: "5", requests.cpu: 200m, requests.memory: 256Mi, limits.cpu: "5", limits.memory: 2Gi}
`)
	for _, namespace := range []string{s.namespace, system} {
		refusal, err := world.Kubectl(t.Context(), "-n", namespace, "run", "root", "--image=redis:e2e", "--privileged")
		if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted:latest"`) {
			t.Fatalf("%s lets a privileged pod in: this story proves nothing: %s %v", namespace, refusal, err)
		}
	}

	s.redis()
	s.apply(s.sample("redis.yaml"))
	s.deploy(app{name: "web", storage: "redis", replicas: 2})
	// A sidecar has no limit of cpu unless it is given one. The quota says so, and of which container it speaks.
	s.refused("web", "failed quota: room", "must specify limits.cpu for: sidecart")
	s.kubectl("patch", "cartstorage", "redis", "--type=merge", "-p",
		`{"spec":{"sidecar":{"resources":{"requests":{"cpu":"20m","memory":"32Mi"},"limits":{"cpu":"500m","memory":"128Mi"}}}}}`)
	s.rolledOut("web")
	s.settles("redis", func(cs *v1alpha1.CartStorage) string { return both(updated(cs, 2), is(cs, "Ready", "True", "")) })
	web := s.pods("web")
	s.shop(web[0].Name, "add", "u1", "mug", "2")
	if got := s.shop(web[1].Name, "show", "u1"); !strings.Contains(got, `"mug"`) {
		t.Errorf("the other pod does not see the cart: %s", got)
	}

	s.scale("web", 3)
	s.refused("web", "exceeded quota: room", "requested: limits.cpu=1500m", "limited: limits.cpu=5")
	// The pods that are there are well. The pods that may still come have already decided about locking.
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(updated(cs, 2), is(cs, "Ready", "True", ""), locking(cs, true, "MultipleReplicas"))
	})
	s.kubectl("patch", "resourcequota", "room", "--type=merge", "-p", `{"spec":{"hard":{"limits.cpu":"6"}}}`)
	s.settles("redis", func(cs *v1alpha1.CartStorage) string { return both(updated(cs, 3), is(cs, "Ready", "True", "")) })
	t.Log("\n" + s.kubectl("describe", "resourcequota", "room"))

	t.Run("network policies", func(t *testing.T) { networkPolicies(&story{t, s.namespace}) })
}

// refused waits until an app's Deployment says that a pod was refused, in these words.
func (s *story) refused(name string, words ...string) {
	s.Helper()
	s.eventually("a refusal of a pod of "+name, func(ctx context.Context) error {
		var d appsv1.Deployment
		if err := s.get(ctx, &d, "deployment", name); err != nil {
			return err
		}
		for _, c := range d.Status.Conditions {
			if c.Type != appsv1.DeploymentReplicaFailure || c.Status != corev1.ConditionTrue {
				continue
			}
			for _, w := range words {
				if !strings.Contains(c.Message, w) {
					return fmt.Errorf("%q does not say %q", c.Message, w)
				}
			}
			return nil
		}
		return errors.New("none")
	})
}

// networkPolicies checks that the chart's policies, as the API server has them, let through the traffic that the
// operator needs, by the addresses and ports of the present objects, and nothing else. This cluster does not enforce
// policies, so policy_test.go judges by the rules of Kubernetes.
func networkPolicies(s *story) {
	policies := func() []string {
		return strings.Fields(world.MustKubectl(s.T, "-n", system, "get", "networkpolicies", "-o", "name"))
	}
	if had := policies(); len(had) > 0 {
		s.Fatalf("there are policies that nobody asked for: %s", had)
	}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.Context()), soon)
		defer cancel()
		if _, err := world.Helm(ctx, helmArgs("upgrade", thisVersion, "--reset-values")...); err != nil {
			s.Error(err)
		}
	})
	world.MustHelm(s.T, helmArgs("upgrade", thisVersion, "--set", "networkPolicy.enabled=true", "--set", "networkPolicy.egress.enabled=true")...)
	if have, want := policies(), []string{"networkpolicy.networking.k8s.io/sidecart-operator"}; !slices.Equal(have, want) {
		s.Fatalf("policies are %s, not %s", have, want)
	}

	ctx := s.Context()
	client := world.Client()
	wall, err := newFirewall(ctx, client, system)
	if err != nil {
		s.Fatal(err)
	}
	operators, err := client.CoreV1().Pods(system).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=sidecart-operator"})
	if err != nil {
		s.Fatal(err)
	}
	if len(operators.Items) < 2 {
		s.Fatalf("%d pods of the operator", len(operators.Items))
	}
	slice := func(namespace, service string) discoveryv1.EndpointSlice {
		list, err := client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
		if err != nil {
			s.Fatal(err)
		}
		if len(list.Items) != 1 || len(list.Items[0].Ports) != 1 {
			s.Fatalf("endpoints of %s: %+v", service, list.Items)
		}
		return list.Items[0]
	}
	apiServer, err := client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	shop, redis := s.pods("web")[0], s.pods("redis")[0]
	sidecar := shop.Spec.InitContainers[0]
	for _, operator := range operators.Items {
		probe := operator.Spec.Containers[0].ReadinessProbe.HTTPGet.Port
		for _, row := range []struct {
			what string
			got  bool
			want bool
		}{
			{"the webhook from the API server", wall.lets(&operator, in, nil, *slice(system, "sidecart-operator").Ports[0].Port), true},
			{"probes from the kubelet", wall.lets(&operator, in, nil, portOf(&operator, probe)), true},
			{"metrics from a pod", wall.lets(&operator, in, &shop, *slice(system, "sidecart-operator-metrics").Ports[0].Port), true},
			{"another port", wall.lets(&operator, in, &shop, 6060), false},
			{"to the API server's Service", wall.lets(&operator, out, nil, apiServer.Spec.Ports[0].Port), true},
			{"to the API server behind it", wall.lets(&operator, out, nil, *slice("default", "kubernetes").Ports[0].Port), true},
			{"to a sidecar", wall.lets(&operator, out, &shop, sidecar.Ports[0].ContainerPort), true},
			{"to the app beside it", wall.lets(&operator, out, &shop, 8080), false},
			{"to Redis", wall.lets(&operator, out, &redis, 6379), false},
			{"to Redis by the sidecars' port", wall.lets(&operator, out, &redis, sidecar.Ports[0].ContainerPort), false},
		} {
			if row.got != row.want {
				s.Errorf("%s: %s: let through: %t, should be %t", operator.Name, row.what, row.got, row.want)
			}
		}
	}
	// It is about the operator alone.
	if !wall.lets(&shop, in, nil, 1) || !wall.lets(&shop, out, nil, 1) {
		s.Error("the operator's policy is about the shop's pods too")
	}
}
