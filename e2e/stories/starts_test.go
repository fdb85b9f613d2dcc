package stories

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/e2e/cluster"
)

// TestPortsChange changes the ports of a CartStorage that pods use, and kills the sidecar of one of them. It still
// listens where its pod says, nothing is refused meanwhile, and a new pod has the new ports.
func TestPortsChange(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	s.deploy(app{name: "web", storage: "redis", replicas: 2})
	s.rolledOut("web")
	s.settled(2)
	took := s.change(`{"sidecar":{"ports":{"grpc":17420,"http":17421,"admin":17422}}}`, 2)
	s.settled(2)
	t.Logf("both sidecars run the configuration with other ports after %s", round(took))

	killed := s.pods("web")[0]
	s.crashAndServe(&killed)
	s.settled(2)

	old := s.pods("web")
	s.scale("web", 3)
	s.rolledOut("web")
	s.settled(3)
	for _, p := range s.pods("web") {
		url := "http://127.0.0.1:17421"
		if slices.ContainsFunc(old, func(o corev1.Pod) bool { return o.Name == p.Name }) {
			url = "http://127.0.0.1:7421"
		}
		if got := variable(&p, "SIDECART_HTTP_URL"); got != url {
			t.Errorf("%s is told %s, should be %s", p.Name, got, url)
		}
		s.eventually(p.Name+" to serve", func(ctx context.Context) error { return buy(ctx, &p) })
	}
}

// TestLastGood gives two pods a configuration that they refuse and kills the sidecar of one. It comes up on the
// configuration that both run on, says so, and serves. So does a pod that is created meanwhile.
func TestLastGood(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	s.deploy(app{name: "web", storage: "redis", replicas: 2})
	s.rolledOut("web")
	s.settled(2)
	s.eventually("the configuration to be the last good one", func(ctx context.Context) error {
		var cm corev1.ConfigMap
		if err := s.get(ctx, &cm, "configmap", "redis-sidecart"); err != nil {
			return err
		}
		if cm.Data["lastgood.yaml"] != cm.Data["config.yaml"] {
			return fmt.Errorf("the ConfigMap has %v", cm.Data)
		}
		return nil
	})

	s.patch(`{"orphanedCarts":"Accept","backend":{"redis":{"addresses":["nowhere:6379"]}}}`)
	refused := func(sidecars int) {
		t.Helper()
		s.settles("redis", func(cs *v1alpha1.CartStorage) string {
			return both(current(cs), refusal(cs, "Redis nowhere:6379 does not answer", sidecars), is(cs, "BackendReachable", "True", ""))
		})
	}
	refused(2)
	killed := s.pods("web")[0]
	s.crashAndServe(&killed)
	if log := s.kubectl("logs", killed.Name, "-c", "sidecart"); !strings.Contains(log, "configuration rejected, started on the last good one") {
		t.Errorf("the sidecar does not say on what it started:\n%s", log)
	}
	refused(2)

	s.scale("web", 3)
	s.rolledOut("web")
	refused(3)
	for _, p := range s.pods("web") {
		s.eventually(p.Name+" to serve", func(ctx context.Context) error { return buy(ctx, &p) })
	}
	s.change(`{"orphanedCarts":"Accept","backend":{"redis":{"addresses":["redis:6379"]}}}`, 3)
	s.settled(3)
}

// TestStartsWithoutItsBackend starts pods while their backend is away. They run, the status says what is wrong, and
// only the pod whose readiness depends on the backend is not ready. When the backend comes, all is well.
func TestStartsWithoutItsBackend(t *testing.T) {
	s := tellStory(t)
	s.kubectl("create", "secret", "generic", "redis-auth", "--from-literal=password=correct-horse")
	s.apply(s.sample("redis.yaml"))
	s.apply(strings.ReplaceAll(s.sample("redis.yaml"), "name: redis\n", "name: strict\n") + "  sidecar: {readiness: Backend}\n")
	s.deploy(app{name: "web", storage: "redis", replicas: 1})
	s.deploy(app{name: "strict", storage: "strict", replicas: 1})
	s.rolledOut("web")
	for _, name := range []string{"redis", "strict"} {
		s.settles(name, func(cs *v1alpha1.CartStorage) string {
			return both(is(cs, "BackendReachable", "False", v1alpha1.ReasonUnreachable), is(cs, "Ready", "False", v1alpha1.ReasonDegraded))
		})
	}
	s.eventually("the strict pod to run and not to be ready", func(context.Context) error {
		pods := s.pods("strict")
		if len(pods) != 1 || !running(&pods[0], "shop") || ready(&pods[0]) {
			return fmt.Errorf("its pods: %+v", pods)
		}
		return nil
	})
	s.redis()
	s.rolledOut("strict")
	for _, name := range []string{"redis", "strict"} {
		s.settles(name, func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "True", "") })
	}
}

// TestProxyInThePod reaches the backend only through a proxy in the same pod, a native sidecar. With order Last the
// proxy runs before our sidecar, which is ready when the app starts. With order First the pod comes up as well.
func TestProxyInThePod(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.loadForward()
	proxy := `      initContainers:
      - name: proxy
        image: forward:e2e
        imagePullPolicy: Never
        args: ["127.0.0.1:6390", "redis:6379"]
        restartPolicy: Always
        resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {cpu: "1", memory: 64Mi}}
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`
	for _, order := range []string{"Last", "First"} {
		name := strings.ToLower(order)
		s.apply(strings.NewReplacer("name: redis\n", "name: "+name+"\n", "redis:6379", "127.0.0.1:6390").Replace(s.sample("redis.yaml")) +
			"  injection: {order: " + order + "}\n")
		began := time.Now()
		s.deploy(app{name: name, storage: name, replicas: 1, pod: proxy})
		s.rolledOut(name)
		t.Logf("order %s: the pod is ready after %s", order, round(time.Since(began)))
		pod := s.pods(name)[0]
		want := []string{"proxy", "sidecart"}
		if order == "First" {
			slices.Reverse(want)
		}
		var got []string
		for _, c := range pod.Spec.InitContainers {
			got = append(got, c.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the init containers are %v, should be %v", got, want)
		}
		s.eventually("the pod to serve", func(ctx context.Context) error { return buy(ctx, &pod) })
		s.settles(name, func(cs *v1alpha1.CartStorage) string {
			return both(updated(cs, 1), is(cs, "BackendReachable", "True", ""))
		})
		log := s.kubectl("logs", pod.Name, "-c", "sidecart")
		if unreached := strings.Contains(log, "does not answer"); unreached != (order == "First") {
			t.Errorf("order %s: the sidecar found its backend away: %t\n%s", order, unreached, log)
		}
		for _, c := range pod.Status.InitContainerStatuses {
			if c.RestartCount != 0 {
				t.Errorf("%s of %s was restarted %d times", c.Name, pod.Name, c.RestartCount)
			}
		}
	}
}

// TestDrain empties a node of pods with sidecars, by `kubectl drain` without --delete-emptydir-data. If carts are in a
// folder of the node, the drain refuses.
func TestDrain(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	s.apply(`
apiVersion: sidecart.dev/v1alpha1
kind: CartStorage
metadata: {name: local}
spec: {backend: {type: Database, database: {dialect: SQLite}}}
`)
	s.deploy(app{name: "web", storage: "redis", replicas: 2, pod: onBothNodes("web")})
	s.deploy(app{name: "local", storage: "local", replicas: 1, pod: "      nodeSelector: {kubernetes.io/hostname: node2}\n"})
	s.rolledOut("web")
	s.rolledOut("local")
	on := func(node int) (n int) {
		for _, p := range s.pods("web") {
			if nodeOf(&p) == node {
				n++
			}
		}
		return n
	}
	if on(2) == 0 {
		t.Fatal("no pod is on node2")
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), soon)
		defer cancel()
		if _, err := world.Kubectl(ctx, "uncordon", "node2"); err != nil {
			t.Error(err)
		}
	})
	drain := func(app string) (string, error) {
		out, err := world.Command(t.Context(), "kubectl", "drain", "node2", "--ignore-daemonsets", "--pod-selector=app="+app, "--timeout=60s").CombinedOutput()
		return string(out), err
	}
	out, err := drain("web")
	if err != nil {
		t.Fatalf("kubectl drain: %v\n%s", err, out)
	}
	t.Logf("kubectl drain node2\n%s", out)
	s.rolledOut("web")
	if n := on(2); n != 0 {
		t.Errorf("%d pods are on node2 still", n)
	}
	s.settled(2)
	if out, err := drain("local"); err == nil || !strings.Contains(out, "local storage") {
		t.Errorf("kubectl drain of carts in a folder of the node: %v\n%s", err, out)
	}
	if got := s.pods("local")[0].Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"]; got != "false" {
		t.Errorf("the cluster autoscaler is told %q of carts in a folder of the node", got)
	}
}

// crashAndServe kills the sidecar of a pod and waits until it has restarted, and the app of the pod reaches it.
func (s *story) crashAndServe(pod *corev1.Pod) {
	s.Helper()
	restarts := func(pods ...corev1.Pod) int32 {
		for _, p := range pods {
			for _, c := range p.Status.InitContainerStatuses {
				if p.Name == pod.Name && c.Name == "sidecart" {
					return c.RestartCount
				}
			}
		}
		return -1
	}
	before := restarts(*pod)
	s.crash(pod, "sidecart")
	began := time.Now()
	s.eventually("the sidecar that was killed to serve again", func(ctx context.Context) error {
		var now corev1.Pod
		if err := s.get(ctx, &now, "pod", pod.Name); err != nil {
			return err
		}
		if n := restarts(now); n != before+1 {
			return fmt.Errorf("it was restarted %d times, before %d", n, before)
		}
		return buy(ctx, pod)
	})
	s.Logf("a sidecar that was killed serves again after %s", round(time.Since(began)))
}

// loadForward gives the nodes the image forward:e2e.
func (s *story) loadForward() {
	s.Helper()
	dir := s.TempDir()
	program, archive := filepath.Join(dir, "forward"), filepath.Join(dir, "forward.tar")
	build := exec.CommandContext(s.Context(), "go", "build", "-o", program, "./forward")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		s.Fatalf("go build: %v\n%s", err, out)
	}
	image := cluster.Image{Name: "forward:e2e", Files: map[string]string{program: "/forward"}, Entrypoint: "/forward", User: "65532:65532"}
	if err := image.Build(s.Context(), archive); err != nil {
		s.Fatal(err)
	}
	if err := world.Load(s.Context(), archive); err != nil {
		s.Fatal(err)
	}
}

// variable is one of the environment of a pod's app.
func variable(pod *corev1.Pod, name string) string {
	for _, v := range pod.Spec.Containers[0].Env {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
}

func running(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == name && c.State.Running != nil })
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
