package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// The controllers of Kubernetes make refused pods again, and wait longer each time: up to 16 minutes. If any field of
// the workload changes, they try at once. So when the cause may be gone (the CartStorage is new or changed, or the
// operator has come back), workloads of the CartStorage that lack pods are given a new annotation. It is written
// through their status subresource, since that right allows no change of a spec.

// nudgeAfter are the times, from when the cause may have gone, at which workloads that still lack pods are nudged. At
// the first, the API server may not have found the webhook again.
var nudgeAfter = []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 30 * time.Second}

// nudges remember since when the pods of a CartStorage may be accepted.
type nudges struct {
	mu   sync.Mutex
	last map[types.NamespacedName]*nudged
}

type nudged struct {
	uid        types.UID
	generation int64
	since      time.Time
	done       int // how many of nudgeAfter
}

func (n *nudges) forget(key types.NamespacedName) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.last, key)
}

// due reports whether it is time to nudge, and in how long it will be again; 0 means never.
func (n *nudges) due(cs *v1alpha1.CartStorage, now time.Time) (yes bool, again time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := client.ObjectKeyFromObject(cs)
	if n.last == nil {
		n.last = map[types.NamespacedName]*nudged{}
	}
	l := n.last[key]
	if l == nil || l.uid != cs.UID || l.generation != cs.Generation {
		l = &nudged{uid: cs.UID, generation: cs.Generation, since: now}
		n.last[key] = l
	}
	for l.done < len(nudgeAfter) && now.Sub(l.since) >= nudgeAfter[l.done] {
		l.done, yes = l.done+1, true
	}
	if l.done < len(nudgeAfter) {
		again = l.since.Add(nudgeAfter[l.done]).Sub(now)
	}
	return yes, again
}

// workload is one as the cache has it.
type workload struct {
	workloadKind
	o client.Object
}

// failing reports whether the controller of o fails to make all of its pods. A ReplicaSet's status says that. Workloads
// of other kinds may only be slow.
func failing(o client.Object) bool {
	switch o := o.(type) {
	case *appsv1.ReplicaSet:
		return len(o.Status.Conditions) > 0 // see refusals
	case *appsv1.StatefulSet:
		return o.Spec.Replicas == nil && o.Status.Replicas < 1 || o.Spec.Replicas != nil && o.Status.Replicas < *o.Spec.Replicas
	case *appsv1.DaemonSet:
		return o.Status.CurrentNumberScheduled < o.Status.DesiredNumberScheduled
	case *batchv1.Job:
		suspended := o.Spec.Suspend != nil && *o.Spec.Suspend
		return len(o.Status.Conditions) == 0 && !suspended && o.Status.Active == 0 && o.Status.Succeeded == 0
	}
	return false
}

// nudge makes the controllers of workloads that lack pods try again, if there is a new reason to.
func (r *Reconciler) nudge(ctx context.Context, cs *v1alpha1.CartStorage, f *fleet) (again time.Duration, err error) {
	due, again := r.nudges.due(cs, r.now())
	if len(f.failing) == 0 || !due {
		return again, nil
	}
	var errs []error
	for _, w := range f.failing {
		patch := fmt.Sprintf(`{"metadata":{"uid":%q,"annotations":{%q:%q}}}`, w.o.GetUID(), v1alpha1.NudgedAnnotation, r.now().UTC().Format(time.RFC3339Nano))
		target := w.one()
		target.SetNamespace(w.o.GetNamespace())
		target.SetName(w.o.GetName())
		err := r.client.Status().Patch(ctx, target, client.RawPatch(types.MergePatchType, []byte(patch)), client.FieldOwner(FieldOwner))
		switch {
		case err == nil:
			ctrl.LoggerFrom(ctx).Info("pods may be accepted now: their controller is told to try again", "workload", w.kind+" "+w.o.GetName())
		case !apierrors.IsNotFound(err) && !apierrors.IsConflict(err):
			errs = append(errs, fmt.Errorf("nudge %s %s: %w", w.kind, w.o.GetName(), err))
		}
	}
	return again, errors.Join(errs...)
}
