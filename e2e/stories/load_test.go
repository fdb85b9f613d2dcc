package stories

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// account is what the pods of an app say of the adds they made: the last line of each run of `shop load`, collected
// while it runs, since the log of a pod ends with it.
type account struct {
	s      *story
	mu     sync.Mutex
	lines  map[string]string // by run
	tally  map[string]tally
	follow sync.WaitGroup
	end    context.CancelFunc
}

// tally is the part of such a line that matters here.
type tally struct {
	Run          string
	Host         string
	Done         bool
	Attempted    int64
	Acknowledged int64
	Failed       map[string]int64
	Uncertain    int64
	SlowestS     float64 `json:"slowestSeconds"`
}

// keepAccount follows the load containers of all pods of an app, those that come later included.
func (s *story) keepAccount(name string) *account {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	a := &account{s: s, lines: map[string]string{}, tally: map[string]tally{}, end: cancel}
	s.followLogs(ctx, &a.follow, name, "load", func(_, line string) bool {
		var t tally
		if json.Unmarshal([]byte(line), &t) != nil || t.Run == "" {
			return false
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.lines[t.Run], a.tally[t.Run] = line, t
		return t.Done
	})
	s.Cleanup(func() { cancel(); a.follow.Wait() })
	return a
}

// followLogs hands on every line that a container of an app's pods logs, including pods that come later, until ctx
// ends. When take says that a line was the last of its pod, no more lines of that pod are handed on.
func (s *story) followLogs(ctx context.Context, follow *sync.WaitGroup, name, container string, take func(pod, line string) (last bool)) {
	followed := map[string]bool{}
	follow.Go(func() {
		for ctx.Err() == nil {
			list, err := world.Client().CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
			if err == nil {
				for _, p := range list.Items {
					if !followed[string(p.UID)] && started(&p, container) {
						followed[string(p.UID)] = true
						follow.Go(func() { s.followLog(ctx, p.Name, container, take) })
					}
				}
			}
			nap(ctx)
		}
	})
}

func started(p *corev1.Pod, container string) bool {
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if c.Name == container {
			return c.State.Running != nil || c.State.Terminated != nil
		}
	}
	return false
}

// followLog reads a log until the pod is gone. If the stream breaks, as when the API server goes away, it begins
// another.
func (s *story) followLog(ctx context.Context, pod, container string, take func(pod, line string) (last bool)) {
	for ctx.Err() == nil {
		stream, err := world.Client().CoreV1().Pods(s.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container, Follow: true}).Stream(ctx)
		if err != nil {
			if apierrors.IsNotFound(err) {
				return
			}
			nap(ctx)
			continue
		}
		lines := bufio.NewScanner(stream)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if take(pod, lines.Text()) {
				_ = stream.Close()
				return
			}
		}
		_ = stream.Close()
		nap(ctx)
	}
}

// nap is the time between two looks.
func nap(ctx context.Context) {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// sum of all runs so far.
func (a *account) sum() (t tally, failed string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t.Failed = map[string]int64{}
	for _, one := range a.tally {
		t.Attempted += one.Attempted
		t.Acknowledged += one.Acknowledged
		t.Uncertain += one.Uncertain
		t.SlowestS = max(t.SlowestS, one.SlowestS)
		for reason, n := range one.Failed {
			t.Failed[reason] += n
		}
	}
	for reason, n := range t.Failed {
		failed += fmt.Sprintf(" %d %s", n, reason)
	}
	return t, strings.TrimSpace(failed)
}

// acknowledges waits for so many more acknowledged adds: proof that the shop goes on.
func (a *account) acknowledges(n int64) {
	a.s.Helper()
	before, _ := a.sum()
	a.s.eventually(fmt.Sprintf("%d more acknowledged adds", n), func(context.Context) error {
		if now, failed := a.sum(); now.Acknowledged < before.Acknowledged+n {
			return fmt.Errorf("%d since; failed: %s", now.Acknowledged-before.Acknowledged, failed)
		}
		return nil
	})
}

// verdict is what `shop check` prints.
type verdict struct {
	Runs         int
	Unfinished   int
	Attempted    int64
	Acknowledged int64
	Failed       map[string]int64
	Uncertain    int64
	Found        int64
	Lost         int64
	Excess       int64
}

// finish ends the load by scaling the app to nothing.
func (a *account) finish(name string) {
	s := a.s
	s.Helper()
	s.scale(name, 0)
	s.eventually("the pods of "+name+" to end", func(ctx context.Context) error {
		var list corev1.PodList
		if err := s.get(ctx, &list, "pods", "-l", "app="+name); err != nil {
			return err
		}
		if len(list.Items) > 0 {
			return fmt.Errorf("%d are there", len(list.Items))
		}
		return nil
	})
	a.end()
	a.follow.Wait()
}

// judge ends the load, and has another pod compare all accounts with the carts.
func (a *account) judge(name string) verdict {
	s := a.s
	s.Helper()
	a.finish(name)
	storage := strings.TrimSpace(s.kubectl("get", "deployment", name, "-o", `jsonpath={.spec.template.metadata.labels.sidecart\.dev/inject}`))
	s.deploy(app{name: "judge", storage: storage, replicas: 1})
	s.rolledOut("judge")

	a.mu.Lock()
	var lines strings.Builder
	for _, line := range a.lines {
		lines.WriteString(line + "\n")
	}
	a.mu.Unlock()
	cmd := world.Command(s.Context(), "kubectl", "-n", s.namespace, "exec", "-i", "deployment/judge", "-c", "shop", "--", "shop", "check")
	cmd.Stdin = strings.NewReader(lines.String())
	out, err := cmd.Output()
	var v verdict
	if jsonErr := json.Unmarshal(out, &v); jsonErr != nil {
		s.Fatalf("shop check: %v, %v\n%s", err, jsonErr, out)
	}
	s.Logf("%d runs (%d cut off): %d adds attempted, %d acknowledged, failed: %v; %d in the carts, %d lost, %d in excess",
		v.Runs, v.Unfinished, v.Attempted, v.Acknowledged, v.Failed, v.Found, v.Lost, v.Excess)
	if v.Lost != 0 || v.Excess != 0 {
		s.Errorf("%d acknowledged adds are lost, %d are in the carts that nobody made", v.Lost, v.Excess)
	}
	return v
}

// judgeFlawless is judge, and no request may have failed.
func (a *account) judgeFlawless(name string, atLeast int64) {
	a.s.Helper()
	a.flawless(a.judge(name), atLeast)
}

// flawless fails the test if a request failed, or if too few were made to prove anything.
func (a *account) flawless(v verdict, atLeast int64) {
	a.s.Helper()
	if len(v.Failed) > 0 {
		a.s.Errorf("requests failed: %v", v.Failed)
	}
	if v.Unfinished > 0 {
		a.s.Errorf("%d of %d runs were cut off: their last account is missing", v.Unfinished, v.Runs)
	}
	if v.Acknowledged < atLeast {
		a.s.Errorf("only %d adds were acknowledged, %d make the test", v.Acknowledged, atLeast)
	}
}
