package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// repairs remembers the last eviction of each CartStorage. After a restart of the operator, that costs one more
// eviction at most.
type repairs struct {
	mu   sync.Mutex
	last map[types.NamespacedName]eviction
}

// eviction is the last one of a CartStorage, with the pods that were there before it.
type eviction struct {
	at     time.Time
	before map[types.UID]bool
}

func (r *repairs) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, key)
}

func (r *repairs) get(key types.NamespacedName) eviction {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[key]
}

func (r *repairs) note(key types.NamespacedName, now time.Time, sidecars []sidecar) {
	e := eviction{at: now, before: make(map[types.UID]bool, len(sidecars))}
	for i := range sidecars {
		e.before[sidecars[i].pod.UID] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[types.NamespacedName]eviction{}
	}
	r.last[key] = e
}

// evictionPause is how long to wait for the pod that replaces an evicted one.
const evictionPause = 3 * time.Second

// evictOne evicts one pod that has no sidecar, if the resource allows it and nothing speaks against it. It returns what
// was done, and when there may be more to do; 0 means not before something changes. The eviction API heeds disruption
// budgets.
func (r *Reconciler) evictOne(ctx context.Context, cs *v1alpha1.CartStorage, sidecars []sidecar) (what string, again time.Duration, err error) {
	key := client.ObjectKeyFromObject(cs)
	if !slices.ContainsFunc(sidecars, func(s sidecar) bool { return !s.present }) {
		r.repair.forget(key) // later pods without a sidecar are a new case
		return "", 0, nil
	}
	last := r.repair.get(key)
	victim, why := r.victim(cs, sidecars, last)
	if victim == nil {
		return why, 0, nil
	}
	if wait := evictionPause - r.now().Sub(last.at); wait > 0 {
		return "; one was evicted a moment ago, the next one follows", wait, nil
	}
	request := &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &victim.UID}}}
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: victim.Namespace, Name: victim.Name}}
	err = r.client.SubResource("eviction").Create(ctx, target, request)
	switch {
	case apierrors.IsTooManyRequests(err):
		return "; a disruption budget forbids to evict it now", askLatest, nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return "", 0, nil // it has gone meanwhile
	case err != nil:
		return "", 0, fmt.Errorf("evict pod %s: %w", victim.Name, err)
	}
	r.repair.note(key, r.now(), sidecars)
	ctrl.LoggerFrom(ctx).Info("pod without a sidecar evicted", "pod", victim.Name)
	r.events.Eventf(cs, nil, corev1.EventTypeNormal, "PodEvicted", "Repair", "pod %s had no sidecar and was evicted, so that its owner makes one that has", victim.Name)
	return "; pod " + victim.Name + " was evicted", evictionPause, nil
}

// victim returns the pod to evict, or nil. Why then says what speaks against an eviction, if anything.
func (r *Reconciler) victim(cs *v1alpha1.CartStorage, sidecars []sidecar, last eviction) (victim *corev1.Pod, why string) {
	if cs.Spec.Injection.OnMissing != v1alpha1.RecreateMissing {
		return nil, ""
	}
	for i := range sidecars {
		s := &sidecars[i]
		switch {
		case !s.pod.DeletionTimestamp.IsZero():
			return nil, "; one is ending already"
		case s.present && !ready(s.pod):
			return nil, "; others must be ready first"
		case s.present || metav1.GetControllerOf(s.pod) == nil:
		case last.before != nil && !last.before[s.pod.UID]:
			// The new pods lack a sidecar too, so evictions would never end.
			return nil, "; the one that came after an eviction has none either, so the webhook does not reach this namespace and nothing more is evicted"
		case victim == nil:
			victim = s.pod
		}
	}
	return victim, ""
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// explain adds what is known about the trouble of sidecars: files that their pod does not mount, and what the kubelet
// says of volumes that it cannot mount.
func (r *Reconciler) explain(ctx context.Context, cs *v1alpha1.CartStorage, sidecars []sidecar) {
	asked := false
	for i := range sidecars {
		s := &sidecars[i]
		if !s.present {
			continue
		}
		s.lacks = render.Missing(s.pod, cs)
		// One pod that waits for a volume explains all, and each question is a search of the API server.
		if untouched(s.waiting) && !asked && r.now().Sub(s.pod.CreationTimestamp.Time) > mountTroubleIn {
			asked = true
			if m := r.mountTrouble(ctx, s.pod); m != "" {
				s.waiting += ": " + m
				s.stuck = !s.young
			}
		}
	}
}

// untouched reports whether the kubelet has not begun with the sidecar yet, by the reason that it gives. Kubelets give
// the second reason for every container of a pod with init containers, and so of every pod with a sidecar.
func untouched(waiting string) bool {
	return waiting == "ContainerCreating" || waiting == "PodInitializing"
}

// mountTrouble is the kubelet's last word on volumes of the pod that it cannot mount, such as one of a Secret that is
// not there. The operator itself may not look at Secrets.
func (r *Reconciler) mountTrouble(ctx context.Context, pod *corev1.Pod) string {
	// Events are written by anyone who may. A kubelet writes one for each volume.
	const most = 50
	var list corev1.EventList
	err := r.live.List(ctx, &list, client.Limit(most), client.InNamespace(pod.Namespace), client.MatchingFields{"involvedObject.uid": string(pod.UID), "reason": "FailedMount"})
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list events of a pod", "pod", pod.Name)
		return ""
	}
	var last *corev1.Event
	for i := range list.Items {
		if e := &list.Items[i]; last == nil || at(e).After(at(last)) {
			last = e
		}
	}
	if last == nil {
		return ""
	}
	return tame(last.Message)
}

func at(e *corev1.Event) time.Time {
	return cmp.Or(e.LastTimestamp.Time, e.EventTime.Time, e.CreationTimestamp.Time)
}
