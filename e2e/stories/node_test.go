package stories

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

const (
	// heldFor is the duration of the lease that a pod holds when its node dies.
	heldFor = 2 * time.Second
	// turn is the longest that a dead sidecar holds up the others between two steps of one change, and waiterLife how
	// long its place in the queue of a cart outlives it: turnTTL of internal/lock, WaiterTTL of internal/storage.
	turn       = 750 * time.Millisecond
	waiterLife = 750 * time.Millisecond
	// slack is what a busy machine may add.
	slack = 2 * time.Second
)

// TestNodeKilled pulls the plug of one of two nodes under load on one hot cart, while a pod of that node holds a lease
// on another cart. The survivors go on as soon as the locks of the dead have expired, the pods come up again on the
// other node, and nothing that was acknowledged is lost.
func TestNodeKilled(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	hot, held := s.keepAccount("hot"), s.keepAccount("held")
	s.deploy(app{name: "hot", storage: "redis", replicas: 4, load: "--carts=1, --clients=4, --rate=100, --items=50, --prefix=hot", pod: onBothNodes("hot")})
	s.deploy(app{name: "held", storage: "redis", replicas: 2, load: "--carts=1, --clients=2, --rate=20, --prefix=held", pod: onBothNodes("held")})
	s.rolledOut("hot")
	s.rolledOut("held")
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		return both(updated(cs, 6), is(cs, "Ready", "True", ""), locking(cs, true, "MultipleReplicas"))
	})
	before := map[string]int{} // node of each pod
	var doomed *corev1.Pod     // of app held
	for _, name := range []string{"hot", "held"} {
		nodes := map[int]int{}
		for _, p := range s.pods(name) {
			before[p.Name] = nodeOf(&p)
			nodes[nodeOf(&p)]++
			if name == "held" && nodeOf(&p) == 2 {
				doomed = &p
			}
		}
		if nodes[1] == 0 || nodes[2] == 0 {
			t.Fatalf("the pods of %s are not on both nodes: %v", name, nodes)
		}
	}
	hot.acknowledges(1000)
	held.acknowledges(50)
	survives := func(pod string) bool { return before[pod] == 1 }
	comesLater := func(pod string) bool { return before[pod] == 0 }
	hotBefore, heldBefore := hot.of(survives), held.of(survives)

	s.hold(doomed, "held-0", heldFor)
	if err := world.KillNode(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	back := false
	t.Cleanup(func() { // also where the test fails, for what comes after it
		if !back {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), soon)
			defer cancel()
			if err := world.StartNode(ctx, 2); err != nil {
				t.Error(err)
			}
		}
	})
	// Each client of the survivors has been through it once it has had several answers.
	s.goesOn(hot, survives, 300)
	s.goesOn(held, survives, 50)
	hotAfter, heldAfter := hot.of(survives), held.of(survives)
	t.Logf("node killed: adds of the survivors to one hot cart took %.2f s at most, %.2f s before", hotAfter.SlowestS, hotBefore.SlowestS)
	t.Logf("node killed that held a lease of %s: adds of the survivors to that cart took %.2f s at most, %.2f s before", heldFor, heldAfter.SlowestS, heldBefore.SlowestS)
	if most := max(hotBefore.SlowestS, (turn + waiterLife + slack).Seconds()); hotAfter.SlowestS > most {
		t.Errorf("the dead held up the hot cart for %.2f s, %.2f s is the most", hotAfter.SlowestS, most)
	}
	if least, most := heldFor/2, heldFor+turn+waiterLife+slack; heldAfter.SlowestS < least.Seconds() || heldAfter.SlowestS > most.Seconds() {
		t.Errorf("the lease of the dead held up its cart for %.2f s, should be from %s to %s", heldAfter.SlowestS, least, most)
	}

	// The others come up on the node that is left.
	s.goesOn(hot, comesLater, 200)
	t.Logf("node killed: pods on the other node have replaced those lost, and serve, after %s (20 s until it is missed, 5 s tolerated)",
		time.Since(killed).Round(time.Second))
	s.goesOn(held, comesLater, 20)
	for _, p := range s.pods("hot") {
		if nodeOf(&p) != 1 {
			t.Errorf("%s is on %s", p.Name, p.Spec.NodeName)
		}
	}

	// The node comes back: its old pods end, and new ones find all that they need there.
	back = true
	if err := world.StartNode(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	world.MustKubectl(t, "-n", system, "rollout", "status", "deployment/sidecart-operator", "--timeout=90s")
	s.settles("redis", func(cs *v1alpha1.CartStorage) string { return both(updated(cs, 6), is(cs, "Ready", "True", "")) })
	s.scale("hot", 6)
	s.rolledOut("hot")
	returned := map[string]bool{}
	for _, p := range s.pods("hot") {
		returned[p.Name] = nodeOf(&p) == 2
	}
	s.goesOn(hot, func(pod string) bool { return returned[pod] }, 200)
	s.settles("redis", func(cs *v1alpha1.CartStorage) string { return both(updated(cs, 8), is(cs, "Ready", "True", "")) })

	for name, account := range map[string]*account{"hot": hot, "held": held} {
		account.judge(name)
		if others := account.of(func(pod string) bool { return before[pod] != 2 }); len(others.Failed) > 0 {
			t.Errorf("requests of pods failed that were not on the killed node: %v", others.Failed)
		}
	}
}

// onBothNodes spreads an app over the nodes, and lets its pods wait 5 s instead of 300 for a node that is gone.
func onBothNodes(name string) string {
	return `      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: ` + name + `}}}
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
`
}

// of is the sum of the runs of some pods.
func (a *account) of(pods func(name string) bool) tally {
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := tally{Failed: map[string]int64{}}
	for _, one := range a.tally {
		if !pods(one.Host) {
			continue
		}
		sum.Acknowledged += one.Acknowledged
		sum.SlowestS = max(sum.SlowestS, one.SlowestS)
		for reason, n := range one.Failed {
			sum.Failed[reason] += n
		}
	}
	return sum
}

// goesOn waits until some pods have had so many more adds acknowledged.
func (s *story) goesOn(a *account, pods func(name string) bool, n int64) {
	s.Helper()
	before := a.of(pods)
	s.eventually(fmt.Sprintf("%d more acknowledged adds", n), func(context.Context) error {
		if now := a.of(pods); now.Acknowledged < before.Acknowledged+n {
			return fmt.Errorf("%d since; failed: %v", now.Acknowledged-before.Acknowledged, now.Failed)
		}
		return nil
	})
}

// hold takes a lease on a cart by a pod's sidecar, which renews it for as long as it lives, and returns once it is
// granted.
func (s *story) hold(pod *corev1.Pod, cart string, duration time.Duration) {
	s.Helper()
	// The sidecar listens inside its pod only.
	ctx, cancel := context.WithCancel(s.Context())
	forward := world.Command(ctx, "kubectl", "-n", s.namespace, "port-forward", "pod/"+pod.Name, ":7421")
	out, err := forward.StdoutPipe()
	if err == nil {
		err = forward.Start()
	}
	if err != nil {
		cancel()
		s.Fatal(err)
	}
	s.Cleanup(func() { cancel(); _ = forward.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	_, rest, found := strings.Cut(line, "127.0.0.1:")
	port, _, _ := strings.Cut(rest, " ")
	if err != nil || !found {
		s.Fatalf("kubectl port-forward: %q, %v", line, err)
	}
	body := strings.NewReader(fmt.Sprintf(`{"leaseDuration": "%s", "holder": "the doomed"}`, duration))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+net.JoinHostPort("127.0.0.1", port)+"/v1/carts/"+cart+"/default/locks:hold", body)
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := world.HTTPClient().Do(req)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = res.Body.Close() })
	granted, err := bufio.NewReader(res.Body).ReadString('\n')
	if err != nil || !strings.Contains(granted, `"token"`) {
		s.Fatalf("no lease: %s: %s, %v", res.Status, granted, err)
	}
}
