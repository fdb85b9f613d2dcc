package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	kstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// scripted answers as the test says, and records when it was asked.
type scripted struct {
	mu    sync.Mutex
	start time.Time
	fail  error
	down  bool
	asked map[string][]time.Duration
}

func (f *scripted) Fetch(_ context.Context, pod *corev1.Pod) (Report, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[pod.Name] = append(f.asked[pod.Name], time.Since(f.start))
	if f.fail != nil {
		return Report{}, f.fail
	}
	r := Report{Generation: 1}
	r.Config.State, r.Backend.Healthy = "Accepted", !f.down
	return r, nil
}

func (f *scripted) set(do func(*scripted)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do(f)
}

// runningPods are pods whose sidecars have run for a day.
func runningPods(n int, change ...func(*corev1.Pod)) []*corev1.Pod {
	pods := make([]*corev1.Pod, n)
	for i := range pods {
		name := fmt.Sprintf("web-%d", i)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}}
		pod.Annotations = map[string]string{v1alpha1.InjectedAnnotation: "shop"}
		pod.Spec.InitContainers = []corev1.Container{{Name: render.ContainerName, Ports: []corev1.ContainerPort{{ContainerPort: 7422}}}}
		pod.Status.PodIP = "10.0.0.1"
		began := metav1.NewTime(time.Now().Add(-24 * time.Hour))
		pod.CreationTimestamp = began
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{
			Name: render.ContainerName, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}},
		}}
		for _, c := range change {
			c(pod)
		}
		pods[i] = pod
	}
	return pods
}

// rounds asks as a reconciler does until the time is up, and hands each round to see.
func rounds(c *census, pods []*corev1.Pod, lasts time.Duration, see func(now time.Time, all []sidecar)) {
	key := types.NamespacedName{Namespace: "shop", Name: "shop"}
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		all, next := c.ask(context.Background(), key, pods, 1)
		if see != nil {
			see(time.Now(), all)
		}
		time.Sleep(min(next, time.Until(end)))
	}
}

// A quiet fleet is asked every 15 seconds, each group in its turn; an outage is seen by the next group, and then
// everybody is asked every 5.
func TestHowOftenSidecarsAreAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &scripted{start: time.Now(), asked: map[string][]time.Duration{}}
		c := newCensus(f, 15*time.Second)
		pods := runningPods(3)
		rounds(c, pods, changeLasts, nil) // they are new to the operator

		f.set(func(f *scripted) { f.asked = map[string][]time.Duration{} })
		rounds(c, pods, 10*time.Minute, nil)
		for name, times := range f.asked {
			if n := len(times); n < 39 || n > 41 {
				t.Errorf("%s was asked %d times in 10 quiet minutes, want 40", name, n)
			}
		}

		down := time.Now()
		f.set(func(f *scripted) { f.down = true })
		var first, whole time.Duration
		rounds(c, pods, 10*time.Second, func(now time.Time, all []sidecar) {
			n := 0
			for i := range all {
				if !all[i].report.Backend.Healthy {
					n++
				}
			}
			if n > 0 && first == 0 {
				first = now.Sub(down)
			}
			if n == len(all) && whole == 0 {
				whole = now.Sub(down)
			}
		})
		if first == 0 || first > 5*time.Second || whole == 0 || whole > 10*time.Second {
			t.Errorf("an outage of 10 s was seen by the first after %s and by all after %s, want 5 s and 10 s at most", first, whole)
		}
		f.set(func(f *scripted) { f.asked = map[string][]time.Duration{} })
		rounds(c, pods, time.Minute, nil)
		for name, times := range f.asked {
			if n := len(times); n < 11 || n > 13 {
				t.Errorf("%s was asked %d times in a minute of an outage, want 12", name, n)
			}
		}
		f.set(func(f *scripted) { f.down = false })
		healthy := false
		rounds(c, pods, 6*time.Second, func(_ time.Time, all []sidecar) {
			healthy = all[0].settled(1) && all[1].settled(1) && all[2].settled(1)
		})
		if !healthy {
			t.Error("the end of the outage was not seen within 6 s")
		}
	})
}

// One missing answer is not reported; three seconds without an answer are.
func TestOneLateAnswerIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &scripted{start: time.Now(), asked: map[string][]time.Duration{}}
		c := newCensus(f, 15*time.Second)
		pods := runningPods(1)
		rounds(c, pods, time.Minute, nil)
		f.set(func(f *scripted) { f.fail = errNoAnswer })
		var told time.Duration
		var failing time.Time
		rounds(c, pods, 30*time.Second, func(now time.Time, all []sidecar) {
			if failing.IsZero() && c.known[types.NamespacedName{Namespace: "shop", Name: "shop"}]["web-0"].err != nil {
				failing = now
			}
			if all[0].err != nil && told == 0 {
				told = now.Sub(failing)
			}
		})
		if told < silentAfter || told > silentAfter+2*askAgain {
			t.Errorf("silence was told after %s, want about %s", told, silentAfter)
		}
		f.set(func(f *scripted) { f.fail = nil })
		rounds(c, pods, 2*time.Second, nil)
		if all, _ := c.ask(t.Context(), types.NamespacedName{Namespace: "shop", Name: "shop"}, pods, 1); all[0].err != nil || all[0].report == nil {
			t.Errorf("a sidecar that answers again is told as silent: %v", all[0].err)
		}
	})
}

// What happens to a pod's sidecar, second by second, and what is reported of it.
func TestWhatIsTrouble(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	state := func(s corev1.ContainerState, restarts int32, last *corev1.ContainerStateTerminated) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
				Name: render.ContainerName, State: s, RestartCount: restarts, LastTerminationState: corev1.ContainerState{Terminated: last},
			}}
		}
	}
	waits := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	running := func(since time.Duration) corev1.ContainerState {
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(since)}}
	}
	crashed := &corev1.ContainerStateTerminated{ExitCode: 2, Reason: "Error", Message: lastLine("{\"msg\":\"first\"}\n{\"time\":\"2026-01-01T00:00:00Z\",\"msg\":\"start\",\"error\":\"backend.redis.addresses: none\"}\n")}
	for _, r := range []struct {
		name    string
		created time.Duration
		state   func(*corev1.Pod)
		waiting string
		stuck   bool
	}{
		{"a new pod", time.Second, state(waits("PodInitializing", ""), 0, nil), "PodInitializing", false},
		{"a new pod whose image is not there", 9 * time.Second, state(waits("ErrImagePull", "not found"), 0, nil), "ErrImagePull: not found", false},
		{"the same later", 11 * time.Second, state(waits("ErrImagePull", "not found"), 0, nil), "ErrImagePull: not found", true},
		{"a long pull", 50 * time.Second, state(waits("PodInitializing", ""), 0, nil), "PodInitializing", false},
		{"a pull without an end", 61 * time.Second, state(waits("PodInitializing", ""), 0, nil), "PodInitializing", true},
		{"one that runs", time.Hour, state(running(time.Second), 0, nil), "", false},
		{"one in between two crashes", time.Hour, state(running(9*time.Second), 3, crashed), "it has just been started again; it ended with code 2, its last words: start: backend.redis.addresses: none", true},
		{"one that stays", time.Hour, state(running(10*time.Second), 3, crashed), "", false},
		{"one that crashes", time.Hour, state(waits("CrashLoopBackOff", "back-off 40s"), 3, crashed), "CrashLoopBackOff; it ended with code 2, its last words: start: backend.redis.addresses: none", true},
		{"one that was killed for its memory", time.Hour, state(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}, 0, nil), "OOMKilled; it ended with code 137 (OOMKilled)", true},
	} {
		pod := runningPods(1, func(p *corev1.Pod) { p.CreationTimestamp = ago(r.created) }, r.state)[0]
		var s sidecar
		s.look(pod, now)
		if s.waiting != r.waiting || s.stuck != r.stuck {
			t.Errorf("%s: it is said %q, trouble %t, want %q and %t", r.name, s.waiting, s.stuck, r.waiting, r.stuck)
		}
	}
}

// Text from a pod is cut.
func TestLastLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		"a\nb\n\n":                          "b",
		`{"msg": "no", "err": "why"}`:       "no: why",
		"time=2026-01-01 level=ERROR msg=a": "level=ERROR msg=a",
		"a\n" + strings.Repeat("x", 5000):   strings.Repeat("x", maxText) + "…",
		"x\x00y\x1b[1m":                     "xy[1m",
	} {
		if got := lastLine(in); got != want {
			t.Errorf("lastLine(%.40q) is %q, want %q", in, got, want)
		}
	}
}

// concluded writes the status of a fleet of these sidecars.
func concluded(cs *v1alpha1.CartStorage, now time.Time, sidecars ...sidecar) {
	cs.Status.Locking = &v1alpha1.LockingStatus{Enabled: true, Reason: "MultipleReplicas"}
	conclude(cs, conclusionOf(now, sidecars...))
}

// conclusionOf is what one round found, all of it in one Deployment.
func conclusionOf(now time.Time, sidecars ...sidecar) *conclusion {
	c := &conclusion{fleet: &fleet{}, sidecars: sidecars, generation: 1, now: now, from: ownNamespace, old: make([]bool, len(sidecars))}
	for i := range sidecars {
		c.fleet.pods = append(c.fleet.pods, sidecars[i].pod)
		c.fleet.owners = append(c.fleet.owners, workloadKey{"apps", "Deployment", "web"})
	}
	c.fleet.topology.Workloads = []render.Workload{{Kind: "Deployment", Name: "web", Replicas: int32(len(sidecars))}}
	return c
}

// Ready stays true while pods start, end or are told of a change, and goes false on a failure. Reconciling and Stalled
// tell the two apart.
func TestReadyIsCalm(t *testing.T) {
	now := time.Now()
	good := &Report{Generation: 1}
	good.Config.State, good.Backend.Healthy = "Accepted", true
	old := &Report{}
	old.Config.State, old.Backend.Healthy = "Accepted", true
	down := &Report{Generation: 1}
	down.Config.State = "Accepted"
	refused := &Report{}
	refused.Config.State, refused.Config.Message, refused.Backend.Healthy = stateRejected, "no such field", true
	pod := runningPods(1)[0]
	well := sidecar{pod: pod, present: true, report: good, since: now.Add(-time.Hour)}
	for _, r := range []struct {
		name                        string
		other                       sidecar
		new                         bool // the spec has changed
		ready                       metav1.ConditionStatus
		reason, reconciling, stalls string
	}{
		{"all is well", well, false, "True", "AllUpdated", "", ""},
		{"a pod starts", sidecar{pod: pod, present: true, young: true, waiting: "PodInitializing", since: now}, false, "True", "RollingOut", "RollingOut", ""},
		{"a young one does not reach the backend", sidecar{pod: pod, present: true, young: true, report: down, since: now}, false, "True", "RollingOut", "RollingOut", ""},
		{"a young one does not answer", sidecar{pod: pod, present: true, young: true, err: errNoAnswer, since: now}, false, "True", "RollingOut", "RollingOut", ""},
		{"one is being told", sidecar{pod: pod, present: true, report: old, since: now}, false, "True", "RollingOut", "RollingOut", ""},
		{"one is being told of another spec", sidecar{pod: pod, present: true, report: old, since: now}, true, "False", "RollingOut", "RollingOut", ""},
		{"one is never told", sidecar{pod: pod, present: true, report: old, since: now.Add(-rolloutPatience)}, false, "False", "RollingOut", "RollingOut", ""},
		{"one is ending", sidecar{pod: pod, present: true, ending: true, waiting: "Completed"}, false, "True", "AllUpdated", "", ""},
		{"one does not start", sidecar{pod: pod, present: true, waiting: "ErrImagePull", stuck: true}, false, "False", "SidecarNotStarted", "SidecarNotStarted", ""},
		{"one does not answer", sidecar{pod: pod, present: true, err: errors.New("connection refused")}, false, "False", "SidecarUnreachable", "SidecarUnreachable", ""},
		{"one does not reach the backend", sidecar{pod: pod, present: true, report: down}, false, "False", "Degraded", "Degraded", ""},
		{"one refuses", sidecar{pod: pod, present: true, report: refused}, false, "False", "Degraded", "", "ConfigRejected"},
		{"one is missing", sidecar{pod: pod}, false, "False", "SidecarMissing", "", "SidecarMissing"},
	} {
		cs := &v1alpha1.CartStorage{ObjectMeta: metav1.ObjectMeta{Generation: 7}}
		cs.Spec.Backend.Type = v1alpha1.BackendRedis
		concluded(cs, now, well)
		if c := is(cs, "Ready", "True", "AllUpdated"); c != "" {
			t.Fatal(c)
		}
		if r.new {
			cs.Generation++
		}
		concluded(cs, now, well, r.other)
		if c := is(cs, "Ready", r.ready, r.reason); c != "" {
			t.Errorf("%s: %s, but %+v", r.name, c, condition(cs, "Ready"))
		}
		want := kstatus.CurrentStatus
		switch {
		case r.stalls != "":
			want = kstatus.FailedStatus
		case r.reconciling != "":
			want = kstatus.InProgressStatus
		}
		if got := deployed(t, cs); got != want {
			t.Errorf("%s: Flux and other users of kstatus see %s, want %s", r.name, got, want)
		}
		for kind, want := range map[string]string{"Reconciling": r.reconciling, "Stalled": r.stalls} {
			if c := condition(cs, kind); want == "" && c != nil || want != "" && (c == nil || c.Reason != want || c.Status != "True" || c.ObservedGeneration != cs.Generation) {
				t.Errorf("%s: %s is %+v, want reason %q", r.name, kind, c, want)
			}
		}
	}
}

// A generation that the operator has not seen yet is in progress, whatever the conditions of the generation before say.
func TestUnseenGenerationIsInProgress(t *testing.T) {
	now := time.Now()
	good := &Report{Generation: 1}
	good.Config.State, good.Backend.Healthy = "Accepted", true
	cs := &v1alpha1.CartStorage{ObjectMeta: metav1.ObjectMeta{Generation: 1}}
	cs.Spec.Backend.Type = v1alpha1.BackendRedis
	concluded(cs, now, sidecar{pod: runningPods(1)[0], present: true, report: good, since: now.Add(-time.Hour)})
	if got := deployed(t, cs); got != kstatus.CurrentStatus {
		t.Errorf("when all is well, it is %s", got)
	}
	cs.Generation++
	if got := deployed(t, cs); got != kstatus.InProgressStatus {
		t.Errorf("after a change of the spec, it is %s", got)
	}
}

// deployed is the result of the kstatus library, which Flux and others use, for the conditions.
func deployed(t *testing.T, cs *v1alpha1.CartStorage) kstatus.Status {
	t.Helper()
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(cs)
	if err != nil {
		t.Fatal(err)
	}
	result, err := kstatus.Compute(&unstructured.Unstructured{Object: object})
	if err != nil {
		t.Fatal(err)
	}
	return result.Status
}

// If nothing comes back from any pod, a NetworkPolicy is suspected, but not if a pod refuses the connection.
func TestDeniedIngressIsTold(t *testing.T) {
	now := time.Now()
	pods := runningPods(2)
	silent := func(err error) []sidecar {
		return []sidecar{{pod: pods[0], present: true, err: err}, {pod: pods[1], present: true, err: errNoAnswer}}
	}
	const want = "a NetworkPolicy that denies ingress in namespace shop would do this: allow port 7422 of its pods from namespace sidecart-system"
	for _, r := range []struct {
		err  error
		told bool
	}{{errNoAnswer, true}, {errors.New("connect: connection refused"), false}} {
		cs := &v1alpha1.CartStorage{}
		cs.Spec.Backend.Type = v1alpha1.BackendRedis
		concluded(cs, now, silent(r.err)...)
		if m := condition(cs, "Ready").Message; strings.Contains(m, want) != r.told {
			t.Errorf("after %v the message is %q", r.err, m)
		}
	}
}

// An event is sent for each new state, and for no state on the way to it.
func TestNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := types.NamespacedName{Namespace: "shop", Name: "shop"}
		n := newNews(time.Now)
		tell := func(kind string, status metav1.ConditionStatus, reason string) bool {
			return n.fresh(key, &metav1.Condition{Type: kind, Status: status, Reason: reason}, nil)
		}
		for i, r := range []struct {
			kind   string
			status metav1.ConditionStatus
			reason string
			told   bool
		}{
			{"Ready", "True", "NoWorkloads", false},
			{"Ready", "True", "RollingOut", false},
			{"Ready", "True", "AllUpdated", true},
			{"Ready", "True", "RollingOut", false}, // a scale
			{"Ready", "True", "AllUpdated", false},
			{"Ready", "False", "SidecarUnreachable", true},
			{"Ready", "False", "SidecarUnreachable", false},
			{"Ready", "False", "RollingOut", false},
			{"Ready", "True", "AllUpdated", true},
			{"LockingEffective", "True", "NotNeeded", false},
			{"LockingEffective", "False", "RollingOut", false},
			{"LockingEffective", "True", "Effective", false},
			{"BackendReachable", "Unknown", "Unknown", false},
			{"BackendReachable", "True", "Reachable", true},
		} {
			if told := tell(r.kind, r.status, r.reason); told != r.told {
				t.Errorf("%d: %s %s %s is told: %t, want %t", i, r.kind, r.status, r.reason, told, r.told)
			}
		}
		// A backend that goes every 20 s, for half an hour.
		events := 0
		for range 90 {
			for _, s := range []struct {
				status metav1.ConditionStatus
				reason string
			}{{"False", "Unreachable"}, {"True", "Reachable"}} {
				if tell("BackendReachable", s.status, s.reason) {
					events++
				}
				time.Sleep(10 * time.Second)
			}
		}
		if events > 15 {
			t.Errorf("a flapping backend had %d events in half an hour, want 15 at most", events)
		}
		// The state in which it stays is reported.
		told := false
		for range int(newsPause/(5*time.Second)) + 1 {
			told = tell("BackendReachable", "False", "Unreachable") || told
			time.Sleep(5 * time.Second)
		}
		if !told {
			t.Error("that it stays unreachable was not told")
		}
	})
}

// If a workload is scaled, only the effects are reported, and Ready stays true throughout.
func TestScaleIsCalm(t *testing.T) {
	w := newWorld(t)
	w.cartStorage("shop", "locking: {autoDisableAfter: 1s}")
	app := w.deployment("web", "shop", 1)
	w.allUpdated("shop", 1)
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, false, "SingleWriter") })
	const last = "Normal BackendReachable is True: the sidecar reaches the backend" // that a first pod brings
	w.eventually(func() string {
		if !slices.Contains(w.events(t), last) {
			return "the first pod is not told of"
		}
		return ""
	})
	before := len(w.events(t))

	watch, err := w.nodes.c.Watch(t.Context(), &v1alpha1.CartStorageList{}, client.InNamespace(w.namespace))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan []string, 1)
	go func() {
		var not []string
		for e := range watch.ResultChan() {
			if cs, ok := e.Object.(*v1alpha1.CartStorage); ok {
				if c := condition(cs, "Ready"); c.Status != "True" {
					not = append(not, c.Reason+": "+c.Message)
				}
			}
		}
		seen <- not
	}()
	app.scale(3)
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, true, "MultipleReplicas") })
	w.allUpdated("shop", 3)
	app.scale(1)
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return w.locks(cs, false, "SingleWriter") })
	w.allUpdated("shop", 1)
	watch.Stop()
	if not := <-seen; len(not) > 0 {
		t.Errorf("Ready was not true: %v", not)
	}
	w.eventually(func() string { // two decisions
		if n := len(w.events(t)) - before; n < 2 {
			return fmt.Sprintf("%d events", n)
		}
		return ""
	})
	for _, e := range w.events(t)[before:] {
		if !strings.HasPrefix(e, "Normal locking is ") {
			t.Errorf("noise: %s", e)
		}
	}
}

// events are those of the namespace about CartStorages, in their order.
func (w *world) events(t *testing.T) (out []string) {
	t.Helper()
	var list eventsv1.EventList
	if err := w.c.List(t.Context(), &list, client.InNamespace(w.namespace)); err != nil {
		t.Fatal(err)
	}
	byTime := func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) }
	slices.SortStableFunc(list.Items, byTime)
	for i := range list.Items {
		e := &list.Items[i]
		if e.Regarding.Kind == "CartStorage" {
			out = append(out, e.Type+" "+e.Note)
		}
	}
	return out
}

// From the beginning a CartStorage says that the operator has not seen it yet, so that no tool considers it done.
func TestObservedFromTheFirst(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.cartStorage("shop")
	if g := w.get("shop").Status.ObservedGeneration; g != -1 {
		t.Errorf("observedGeneration of a new CartStorage is %d, want -1", g)
	}
	w.start()
	w.settles("shop", func(cs *v1alpha1.CartStorage) string { return is(cs, "Ready", "True", "NoWorkloads") })
}
