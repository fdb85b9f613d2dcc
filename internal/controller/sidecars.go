package controller

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecart/sidecart/internal/render"
)

// How sidecars are asked. One that is expected to change is asked again after a
// quarter of the time that it has been so: the kubelet takes about a second, and
// who has not changed within an hour will not within the next second.
const (
	askSoonest     = 250 * time.Millisecond
	askLatest      = 30 * time.Second
	askParallel    = 16
	askTimeout     = time.Second
	askInAll       = 64              // by all workers together
	askNamespace   = 24              // by all workers together, of one namespace
	askAllTimeout  = 3 * time.Second // the next decision must not wait for sidecars that do not answer
	maxGeneration  = int64(1) << 53  // what is above was not written by us
	mountTroubleIn = 2 * time.Second // a kubelet that has not mounted by then has said why
)

// sidecar is the sidecar of a pod as far as it is known.
type sidecar struct {
	pod     *corev1.Pod
	present bool
	// waiting says why the container does not run, "" if it does.
	waiting string
	// report is the last answer, nil if there is none; err is why.
	report *Report
	err    error
	// lacks are the files that the pod does not mount although the configuration names them.
	lacks []string
}

// updated reports whether the sidecar runs generation and nothing newer was refused.
func (s *sidecar) updated(generation int64) bool {
	return s.report != nil && s.report.Generation == generation && s.report.Config.State != stateRejected
}

// settled reports whether nothing is expected to change.
func (s *sidecar) settled(generation int64) bool {
	return s.updated(generation) && s.report.Backend.Healthy
}

// stateRejected is how a sidecar says that it refuses its file.
const stateRejected = "ConfigRejected"

// census remembers what the sidecars of each CartStorage answered, so that an event of one
// pod does not have all the others asked. Lost with the process, it is gathered anew.
type census struct {
	fetcher Fetcher
	resync  time.Duration
	now     func() time.Time
	slots   *slots

	mu    sync.Mutex
	known map[types.NamespacedName]map[types.UID]*answer
}

func newCensus(fetcher Fetcher, resync time.Duration) *census {
	return &census{
		fetcher: fetcher, resync: resync, now: time.Now, slots: newSlots(askInAll, askNamespace),
		known: map[types.NamespacedName]map[types.UID]*answer{},
	}
}

// answer is the last one of a pod.
type answer struct {
	wanted  int64     // the generation that it should run
	since   time.Time // since when it should
	asked   time.Time // when it was asked last, zero for never
	started bool
	report  *Report
	err     error
}

func (a *answer) due(settled bool, resync time.Duration) time.Time {
	if settled {
		return a.asked.Add(resync)
	}
	return a.asked.Add(min(max(a.asked.Sub(a.since)/4, askSoonest), askLatest, resync))
}

// ask returns the sidecars of the pods in their order, with answers that are as
// fresh as they need to be, and when to ask again.
func (c *census) ask(ctx context.Context, key types.NamespacedName, pods []*corev1.Pod, generation int64) (all []sidecar, next time.Duration) {
	c.mu.Lock()
	before := c.known[key]
	c.mu.Unlock()

	now := c.now()
	all = make([]sidecar, len(pods))
	answers := make(map[types.UID]*answer, len(pods))
	var due []int
	for i, pod := range pods {
		s := &all[i]
		s.pod, s.present, s.waiting = pod, render.Injected(pod), waiting(pod)
		a := &answer{wanted: generation, since: now}
		if old := before[pod.UID]; old != nil && old.wanted == generation && old.started == (s.waiting == "") {
			a = old
		} else if old != nil {
			a.report, a.err = old.report, old.err // until there is a newer one
		}
		a.started = s.waiting == ""
		answers[pod.UID] = a
		s.report, s.err = a.report, a.err
		switch {
		case !s.present:
		case s.waiting != "":
			s.report, s.err = nil, nil
			a.asked = now
		case !now.Before(a.due(s.settled(generation), c.resync)):
			due = append(due, i)
		}
	}
	c.askThese(ctx, all, answers, due)

	now, next = c.now(), c.resync
	for i := range all {
		if s := &all[i]; s.present {
			next = min(next, answers[s.pod.UID].due(s.settled(generation), c.resync).Sub(now))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[key] = answers
	return all, max(next, askSoonest/5)
}

// askThese asks the ones that waited longest first; who is not reached in time
// keeps the last answer and comes first at the next time.
func (c *census) askThese(ctx context.Context, all []sidecar, answers map[types.UID]*answer, due []int) {
	ctx, cancel := context.WithTimeout(ctx, askAllTimeout)
	defer cancel()
	slices.SortStableFunc(due, func(i, j int) int {
		return cmp.Compare(answers[all[i].pod.UID].asked.UnixNano(), answers[all[j].pod.UID].asked.UnixNano())
	})
	todo := make(chan int, len(due))
	for _, i := range due {
		todo <- i
	}
	close(todo)
	var wg sync.WaitGroup
	for range min(askParallel, len(due)) {
		wg.Go(func() {
			for i := range todo {
				if ctx.Err() != nil {
					return
				}
				s := &all[i]
				if !c.slots.take(ctx, s.pod.Namespace) {
					return
				}
				report, err := c.fetcher.Fetch(ctx, s.pod)
				c.slots.give(s.pod.Namespace)
				if err != nil && ctx.Err() != nil {
					return // the time is up, which is not this sidecar's fault
				}
				report.tame()
				a := answers[s.pod.UID]
				a.asked, a.report, a.err = c.now(), &report, tameError(err)
				if err != nil {
					a.report = nil
				}
				s.report, s.err = a.report, a.err
			}
		})
	}
	wg.Wait()
}

func (c *census) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, key)
}

// waiting says why the sidecar's container does not run, "" if it does.
func waiting(pod *corev1.Pod) string {
	for _, s := range pod.Status.InitContainerStatuses {
		if s.Name != render.ContainerName {
			continue
		}
		switch {
		case s.State.Running != nil && pod.Status.PodIP == "":
			return "PodHasNoAddress"
		case s.State.Running != nil && pod.Spec.HostNetwork:
			return "HostNetwork" // what answers there may be anybody
		case s.State.Running != nil:
			return ""
		case s.State.Terminated != nil:
			return cmp.Or(s.State.Terminated.Reason, "Terminated")
		case s.State.Waiting != nil:
			reason := cmp.Or(s.State.Waiting.Reason, "Waiting")
			if m := s.State.Waiting.Message; m != "" {
				return reason + ": " + tame(m)
			}
			return reason
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return cmp.Or(c.Reason, "Unschedulable") + ": " + tame(c.Message)
		}
	}
	return "ContainerCreating"
}
