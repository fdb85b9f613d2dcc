package stories

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

const operatorLabel = "app.kubernetes.io/name=sidecart-operator"

// TestOutage takes the whole control plane away under load: first the operator with its webhook, then the API server.
// Sidecars go on, restart and serve. When all is back, everything recovers by itself.
func TestOutage(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	account := s.keepAccount("web")
	s.deploy(app{name: "web", storage: "redis", replicas: 3, load: "--carts=10, --clients=4, --rate=100, --items=50, --prefix=outage"})
	s.deploy(app{name: "quiet", storage: "redis", replicas: 1})
	s.settles("redis", func(cs *v1alpha1.CartStorage) string { return both(updated(cs, 4), is(cs, "Ready", "True", "")) })
	s.rolledOut("quiet")
	account.acknowledges(500)
	web, quiet := s.pods("web"), s.pods("quiet")[0]

	// The operator is killed, and a CartStorage changed while nobody is there to see it.
	restoreOperator(t)
	doomed := operators(t)
	world.MustKubectl(t, "-n", system, "scale", "deployment/sidecart-operator", "--replicas=0")
	for _, p := range doomed {
		s.crash(&p, "operator")
	}
	world.MustKubectl(t, "-n", system, "wait", "--for=delete", "pod", "-l", operatorLabel, "--timeout=60s")
	s.kubectl("patch", "cartstorage", "redis", "--type=merge", "-p", `{"spec":{"ttl":"72h"}}`)

	before := s.logged(web)
	away := s.withoutAPIServer(outage, func() {
		crashed := time.Now()
		s.crash(&quiet, "sidecart")
		s.eventually("the sidecar that was killed to serve again", func(ctx context.Context) error { return buy(ctx, &quiet) })
		t.Logf("no API server: a sidecar that was killed served again after %s", time.Since(crashed).Round(time.Millisecond))
	}, func() {
		var sum int64
		for pod, n := range s.logged(web) {
			n -= before[pod]
			if sum += n; n < 1000 {
				t.Errorf("%s acknowledged only %d adds meanwhile", pod, n)
			}
		}
		now, failed := account.sum()
		t.Logf("no operator and no API server: %d adds acknowledged meanwhile; %d failed %s", sum, len(now.Failed), failed)
	})
	t.Logf("the API server was away for %s, until it was ready again", away.Round(time.Second))

	// The API server is back and the webhook is not. Pods that do not ask for a sidecar start once the scheduler, the
	// controllers and the kubelets have found the API server again, which takes up to a minute.
	s.apply(fmt.Sprintf(podManifest, "plain", "app: plain") + fmt.Sprintf(container, "shop", "serve"))
	s.kubectl("wait", "--for=condition=Ready", "pod/plain", "--timeout=150s")
	const refusal = `failed calling webhook "inject.sidecart.dev"`
	byHand := world.Command(t.Context(), "kubectl", "-n", s.namespace, "apply", "-f", "-")
	byHand.Stdin = strings.NewReader(fmt.Sprintf(podManifest, "labelled", "sidecart.dev/inject: redis") + fmt.Sprintf(container, "shop", "serve"))
	if out, err := byHand.CombinedOutput(); err == nil || !bytes.Contains(out, []byte(refusal)) {
		t.Errorf("a labelled pod without a webhook: %v: %s", err, out)
	}
	s.deploy(app{name: "late", storage: "redis", replicas: 2})
	s.refused("late", refusal)
	if cs := s.settles("redis", func(*v1alpha1.CartStorage) string { return "" }); cs.Status.ObservedGeneration == cs.Generation {
		t.Error("somebody has seen the change, who?")
	}

	world.MustKubectl(t, "-n", system, "scale", "deployment/sidecart-operator", "--replicas=2")
	began := time.Now()
	s.rolledOut("late")
	t.Logf("operator back: the pods that were refused are there after %s", time.Since(began).Round(100*time.Millisecond))
	// A kubelet that has not found the ConfigMap again, when it is told of its change by the pod's annotation, looks
	// again only with its next round, 60 to 90 s later.
	s.within(3*time.Minute, "the change to be everywhere", func(ctx context.Context) error {
		cs, err := s.storage(ctx, "redis")
		if err != nil {
			return err
		}
		if missing := both(seen(cs), updated(cs, 6), is(cs, "Ready", "True", "")); missing != "" {
			return fmt.Errorf("%s; status: %+v", missing, cs.Status)
		}
		return nil
	})
	t.Logf("operator back: the change of meanwhile is in 6/6 sidecars after %s, and all is well", time.Since(began).Round(100*time.Millisecond))
	for _, p := range slices.Concat(web, []corev1.Pod{quiet}, s.pods("late")) {
		s.shop(p.Name, "add", "ttl-"+p.Name, "mug")
		if ttl, err := strconv.Atoi(s.redisCLI("TTL", "cart.ttl-"+p.Name+".default")); err != nil || ttl <= 48*3600 {
			t.Errorf("a cart of %s lives %d s (%v), not 72 h", p.Name, ttl, err)
		}
	}
	for _, p := range slices.Concat(s.pods("web"), s.pods("quiet")) {
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			want := int32(0)
			if p.Name == quiet.Name && c.Name == "sidecart" {
				want = 1
			}
			if c.RestartCount != want {
				t.Errorf("%s of %s was restarted %d times, should be %d", c.Name, p.Name, c.RestartCount, want)
			}
		}
	}
	account.judgeFlawless("web", 5_000)
}

// TestLeaderHandOver takes the operator's leader away in three ways. Each time another one leads, and reconciles.
func TestLeaderHandOver(t *testing.T) {
	s := tellStory(t)
	restoreOperator(t)
	s.apply(`
apiVersion: sidecart.dev/v1alpha1
kind: CartStorage
metadata: {name: memory}
spec: {backend: {type: Memory}}
`)
	s.settles("memory", seen)
	for i, loss := range []struct {
		what string
		do   func(leader *corev1.Pod)
	}{
		{"deleted", func(leader *corev1.Pod) {
			world.MustKubectl(t, "-n", system, "delete", "pod", leader.Name, "--wait=false")
		}},
		// It cannot give its lease back, so the others must wait for its end (15 s).
		{"killed", func(leader *corev1.Pod) { s.crash(leader, "operator") }},
		// Longer than a leader may lead without having renewed its lease (10 s).
		{"cut off for 20 s, as all", func(*corev1.Pod) { s.withoutAPIServer(20*time.Second, nil, nil) }},
	} {
		world.MustKubectl(t, "-n", system, "rollout", "status", "deployment/sidecart-operator", "--timeout=90s")
		leader := s.leader("")
		var pod corev1.Pod
		for _, p := range operators(t) {
			if strings.HasPrefix(leader, p.Name+"_") {
				pod = p
			}
		}
		if pod.Name == "" {
			t.Fatalf("%s leads and is no pod of the operator", leader)
		}
		loss.do(&pod)
		began := time.Now()
		next := s.leader(leader)
		led := time.Since(began)
		if loss.what == "deleted" && strings.HasPrefix(next, pod.Name+"_") {
			t.Errorf("%s leads, which was deleted", next)
		}
		took := s.watch("memory", func() {
			s.kubectl("patch", "cartstorage", "memory", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"ttl":"%dh"}}`, 30+i))
		}, func(cs *v1alpha1.CartStorage) string {
			if cs.Spec.TTL == nil || cs.Spec.TTL.Duration != time.Duration(30+i)*time.Hour {
				return "it is not changed yet"
			}
			return seen(cs)
		})
		t.Logf("leader %s: another leads after %s, and has reconciled a change %s after it", loss.what, led.Round(time.Millisecond), took.Round(time.Millisecond))
	}
}

// restoreOperator makes sure that the stories that follow have an operator.
func restoreOperator(t *testing.T) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*soon)
		defer cancel()
		for _, args := range [][]string{{"scale", "deployment/sidecart-operator", "--replicas=2"}, {"rollout", "status", "deployment/sidecart-operator"}} {
			if _, err := world.Kubectl(ctx, append([]string{"-n", system}, args...)...); err != nil {
				t.Error(err)
			}
		}
	})
}

// leader waits for a leader of the operator that is not this one, and returns its name: that of its pod, and a number.
func (s *story) leader(other string) (name string) {
	s.Helper()
	s.eventually("a leader", func(ctx context.Context) error {
		var lease coordinationv1.Lease
		text, err := world.Kubectl(ctx, "-n", system, "get", "lease", "sidecart-operator", "-o", "json")
		if err == nil {
			err = json.Unmarshal([]byte(text), &lease)
		}
		if err != nil {
			return err
		}
		if holder := lease.Spec.HolderIdentity; holder != nil {
			name = *holder
		}
		if name == "" || name == other {
			return fmt.Errorf("%q leads", name)
		}
		return nil
	})
	return name
}

// seen says whether the operator has taken in what a CartStorage says now.
func seen(cs *v1alpha1.CartStorage) string {
	if cs.Status.ObservedGeneration != cs.Generation {
		return fmt.Sprintf("generation %d is observed, not %d", cs.Status.ObservedGeneration, cs.Generation)
	}
	return ""
}

// withoutAPIServer stops the API server for at least that long, calls during meanwhile and last just before its return.
// It returns how long there was none.
func (s *story) withoutAPIServer(atLeast time.Duration, during, last func()) (away time.Duration) {
	s.Helper()
	began := time.Now()
	if err := world.StopAPIServer(s.Context()); err != nil {
		s.Fatal(err)
	}
	defer func() { // also where the test fails, for what comes after it
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.Context()), soon)
		defer cancel()
		if err := world.StartAPIServer(ctx); err != nil {
			s.Error(err)
		}
		away = time.Since(began)
	}()
	if during != nil {
		during()
	}
	<-time.After(atLeast - time.Since(began)) // the length of the outage is what is tested
	if last != nil {
		last()
	}
	return away
}

// podManifest wants a name, a label and a container.
const podManifest = `
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {%s}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 5
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
`

// crash ends a container's process by SIGKILL, on its node, so that no API server is needed.
func (s *story) crash(pod *corev1.Pod, name string) {
	s.Helper()
	s.task(pod, name, "kill", "--signal=SIGKILL")
}

// task does something to a container's process, by containerd.
func (s *story) task(pod *corev1.Pod, name string, do ...string) {
	s.Helper()
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if c.Name != name {
			continue
		}
		args := append([]string{"--namespace=k8s.io", "tasks"}, do...)
		if _, err := world.OnNode(s.Context(), nodeOf(pod), "ctr", append(args, strings.TrimPrefix(c.ContainerID, "containerd://"))...); err != nil {
			s.Fatal(err)
		}
		return
	}
	s.Fatalf("%s has no container %s", pod.Name, name)
}

// nodeOf is the number of a pod's node.
func nodeOf(pod *corev1.Pod) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(pod.Spec.NodeName, "node"))
	return n
}

// buy puts a mug into a new cart through a shop's page, like a browser that reaches the pod. The shop asks its sidecar.
func buy(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	body := strings.NewReader(url.Values{"id": {"mug"}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+pod.Status.PodIP+":8080/items", body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := world.HTTPClient()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		return fmt.Errorf("%s: %s", pod.Name, res.Status)
	}
	return nil
}

// logged is how many adds of each pod's load were acknowledged. It reads the disks of the nodes, since without an API
// server there is no other way.
func (s *story) logged(pods []corev1.Pod) map[string]int64 {
	s.Helper()
	acknowledged := map[string]int64{}
	for _, p := range pods {
		path := filepath.Join(world.Dir(), p.Spec.NodeName, "var/log/pods", s.namespace+"_"+p.Name+"_"+string(p.UID), "load", "0.log")
		text, err := os.ReadFile(path)
		if err != nil {
			s.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			var t tally
			if i := bytes.IndexByte(line, '{'); i >= 0 && json.Unmarshal(line[i:], &t) == nil {
				acknowledged[p.Name] = max(acknowledged[p.Name], t.Acknowledged)
			}
		}
	}
	return acknowledged
}
