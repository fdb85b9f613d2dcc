package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/render"
)

// maxWorkloads is how many workloads the status lists; the totals count all.
const maxWorkloads = 100

// conclusion is the result of one round.
type conclusion struct {
	fleet      *fleet
	sidecars   []sidecar // of fleet.pods, in their order
	generation int64
	stalled    error  // why there is no configuration
	evicted    string // what was done about pods without a sidecar
	image      error  // why the spec's image is not allowed
	from       string // the namespace of the operator
	now        time.Time

	old      []bool      // which of the sidecars are outdated
	outdated []*outdated // by workload

	missing, stuck, starting, silent, answered, behind []*sidecar
	present                                            int // those that are not ending
}

// conclude writes the status.
func conclude(cs *v1alpha1.CartStorage, c *conclusion) {
	c.sort()
	s := &cs.Status
	s.ObservedGeneration = cs.Generation
	s.Replicas = int32(len(c.fleet.pods))
	c.workloads(s)
	if c.stalled != nil {
		set(cs, c.now, v1alpha1.ConditionConfigAccepted, metav1.ConditionFalse, v1alpha1.ReasonRejected, c.stalled.Error())
		set(cs, c.now, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonRenderFailed, c.stalled.Error())
		for _, t := range []string{v1alpha1.ConditionBackendReachable, v1alpha1.ConditionLockingEffective, v1alpha1.ConditionBackendDurable} {
			set(cs, c.now, t, metav1.ConditionUnknown, v1alpha1.ReasonRenderFailed, "there is no configuration")
		}
		c.progress(cs)
		return
	}
	for _, rule := range []struct {
		condition string
		decide    func(*v1alpha1.CartStorage) (metav1.ConditionStatus, string, string)
	}{
		{v1alpha1.ConditionBackendReachable, c.backendReachable},
		{v1alpha1.ConditionConfigAccepted, c.configAccepted},
		{v1alpha1.ConditionLockingEffective, c.lockingEffective},
		{v1alpha1.ConditionBackendDurable, c.backendDurable},
		{v1alpha1.ConditionReady, c.ready}, // it looks at the others
	} {
		status, reason, message := rule.decide(cs)
		set(cs, c.now, rule.condition, status, reason, message)
	}
	c.progress(cs)
}

// sort puts the sidecars into groups. Those of ending pods are in no group.
func (c *conclusion) sort() {
	for i := range c.sidecars {
		s := &c.sidecars[i]
		switch {
		case s.ending:
			continue
		case !s.present:
			c.present++
			c.missing = append(c.missing, s)
			continue
		}
		c.present++
		switch {
		case s.stuck:
			c.stuck = append(c.stuck, s)
		case s.waiting != "" || s.young && !s.settled(c.generation):
			c.starting = append(c.starting, s)
		case s.err != nil:
			c.silent = append(c.silent, s)
		case s.report != nil:
			c.answered = append(c.answered, s)
		}
		if !s.updated(c.generation) {
			c.behind = append(c.behind, s)
		}
	}
}

// workloads counts pods by workload.
func (c *conclusion) workloads(status *v1alpha1.CartStorageStatus) {
	type name struct{ kind, name string }
	counts := map[name]*v1alpha1.WorkloadStatus{}
	for _, w := range c.fleet.topology.Workloads {
		if w.Kind == "Job" && w.Replicas == 0 && w.Pods == 0 {
			continue // it has ended
		}
		counts[name{w.Kind, w.Name}] = &v1alpha1.WorkloadStatus{Kind: w.Kind, Name: w.Name}
	}
	sidecars, updated := 0, 0
	status.Outdated = 0
	for i, owner := range c.fleet.owners {
		w := counts[name{owner.kind, owner.name}]
		w.Replicas++
		if c.stalled != nil || !c.sidecars[i].present || c.sidecars[i].ending {
			continue
		}
		w.Sidecars++
		sidecars++
		if c.sidecars[i].updated(c.generation) {
			w.Updated++
			updated++
		}
		if c.old[i] {
			w.Outdated++
			status.Outdated++
		}
	}
	status.Sidecars = fmt.Sprintf("%d/%d", updated, sidecars)
	status.Workloads = nil
	for _, w := range counts {
		status.Workloads = append(status.Workloads, *w)
	}
	slices.SortFunc(status.Workloads, func(a, b v1alpha1.WorkloadStatus) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	if len(status.Workloads) > maxWorkloads {
		status.Workloads = status.Workloads[:maxWorkloads]
	}
}

func (c *conclusion) backendReachable(*v1alpha1.CartStorage) (metav1.ConditionStatus, string, string) {
	down := filter(c.answered, func(s *sidecar) bool { return !s.report.Backend.Healthy })
	switch {
	case c.present == 0:
		return metav1.ConditionUnknown, v1alpha1.ReasonNoWorkloads, "no pod uses this CartStorage"
	case len(down) > 0:
		return metav1.ConditionFalse, v1alpha1.ReasonUnreachable, tell(down, len(c.answered), "sidecars do not reach the backend", func(s *sidecar) string {
			return cmp.Or(s.report.Backend.Message, "no answer")
		})
	case len(c.answered) == 0:
		return metav1.ConditionUnknown, v1alpha1.ReasonUnknown, "no sidecar has answered yet"
	}
	message := plural(len(c.answered), "the sidecar reaches", "all %d sidecars that answer reach") + " the backend"
	// Carts go on without the backend for checkouts, so that it is no reason to hold a rollout.
	if down = filter(c.answered, func(s *sidecar) bool { b := s.report.CriticalBackend; return b != nil && !b.Healthy }); len(down) > 0 {
		message += "; " + tell(down, len(c.answered), "refuse checkouts", func(s *sidecar) string {
			return cmp.Or(s.report.CriticalBackend.Message, "no answer")
		})
	}
	return metav1.ConditionTrue, v1alpha1.ReasonReachable, message
}

func (c *conclusion) configAccepted(*v1alpha1.CartStorage) (metav1.ConditionStatus, string, string) {
	refused := filter(c.answered, func(s *sidecar) bool { return s.report.Config.State == stateRejected })
	switch {
	case c.image != nil:
		return metav1.ConditionFalse, v1alpha1.ReasonImageNotAllowed, c.image.Error() + "; no new pod is given a sidecar"
	case c.present == 0:
		return metav1.ConditionTrue, v1alpha1.ReasonNoWorkloads, "no pod uses this CartStorage"
	case len(refused) > 0:
		return metav1.ConditionFalse, v1alpha1.ReasonRejected, tell(refused, len(c.answered), "sidecars do not accept the configuration", func(s *sidecar) string {
			if len(s.lacks) > 0 {
				return fmt.Sprintf("the pod was made before the configuration named %s: restart its workload", strings.Join(s.lacks, ", "))
			}
			return fmt.Sprintf("it keeps configuration %d: %s", s.report.Generation, s.report.Config.Message)
		})
	case len(c.answered) == 0:
		return metav1.ConditionUnknown, v1alpha1.ReasonUnknown, "no sidecar has answered yet"
	}
	return metav1.ConditionTrue, v1alpha1.ReasonAccepted, "no sidecar refuses the configuration"
}

func (c *conclusion) lockingEffective(cs *v1alpha1.CartStorage) (metav1.ConditionStatus, string, string) {
	decision := cs.Status.Locking
	asAuto := cs.Spec.Locking
	asAuto.Mode = v1alpha1.LockingAuto
	needed, _ := render.DecideLocking(asAuto, c.fleet.topology, nil, c.now)
	switch {
	case !decision.Enabled && needed.Enabled:
		return metav1.ConditionFalse, v1alpha1.ReasonDisabledBySpec,
			"several pods can write (" + needed.Message + ") and spec.locking.mode is Disabled: no change is lost, but they meet and are computed again; write Auto to have them queue"
	case !decision.Enabled:
		return metav1.ConditionTrue, v1alpha1.ReasonNotNeeded, needed.Message
	case !render.LocksAcrossReplicas(&cs.Spec.Backend):
		return metav1.ConditionFalse, v1alpha1.ReasonBackendCannotLock,
			fmt.Sprintf("%s, and backend %s cannot lock across replicas: run one pod, or use %s", decision.Message, cs.Spec.Backend.Type, config.SharedNames())
	case len(c.behind)+len(c.missing) > 0:
		return metav1.ConditionFalse, v1alpha1.ReasonRollingOut, fmt.Sprintf("%d of %d pods have not been told to lock yet", len(c.behind)+len(c.missing), c.present)
	}
	return metav1.ConditionTrue, v1alpha1.ReasonEffective, decision.Message
}

func (c *conclusion) ready(cs *v1alpha1.CartStorage) (metav1.ConditionStatus, string, string) {
	if len(c.missing) > 0 {
		message := tell(c.missing, c.present, "pods have no sidecar", func(*sidecar) string {
			return "it was made while the webhook was away, or its namespace is excluded: make it anew"
		})
		return metav1.ConditionFalse, v1alpha1.ReasonSidecarMissing, message + c.evicted
	}
	if c.fleet.endless != "" {
		return metav1.ConditionFalse, v1alpha1.ReasonEndlessOwners, c.fleet.endless + "; until then it may run any number of pods, and locking is on"
	}
	for _, t := range []string{v1alpha1.ConditionConfigAccepted, v1alpha1.ConditionBackendReachable, v1alpha1.ConditionLockingEffective} {
		if o := condition(cs, t); o.Status == metav1.ConditionFalse && o.Reason != v1alpha1.ReasonRollingOut {
			return metav1.ConditionFalse, v1alpha1.ReasonDegraded, t + " is False: " + o.Message
		}
	}
	switch {
	case len(c.silent) > 0:
		return metav1.ConditionFalse, v1alpha1.ReasonSidecarUnreachable, c.unreachable()
	case len(c.stuck) > 0:
		return metav1.ConditionFalse, v1alpha1.ReasonSidecarNotStarted, tell(c.stuck, c.present, "sidecars do not run", func(s *sidecar) string { return s.waiting })
	}
	if rolling := c.rolling(); rolling != "" {
		if c.patient() && wasReady(cs) {
			return metav1.ConditionTrue, v1alpha1.ReasonRollingOut, rolling
		}
		return metav1.ConditionFalse, v1alpha1.ReasonRollingOut, rolling
	}
	if c.present == 0 {
		return metav1.ConditionTrue, v1alpha1.ReasonNoWorkloads, "no pod uses this CartStorage yet" + c.elsewhere()
	}
	message := plural(c.present, "the sidecar runs", "all %d sidecars run") + fmt.Sprintf(" configuration %d", c.generation)
	if n := cs.Status.Outdated; n > 0 {
		message += "; " + plural(int(n), "one is outdated", "%d are outdated") + ", see status.workloads"
	}
	return metav1.ConditionTrue, v1alpha1.ReasonAllUpdated, message + c.elsewhere()
}

// elsewhere names the workloads whose label is in a place where nothing reads it, or returns "".
func (c *conclusion) elsewhere() string {
	const most = 5
	names := c.fleet.misplaced
	if len(names) == 0 {
		return ""
	}
	text := strings.Join(names[:min(len(names), most)], ", ")
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return fmt.Sprintf("; the label %s of %s is on the workload itself, where nothing reads it: move it to the labels of its pod template", v1alpha1.InjectLabel, text)
}

// rolling says which sidecars are not yet as they should be, or returns "".
func (c *conclusion) rolling() string {
	if len(c.starting) > 0 {
		return tell(c.starting, c.present, "sidecars are starting", func(s *sidecar) string { return cmp.Or(s.waiting, "it has just started") })
	}
	if len(c.behind) > 0 {
		return tell(c.behind, c.present, fmt.Sprintf("sidecars do not run configuration %d", c.generation), func(s *sidecar) string {
			if s.report == nil {
				return "it has not been asked yet"
			}
			return fmt.Sprintf("it runs %d", s.report.Generation)
		})
	}
	return ""
}

func (c *conclusion) patient() bool {
	for _, s := range slices.Concat(c.starting, c.behind) {
		if !s.patient(c.now) {
			return false
		}
	}
	return true
}

// unreachable says which sidecars do not answer. If none in the namespace answers and each question times out,
// something drops the packets to them: a program that does not run would refuse the connection.
func (c *conclusion) unreachable() string {
	message := tell(c.silent, c.present, "sidecars do not answer the operator", func(s *sidecar) string { return s.err.Error() })
	for _, s := range c.silent {
		if s.err.Error() != errNoAnswer.Error() {
			return message
		}
	}
	if len(c.answered) > 0 {
		return message
	}
	pod := c.silent[0].pod
	return message + fmt.Sprintf("; a NetworkPolicy that denies ingress in namespace %s would do this: allow port %d of its pods from namespace %s", pod.Namespace, adminPort(pod), c.from)
}

// progress sets Reconciling and Stalled. They tell tools that do not know a CartStorage whether to wait.
func (c *conclusion) progress(cs *v1alpha1.CartStorage) {
	only := func(kind, reason, message string) {
		for _, t := range []string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
			if t != kind {
				meta.RemoveStatusCondition(&cs.Status.Conditions, t)
			}
		}
		if kind != "" {
			set(cs, c.now, kind, metav1.ConditionTrue, reason, message)
		}
	}
	ready := condition(cs, v1alpha1.ConditionReady)
	for _, t := range []string{v1alpha1.ConditionConfigAccepted, v1alpha1.ConditionLockingEffective} {
		if o := condition(cs, t); o.Status == metav1.ConditionFalse && o.Reason != v1alpha1.ReasonRollingOut {
			only(v1alpha1.ConditionStalled, o.Reason, o.Message)
			return
		}
	}
	switch {
	case ready.Reason == v1alpha1.ReasonEndlessOwners, ready.Reason == v1alpha1.ReasonSidecarMissing && cs.Spec.Injection.OnMissing != v1alpha1.RecreateMissing:
		only(v1alpha1.ConditionStalled, ready.Reason, ready.Message)
	case ready.Reason == v1alpha1.ReasonRollingOut:
		only(v1alpha1.ConditionReconciling, ready.Reason, ready.Message)
	case ready.Status == metav1.ConditionFalse: // it comes by itself, or with what is broken beside it
		only(v1alpha1.ConditionReconciling, ready.Reason, ready.Message)
	default:
		only("", "", "")
	}
}

// tell is "2 of 3 sidecars do not reach the backend; pod web-1: no answer".
func tell(which []*sidecar, of int, verb string, why func(*sidecar) string) string {
	return fmt.Sprintf("%d of %d %s; pod %s: %s", len(which), of, verb, which[0].pod.Name, why(which[0]))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprintf(many, n)
}

func filter(in []*sidecar, keep func(*sidecar) bool) (out []*sidecar) {
	for _, s := range in {
		if keep(s) {
			out = append(out, s)
		}
	}
	return out
}

// set sets a condition. Its time changes only with its status.
func set(cs *v1alpha1.CartStorage, now time.Time, kind string, status metav1.ConditionStatus, reason, message string) {
	const most = 32768 // what the API server accepts
	if len(message) > most {
		message = strings.ToValidUTF8(message[:most-3], "") + "…"
	}
	meta.SetStatusCondition(&cs.Status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message,
		ObservedGeneration: cs.Generation, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	})
}

func condition(cs *v1alpha1.CartStorage, kind string) *metav1.Condition {
	return meta.FindStatusCondition(cs.Status.Conditions, kind)
}
