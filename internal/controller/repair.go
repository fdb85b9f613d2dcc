package controller

import (
	"cmp"
	"context"
	"fmt"
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

// repairs remembers when a pod was evicted last, by CartStorage. Lost with the
// process, it costs one eviction more.
type repairs struct {
	mu   sync.Mutex
	last map[types.NamespacedName]time.Time
}

func (r *repairs) forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, key)
}

func (r *repairs) at(key types.NamespacedName) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[key]
}

func (r *repairs) note(key types.NamespacedName, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[types.NamespacedName]time.Time{}
	}
	r.last[key] = now
}

// evictOne evicts one pod that has no sidecar, if the resource allows it and
// nothing speaks against it, and says what was done. The eviction API heeds disruption budgets.
func (r *Reconciler) evictOne(ctx context.Context, cs *v1alpha1.CartStorage, sidecars []sidecar) (what string, err error) {
	key := client.ObjectKeyFromObject(cs)
	victim, why := r.victim(cs, sidecars, r.repair.at(key))
	if victim == nil {
		return why, nil
	}
	eviction := &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &victim.UID}}}
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: victim.Namespace, Name: victim.Name}}
	err = r.client.SubResource("eviction").Create(ctx, target, eviction)
	switch {
	case apierrors.IsTooManyRequests(err):
		return "; a disruption budget forbids to evict it now", nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return "", nil // it has gone meanwhile
	case err != nil:
		return "", fmt.Errorf("evict pod %s: %w", victim.Name, err)
	}
	r.repair.note(key, r.now())
	ctrl.LoggerFrom(ctx).Info("pod without a sidecar evicted", "pod", victim.Name)
	r.events.Eventf(cs, nil, corev1.EventTypeNormal, "PodEvicted", "Repair", "pod %s had no sidecar and was evicted, so that its owner makes one that has", victim.Name)
	return "; pod " + victim.Name + " was evicted", nil
}

// victim is the pod to evict, nil for none; then why says what speaks against it, if anything.
func (r *Reconciler) victim(cs *v1alpha1.CartStorage, sidecars []sidecar, last time.Time) (victim *corev1.Pod, why string) {
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
		case !last.IsZero() && s.pod.CreationTimestamp.After(last.Truncate(time.Second)):
			// To go on would evict the same pods for ever. (Pods know whole seconds.)
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

// explain adds what is known of the trouble that sidecars have: files that their
// pod does not mount, and what the kubelet says of volumes that it cannot mount.
func (r *Reconciler) explain(ctx context.Context, cs *v1alpha1.CartStorage, sidecars []sidecar) {
	asked := false
	for i := range sidecars {
		s := &sidecars[i]
		if !s.present {
			continue
		}
		s.lacks = render.Missing(s.pod, cs)
		// One that waits for a volume explains all; each question is a search of the API server.
		if s.waiting == "ContainerCreating" && !asked && r.now().Sub(s.pod.CreationTimestamp.Time) > mountTroubleIn {
			asked = true
			if m := r.mountTrouble(ctx, s.pod); m != "" {
				s.waiting += ": " + m
			}
		}
	}
}

// mountTrouble is the kubelet's last word on volumes of the pod that it cannot
// mount, such as one of a Secret that is not there. The operator itself may not
// look at Secrets.
func (r *Reconciler) mountTrouble(ctx context.Context, pod *corev1.Pod) string {
	var list corev1.EventList
	err := r.live.List(ctx, &list, client.InNamespace(pod.Namespace), client.MatchingFields{"involvedObject.uid": string(pod.UID), "reason": "FailedMount"})
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
