package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// outdated says what differs in the sidecars of one workload.
type outdated struct {
	key   workloadKey
	facts []string
	stuck bool // one of them does not run, so that a restart can only help
}

// compare says which sidecars are outdated, and groups them by workload.
func (c *conclusion) compare(w render.Wanted) {
	c.old = make([]bool, len(c.sidecars))
	by := map[workloadKey]*outdated{}
	for i := range c.sidecars {
		s := &c.sidecars[i]
		if !s.present || s.ending {
			continue
		}
		facts := w.Outdated(s.pod)
		if len(facts) == 0 {
			continue
		}
		c.old[i] = true
		o := by[c.fleet.owners[i]]
		if o == nil {
			o = &outdated{key: c.fleet.owners[i]}
			by[o.key] = o
		}
		o.stuck = o.stuck || s.stuck
		for _, f := range facts {
			if !slices.Contains(o.facts, f) {
				o.facts = append(o.facts, f)
			}
		}
	}
	for _, w := range c.fleet.topology.Workloads {
		if o := by[workloadKey{groupOf(w.Kind), w.Kind, w.Name}]; o != nil {
			slices.Sort(o.facts)
			c.outdated = append(c.outdated, o)
			delete(by, o.key)
		}
	}
	for _, o := range by { // of kinds that are not watched
		slices.Sort(o.facts)
		c.outdated = append(c.outdated, o)
	}
	slices.SortFunc(c.outdated, func(a, b *outdated) int {
		return strings.Compare(a.key.kind+"/"+a.key.name, b.key.kind+"/"+b.key.name)
	})
}

// byHand returns the command that restarts the workload.
func (o *outdated) byHand() string {
	switch o.key.kind {
	case "Deployment", "StatefulSet", "DaemonSet":
		return fmt.Sprintf("kubectl rollout restart %s/%s", strings.ToLower(o.key.kind), o.key.name)
	case "Job", "CronJob":
		return "the next run has a new one"
	}
	return "make its pods anew"
}

// restarts reports whether the operator restarts workloads of that kind.
func (o *outdated) restarts() bool { return o.key.group == "apps" && o.key.kind != "ReplicaSet" }

func (o *outdated) what() string {
	if slices.Equal(o.facts, []string{render.OlderOperator}) {
		return render.OlderOperator
	}
	return strings.Join(o.facts, ", ") + " changed since its pods were made"
}

// unwell says why nothing may be restarted now, or returns "". Trouble of an outdated sidecar is no reason, since the
// restart may mend it. A backend that cannot be reached is a reason, since no new sidecar would start.
func (c *conclusion) unwell() string {
	for i := range c.sidecars {
		s := &c.sidecars[i]
		switch {
		case s.ending:
			return "a pod is ending"
		case !s.present:
			return "pod " + s.pod.Name + " has no sidecar"
		case s.report != nil && !s.report.Backend.Healthy:
			return "pod " + s.pod.Name + " does not reach the backend"
		case c.old[i]:
		case s.waiting != "" || s.err != nil || !s.updated(c.generation):
			return "the sidecar of pod " + s.pod.Name + " is not well yet"
		case !ready(s.pod):
			return "pod " + s.pod.Name + " is not ready"
		}
	}
	return ""
}

// noRight is the message if the operator's role does not let it restart workloads.
const noRight = "the operator has no right to restart workloads: install the chart with rollouts.enabled=true, or apply config/rbac/rollouts_role.yaml"

// rollOut says what is outdated in each workload, and restarts one workload if the spec asks for it. Again is when to
// look again.
func (r *Reconciler) rollOut(ctx context.Context, cs *v1alpha1.CartStorage, c *conclusion, w render.Wanted) (again time.Duration, err error) {
	if len(c.outdated) == 0 {
		return 0, nil
	}
	say := func(o *outdated, what string) {
		for i := range cs.Status.Workloads {
			if s := &cs.Status.Workloads[i]; s.Kind == o.key.kind && s.Name == o.key.name {
				s.Message = tame(o.what() + "; " + what)
			}
		}
	}
	wait := ""
	if cs.Spec.Sidecar.Rollout == v1alpha1.RolloutRestart {
		wait = c.unwell()
	}
	key := w.Key(cs)
	for _, o := range c.outdated {
		r.tellOutdated(cs, o)
		switch {
		case cs.Spec.Sidecar.Rollout != v1alpha1.RolloutRestart || !o.restarts():
			say(o, o.byHand())
		case wait != "":
			say(o, "it will be restarted, but not now: "+wait)
			again = askLatest
		default:
			what, step, err := r.restart(ctx, cs.Namespace, o, key)
			if apierrors.IsForbidden(err) {
				what, err = noRight+"; or "+o.byHand(), nil
			}
			if err != nil {
				return 0, err
			}
			say(o, what)
			if step {
				wait, again = o.key.kind+" "+o.key.name+" is being restarted", askLatest
			}
		}
	}
	if again > 0 { // the restarts go on, so nothing is stalled
		meta.RemoveStatusCondition(&cs.Status.Conditions, v1alpha1.ConditionStalled)
		set(cs, c.now, v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonRollingOut, "workloads with outdated sidecars are restarted, one after another: see status.workloads")
	}
	return again, nil
}

// restart restarts a workload, once for each change. Step says that the others must wait for it.
func (r *Reconciler) restart(ctx context.Context, namespace string, o *outdated, key string) (what string, step bool, err error) {
	var w client.Object
	for _, k := range workloadKinds {
		if k.group == o.key.group && k.kind == o.key.kind {
			w = k.one()
		}
	}
	if err := r.live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: o.key.name}, w); apierrors.IsNotFound(err) {
		return "it is gone", false, nil
	} else if err != nil {
		return "", false, err
	}
	whole, leave := rolledOut(w)
	mine := template(w).Annotations[v1alpha1.RestartedForAnnotation] == key
	switch {
	case leave != "":
		return "it is not restarted by the operator, since " + leave + ": " + o.byHand(), false, nil
	case !whole && (mine || !o.stuck):
		return "it is being rolled out", true, nil
	case mine: // a webhook of another version may have injected it
		return "it was restarted for this once and is not again: " + o.byHand(), false, nil
	}
	patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"spec":{"template":{"metadata":{"annotations":{%q:%q}}}}}`, w.GetResourceVersion(), v1alpha1.RestartedForAnnotation, key)
	err = r.client.Patch(ctx, w, client.RawPatch(types.MergePatchType, []byte(patch)), client.FieldOwner(FieldOwner))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return "it is being rolled out", true, nil // somebody was faster: look again
	} else if err != nil {
		return "", false, err
	}
	ctrl.LoggerFrom(ctx).Info("workload restarted, so that it has a new sidecar", "workload", o.key.kind+" "+o.key.name, "differs", o.facts)
	return "it is being rolled out", true, nil
}

// rolledOut reports whether all pods of a workload have its newest template and are ready. Leave says why changing the
// template would not restart the workload, or should not.
func rolledOut(w client.Object) (whole bool, leave string) {
	switch w := w.(type) {
	case *appsv1.Deployment:
		n, s := int32(1), &w.Status
		if w.Spec.Replicas != nil {
			n = *w.Spec.Replicas
		}
		if w.Spec.Paused {
			leave = "it is paused"
		}
		return s.ObservedGeneration >= w.Generation && s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n, leave
	case *appsv1.StatefulSet:
		n, s, u := int32(1), &w.Status, &w.Spec.UpdateStrategy
		if w.Spec.Replicas != nil {
			n = *w.Spec.Replicas
		}
		if u.Type == appsv1.OnDeleteStatefulSetStrategyType {
			leave = "its update strategy is OnDelete"
		} else if u.RollingUpdate != nil && u.RollingUpdate.Partition != nil && *u.RollingUpdate.Partition > 0 {
			leave = "its update strategy has a partition"
		}
		return s.ObservedGeneration >= w.Generation && s.UpdatedReplicas == n && s.ReadyReplicas == n && s.CurrentRevision == s.UpdateRevision, leave
	case *appsv1.DaemonSet:
		s := &w.Status
		if w.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
			leave = "its update strategy is OnDelete"
		}
		return s.ObservedGeneration >= w.Generation && s.UpdatedNumberScheduled == s.DesiredNumberScheduled && s.NumberAvailable == s.DesiredNumberScheduled, leave
	}
	return false, "it is of another kind"
}

// tellOutdated sends an event for a workload that has become outdated, once for each change.
func (r *Reconciler) tellOutdated(cs *v1alpha1.CartStorage, o *outdated) {
	name := o.key.kind + " " + o.key.name
	next := o.byHand()
	if cs.Spec.Sidecar.Rollout == v1alpha1.RolloutRestart && o.restarts() {
		next = "the operator restarts it"
	}
	if !r.news.once(client.ObjectKeyFromObject(cs), "outdated "+name, o.what()+next) {
		return
	}
	r.events.Eventf(cs, nil, corev1.EventTypeNormal, "SidecarsOutdated", "Compare"+o.key.kind, "sidecars of %s are outdated: %s; %s", name, o.what(), next)
}
