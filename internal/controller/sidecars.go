package controller

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// How often sidecars are asked. One that is expected to change is asked again after a quarter of the time since it was
// first expected to. The kubelet takes about a second, and a sidecar that has not changed within a minute will hardly
// do so within the next second.
const (
	askSoonest     = 250 * time.Millisecond
	askLatest      = 5 * time.Second  // while anything of a CartStorage changes, all of its sidecars
	changeLasts    = 30 * time.Second // what has just settled may change again
	askGroups      = 3                // in which the sidecars of a quiet CartStorage take turns
	askParallel    = 16
	askTimeout     = time.Second
	askInAll       = 64              // by all workers together
	askNamespace   = 24              // by all workers together, of one namespace
	askAllTimeout  = 3 * time.Second // sidecars that do not answer must not hold up the next decision
	maxGeneration  = int64(1) << 53  // a greater number was not written by us
	mountTroubleIn = 2 * time.Second // by then a kubelet has mounted the volumes or said why not
)

// sidecar is what is known of the sidecar of a pod.
type sidecar struct {
	pod     *corev1.Pod
	present bool
	// ending says that the pod is being deleted. It gets no configuration any more, and its failures are not reported.
	ending bool
	// young says that it is too early to call anything about it a failure.
	young bool
	// waiting says why the container does not run; "" if it does. stuck says that this does not pass by itself.
	waiting string
	stuck   bool
	// report is the last answer, nil if there is none; err is why there has been none for some time.
	report *Report
	err    error
	// since is when it was first expected to run the present configuration.
	since time.Time
	// lacks are the files that the pod does not mount although the configuration names them.
	lacks []string
}

// updated reports whether the sidecar runs generation and nothing newer was refused.
func (s *sidecar) updated(generation int64) bool {
	return s.report != nil && s.report.Generation == generation && s.report.Config.State != stateRejected
}

// settled reports whether nothing is expected to change.
func (s *sidecar) settled(generation int64) bool {
	return s.ending || s.waiting == "" && s.err == nil && s.updated(generation) && s.report.Backend.Healthy
}

// stateRejected is the state of a sidecar that refuses its file.
const stateRejected = "ConfigRejected"

// census remembers what the sidecars of each CartStorage answered, so that after an event of one pod not all others are
// asked again. After a restart of the operator, all are asked again.
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

// answer is the last answer of a pod's sidecar.
type answer struct {
	wanted  int64     // the generation that it should run
	since   time.Time // since when it should
	asked   time.Time // when it was asked last, zero for never
	started bool
	report  *Report
	err     error     // why it did not answer the last time
	failing time.Time // since when it does not answer
}

// told returns err once the sidecar has been silent for too long to be an accident. Until then the last report counts.
func (a *answer) told(now time.Time) (*Report, error) {
	if a.err == nil || now.Sub(a.failing) < silentAfter {
		return a.report, nil
	}
	return nil, a.err
}

// due returns when to ask the sidecar next.
func (a *answer) due(settled bool, every time.Duration) time.Time {
	switch {
	case settled:
		return a.asked.Add(every)
	case a.err != nil:
		return a.asked.Add(min(askAgain, every))
	}
	return a.asked.Add(min(max(a.asked.Sub(a.since)/4, askSoonest), askLatest, every))
}

// turn returns when to ask a settled sidecar next. Those of one CartStorage take turns in [askGroups] groups. So a
// failure that hits all of them shows in the next group, and then the others are asked at once. The offset spreads
// different CartStorages over the time.
func (a *answer) turn(place int, offset, every time.Duration) time.Time {
	phase := (time.Duration(place%askGroups)*every/askGroups + offset) % every
	next := a.asked.Truncate(every).Add(phase)
	for !next.After(a.asked) {
		next = next.Add(every)
	}
	return next
}

// ask returns the sidecars of the pods in their order, with answers that are as fresh as they need to be, and when to
// ask again.
func (c *census) ask(ctx context.Context, key types.NamespacedName, pods []*corev1.Pod, generation int64) (all []sidecar, next time.Duration) {
	c.mu.Lock()
	before := c.known[key]
	c.mu.Unlock()

	now := c.now()
	all = make([]sidecar, len(pods))
	answers := make(map[types.UID]*answer, len(pods))
	for i, pod := range pods {
		s := &all[i]
		s.look(pod, now)
		a := &answer{wanted: generation, since: now}
		if old := before[pod.UID]; old != nil && old.wanted == generation && old.started == (s.waiting == "") {
			a = old
		} else if old != nil {
			a.report, a.err, a.failing = old.report, old.err, old.failing // until there is a newer one
		}
		a.started = s.waiting == ""
		answers[pod.UID] = a
		s.since = a.since
		if s.waiting != "" {
			a.report, a.err, a.asked = nil, nil, now
		}
		s.report, s.err = a.told(now)
	}
	due := c.dues(key, all, answers, generation, now)
	var asked []int
	for i := range all {
		if s := &all[i]; s.present && !s.ending && s.waiting == "" && !now.Before(due(i)) {
			asked = append(asked, i)
		}
	}
	c.askThese(ctx, all, answers, asked)

	now, next = c.now(), c.resync
	due = c.dues(key, all, answers, generation, now) // the answers may make others due sooner
	for i := range all {
		if s := &all[i]; s.present && !s.ending {
			next = min(next, due(i).Sub(now))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[key] = answers
	return all, max(next, askSoonest/5)
}

// dues returns when to ask each sidecar. While anything changes, all are asked more often.
func (c *census) dues(key types.NamespacedName, all []sidecar, answers map[types.UID]*answer, generation int64, now time.Time) func(i int) time.Time {
	busy := false
	for i := range all {
		s := &all[i]
		busy = busy || s.present && (!s.settled(generation) || now.Sub(answers[s.pod.UID].since) < changeLasts)
	}
	offset := offsetOf(key, c.resync)
	return func(i int) time.Time {
		a := answers[all[i].pod.UID]
		settled := all[i].settled(generation) && a.err == nil
		switch {
		case a.asked.IsZero():
			return now
		case settled && !busy:
			return a.turn(i, offset, c.resync)
		}
		return a.due(settled, min(c.resync, askLatest))
	}
}

// offsetOf spreads CartStorages over a time.
func offsetOf(key types.NamespacedName, every time.Duration) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key.String()))
	return every * time.Duration(h.Sum32()%1000) / 1000
}

// askThese asks first the ones that have waited longest. A sidecar that is not reached in time keeps its last answer,
// and comes first the next time.
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
				a.heard(&report, tameError(err), c.now())
				s.report, s.err = a.told(a.asked)
			}
		})
	}
	wg.Wait()
}

// heard notes an answer, or that there was none.
func (a *answer) heard(report *Report, err error, now time.Time) {
	switch {
	case err == nil:
		a.report = report
		report.heard = now
	case a.err == nil:
		a.failing = now
	}
	a.asked, a.err = now, err
}

func (c *census) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, key)
}
