package stories

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// TestRollingUpdateUnderLoad replaces all pods of a shop while it is used.
func TestRollingUpdateUnderLoad(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	account, lives := s.keepAccount("web"), s.watchLives("web")
	s.deploy(app{name: "web", storage: "redis", replicas: 3, load: "--carts=10, --clients=8, --rate=300, --items=50, --prefix=rolling"})
	s.rolledOut("web")
	s.settled(3)
	account.acknowledges(1000)
	took := s.restart("web")
	account.acknowledges(1000)
	account.judgeFlawless("web", 3000)

	pods := lives.inOrder()
	if len(pods) != 6 {
		t.Errorf("%d pods have lived, want 3 old and 3 new ones", len(pods))
	}
	sum, failed := account.sum()
	t.Logf("rolling update of 3 replicas in %s: %d adds by %d pods, failed: [%s], slowest %.2f s", took.Round(time.Second), sum.Acknowledged, len(pods), failed, sum.SlowestS)
}

// TestSurgeUnderLoad rolls a shop of one replica, which has two for a moment by its strategy. It locks all along, since
// the second one may come at any time.
func TestSurgeUnderLoad(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	account, lives := s.keepAccount("web"), s.watchLives("web")
	s.deploy(app{name: "web", storage: "redis", replicas: 1, strategy: "{rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}",
		load: "--carts=2, --clients=8, --rate=400, --items=50, --prefix=surge"})
	s.rolledOut("web")
	s.settles("redis", func(cs *v1alpha1.CartStorage) string { return both(updated(cs, 1), locking(cs, true, "RolloutSurge")) })
	var took time.Duration
	const times = 3
	for range times {
		account.acknowledges(500)
		took = max(took, s.restart("web"))
	}
	account.acknowledges(500)
	account.judgeFlawless("web", 2000)

	pods := lives.inOrder()
	if len(pods) != times+1 {
		t.Errorf("%d pods have lived, want %d", len(pods), times+1)
	}
	together := 0
	for i := range len(pods) - 1 {
		if pods[i+1].first.Before(pods[i].last) {
			together++
		}
	}
	if together == 0 {
		t.Error("no two pods wrote at the same time, which this is about")
	}
	sum, failed := account.sum()
	t.Logf("%d rolling updates of 1 replica, two writers at a time in %d of them, the slowest in %s: %d adds, failed: [%s], slowest %.2f s",
		times, together, took.Round(time.Second), sum.Acknowledged, failed, sum.SlowestS)
}

// TestJobs runs Jobs to their end, and init containers that need their cart already.
func TestJobs(t *testing.T) {
	s := tellStory(t)
	s.redis()
	s.apply(s.sample("redis.yaml"))
	began := time.Now()
	s.apply(`
apiVersion: batch/v1
kind: Job
metadata: {name: gift}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {app: gift, sidecart.dev/inject: redis}}
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      initContainers:
` + fmt.Sprintf(container, "init", "init") + `
      containers:
` + fmt.Sprintf(container, "gift", `add, u1, mug, "3"`))
	s.eventually("Job gift to be complete", func(ctx context.Context) error {
		var job batchv1.Job
		if err := s.get(ctx, &job, "job", "gift"); err != nil {
			return err
		}
		if job.Status.Succeeded != 1 || job.Status.CompletionTime == nil {
			return fmt.Errorf("its status is %+v", job.Status)
		}
		return nil
	})
	took := time.Since(began)
	pod := s.pods("gift")[0]
	if pod.Status.Phase != corev1.PodSucceeded {
		t.Errorf("the pod is %s, want Succeeded", pod.Status.Phase)
	}
	s.inOrder(&pod)
	if got := s.redisCLI("HGET", "cart.u1.default", "items"); !strings.Contains(got, `"mug"`) || !strings.Contains(got, `"quantity":3`) {
		t.Errorf("the cart has %s, want 3 mugs", got)
	}
	sidecar := terminated(&pod)[render.ContainerName]
	gift := terminated(&pod)["gift"]
	s.settles("redis", func(cs *v1alpha1.CartStorage) string {
		if cs.Status.Replicas != 0 || len(cs.Status.Workloads) != 0 {
			return "the Job is still counted"
		}
		return is(cs, "Ready", "True", v1alpha1.ReasonNoWorkloads)
	})

	// In a Deployment, each pod's init container writes through its own sidecar, and the others see that.
	s.deploy(app{name: "web", storage: "redis", replicas: 1, pod: "      initContainers:\n" + fmt.Sprintf(container, "init", "init")})
	s.rolledOut("web")
	s.settled(1)
	web := s.pods("web")[0].Name
	if got := s.shop(web, "show", "shop"); !strings.Contains(got, `"pod":"`+web+`"`) {
		t.Errorf("the init container of %s has left no note in %s", web, got)
	}
	t.Logf("a Job with a sidecar, and an init container that uses it, is complete %s after kubectl apply; its sidecar ended %s after its app",
		round(took), sidecar.FinishedAt.Sub(gift.FinishedAt.Time))
}

// restart is kubectl rollout restart, until the old pods are gone.
func (s *story) restart(name string) time.Duration {
	s.Helper()
	var old []types.UID
	for _, p := range s.pods(name) {
		old = append(old, p.UID)
	}
	began := time.Now()
	s.kubectl("rollout", "restart", "deployment/"+name)
	s.rolledOut(name)
	s.eventually("the old pods to end", func(ctx context.Context) error {
		var list corev1.PodList
		if err := s.get(ctx, &list, "pods", "-l", "app="+name); err != nil {
			return err
		}
		for _, p := range list.Items {
			if slices.Contains(old, p.UID) {
				return fmt.Errorf("%s is there", p.Name)
			}
		}
		return nil
	})
	return time.Since(began)
}

// lives has the lives of an app's pods.
type lives struct {
	s      *story
	mu     sync.Mutex
	pods   map[types.UID]*corev1.Pod // as they were last seen, which for those that are gone is their end
	lines  map[string]span           // of the load container, by pod
	stops  map[string]time.Time      // when the sidecar was told to stop, by pod
	follow sync.WaitGroup
	end    context.CancelFunc
}

type span struct{ first, last time.Time }

// life is the life of one pod: from the first to the last line of its load.
type life struct {
	*corev1.Pod
	span
}

// watchLives records what happens to every pod of an app.
func (s *story) watchLives(name string) *lives {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	l := &lives{s: s, pods: map[types.UID]*corev1.Pod{}, lines: map[string]span{}, stops: map[string]time.Time{}, end: cancel}
	s.Cleanup(func() { cancel(); l.follow.Wait() })
	w, err := world.Client().CoreV1().Pods(s.namespace).Watch(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil {
		s.Fatal(err)
	}
	l.follow.Go(func() {
		defer w.Stop()
		for event := range w.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok {
				l.mu.Lock()
				l.pods[pod.UID] = pod
				l.mu.Unlock()
			}
		}
	})
	s.followLogs(ctx, &l.follow, name, "load", func(pod, line string) bool {
		var t struct {
			At   time.Time
			Done bool
		}
		if json.Unmarshal([]byte(line), &t) != nil || t.At.IsZero() {
			return false
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		is := l.lines[pod]
		if is.first.IsZero() {
			is.first = t.At
		}
		is.last = t.At
		l.lines[pod] = is
		return t.Done
	})
	s.followLogs(ctx, &l.follow, name, render.ContainerName, func(pod, line string) bool {
		var t struct {
			Time time.Time
			Msg  string
		}
		if json.Unmarshal([]byte(line), &t) != nil || t.Msg != "stopping" {
			return false
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stops[pod] = t.Time
		return true
	})
	return l
}

// inOrder is called when all pods are gone. It fails the test unless in each of them the sidecar started first and
// ended last, and all ended well; and returns the lives by their beginnings.
func (l *lives) inOrder() (all []life) {
	s := l.s
	s.Helper()
	s.eventually("all pods to be heard of to their end", l.complete)
	l.end()
	l.follow.Wait()
	for _, pod := range l.pods {
		s.inOrder(pod)
		load, stop := l.lines[pod.Name], l.stops[pod.Name]
		if stop.Before(load.last) {
			s.Errorf("%s: its sidecar was told to stop %s before its app had ended", pod.Name, load.last.Sub(stop))
		}
		all = append(all, life{pod, load})
	}
	slices.SortFunc(all, func(a, b life) int { return a.first.Compare(b.first) })
	return all
}

// complete says what is not known yet: logs and events come a little later than what they report.
func (l *lives) complete(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pod := range l.pods {
		switch {
		case terminated(pod)[render.ContainerName] == nil:
			return fmt.Errorf("%s: its sidecar has not ended", pod.Name)
		case l.lines[pod.Name].last.IsZero():
			return fmt.Errorf("%s: its load has said nothing", pod.Name)
		case l.stops[pod.Name].IsZero():
			return fmt.Errorf("%s: its sidecar has not said that it stops", pod.Name)
		}
	}
	return nil
}

// terminated are the ends of a pod's containers.
func terminated(pod *corev1.Pod) map[string]*corev1.ContainerStateTerminated {
	ends := map[string]*corev1.ContainerStateTerminated{}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		ends[c.Name] = c.State.Terminated
	}
	return ends
}

// inOrder fails the test unless a pod that has ended had its sidecar before and after all other containers, and all
// ended well. Kubernetes gives these times in whole seconds.
func (s *story) inOrder(pod *corev1.Pod) {
	s.Helper()
	ends := terminated(pod)
	sidecar := ends[render.ContainerName]
	if sidecar == nil {
		s.Errorf("%s: its sidecar has not ended, or there was none", pod.Name)
		return
	}
	for name, c := range ends {
		switch {
		case c == nil:
			s.Errorf("%s: container %s has not ended", pod.Name, name)
		case c.ExitCode != 0:
			s.Errorf("%s: container %s ended with %d (%s), want 0", pod.Name, name, c.ExitCode, c.Reason)
		case c.StartedAt.Before(&sidecar.StartedAt):
			s.Errorf("%s: container %s started at %s, before the sidecar (%s)", pod.Name, name, c.StartedAt, sidecar.StartedAt)
		case sidecar.FinishedAt.Before(&c.FinishedAt):
			s.Errorf("%s: container %s ended at %s, after the sidecar (%s)", pod.Name, name, c.FinishedAt, sidecar.FinishedAt)
		}
	}
}
