package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// FieldOwner is the field manager of everything that the operator writes.
const FieldOwner = "sidecart-operator"

// Reconciler keeps what belongs to a CartStorage as it should be: ConfigMap, annotations of pods, status.
type Reconciler struct {
	client client.Client // reads from the cache
	live   client.Reader // reads from the API server
	image  string        // of sidecars whose CartStorage names none
	images render.Images // that sidecars may run
	events events.EventRecorder
	census *census
	repair repairs
	news   *news
	nudges nudges
	now    func() time.Time
	own    string // namespace of the operator
}

// Reconcile brings everything of cs to its desired state: it decides what the sidecars should run, tells them, asks
// them, and writes the status.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (result ctrl.Result, err error) {
	cs := &v1alpha1.CartStorage{}
	if err := r.client.Get(ctx, req.NamespacedName, cs); apierrors.IsNotFound(err) || err == nil && !cs.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.forget(ctx, req.NamespacedName)
	} else if err != nil {
		return ctrl.Result{}, err
	}
	before := cs.DeepCopy()
	defer func() {
		if patchErr := r.patchStatus(ctx, before, cs); apierrors.IsConflict(patchErr) {
			result.RequeueAfter = askSoonest // the cache is behind, so what was read from it may be outdated
		} else {
			err = errors.Join(err, client.IgnoreNotFound(patchErr))
		}
	}()

	fleet, err := r.observe(ctx, cs)
	if err != nil {
		return ctrl.Result{}, err
	}
	recheck := r.updateLocking(ctx, cs, fleet)
	if err := r.startMove(ctx, cs, fleet); err != nil {
		return ctrl.Result{}, err
	}
	generation, err := r.applyConfig(ctx, cs, fleet)
	if stalled := (*unrenderable)(nil); errors.As(err, &stalled) {
		conclude(cs, &conclusion{fleet: fleet, stalled: stalled, now: r.now()})
		return ctrl.Result{RequeueAfter: soonest(recheck, stalled.again)}, nil
	} else if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.stamp(ctx, fleet.pods, generation); err != nil {
		return ctrl.Result{}, err
	}
	nudge, untold := r.nudge(ctx, cs, fleet)
	sidecars, again := r.census.ask(ctx, req.NamespacedName, fleet.pods, generation)
	if r.followMove(ctx, cs, sidecars, generation) {
		recheck = askSoonest
	}
	kept := r.keepLastGood(ctx, cs, sidecars, generation)
	r.explain(ctx, cs, sidecars)
	evicted, more, err := r.evictOne(ctx, cs, sidecars)
	c := &conclusion{
		fleet: fleet, sidecars: sidecars, generation: generation, evicted: evicted, now: r.now(), from: r.own,
		image: r.images.Check(cs.Spec.Sidecar.Image),
	}
	wanted := render.WantedOf(cs, render.PodOptions{Image: r.image})
	c.compare(wanted)
	conclude(cs, c)
	r.tellMisplaced(cs, fleet)
	restarts, failed := r.rollOut(ctx, cs, c, wanted)
	outdatedPods.set(req.NamespacedName, cs.Status.Outdated)
	return ctrl.Result{RequeueAfter: soonest(soonest(recheck, nudge), soonest(soonest(again, more), restarts))}, errors.Join(untold, err, failed, kept)
}

// tellMisplaced sends an event for a label that nothing reads, once.
func (r *Reconciler) tellMisplaced(cs *v1alpha1.CartStorage, f *fleet) {
	const most = 5
	for _, name := range f.misplaced[:min(len(f.misplaced), most)] {
		if r.news.once(client.ObjectKeyFromObject(cs), "misplaced "+name, "") {
			r.events.Eventf(cs, nil, corev1.EventTypeWarning, "LabelMisplaced", "Observe", "%s has the label %s on itself, where nothing reads it: move it to the labels of its pod template", name, v1alpha1.InjectLabel)
		}
	}
}

// soonest returns the shorter one; zero means never.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// updateLocking writes the decision to the status, which is also its memory.
func (r *Reconciler) updateLocking(ctx context.Context, cs *v1alpha1.CartStorage, f *fleet) (recheck time.Duration) {
	// The API keeps whole seconds. A finer time would change Since at each write.
	now := r.now().Truncate(time.Second)
	decision, recheck := render.DecideLocking(cs.Spec.Locking, f.topology, cs.Status.Locking, now)
	if before := cs.Status.Locking; len(f.strangers) > 0 && (before == nil || before.Message != decision.Message) {
		// Their names go only to the operator's log, which readers of this namespace do not see.
		ctrl.LoggerFrom(ctx).Info("CartStorages of other namespaces use the same carts", "others", f.strangers[:min(len(f.strangers), 10)])
	}
	cs.Status.Locking = &decision
	return recheck
}

// unrenderable says why there is no configuration. That lasts until the spec changes, or something else that is checked
// again from time to time.
type unrenderable struct {
	error
	again time.Duration
}

// applyConfig writes the ConfigMap if it is not as it should be, and returns the generation of the configuration.
//
// The cache may be behind, and a generation must not be used twice. So if the cache shows a difference, the
// configuration is rendered again from what the API server has, and is written only if nobody else wrote meanwhile.
func (r *Reconciler) applyConfig(ctx context.Context, cs *v1alpha1.CartStorage, f *fleet) (int64, error) {
	for _, reader := range []client.Reader{r.client, r.live} {
		current, err := currentConfig(ctx, reader, cs.Namespace, cs.Name)
		if err != nil {
			return 0, err
		}
		ours := current == nil || written(current)
		if render.ConfigGeneration(current) > maxGeneration {
			current = current.DeepCopy()
			delete(current.Annotations, v1alpha1.GenerationAnnotation) // the number was not written by us, and has no successor
		}
		want, err := render.ConfigMap(cs, *cs.Status.Locking, current, floor(f.pods))
		if err != nil {
			return 0, &unrenderable{error: err}
		}
		if current != nil && same(current, want) {
			return render.ConfigGeneration(current), nil
		}
		if reader == r.live {
			if !ours {
				err := fmt.Errorf("there is a ConfigMap %s that is not Sidecart's: remove it, or give the CartStorage another name", current.Name)
				return 0, &unrenderable{err, askLatest} // the cause is not watched, so it is checked again
			}
			return r.writeConfig(ctx, cs, want, current)
		}
	}
	panic("the second round returns")
}

func (r *Reconciler) writeConfig(ctx context.Context, cs *v1alpha1.CartStorage, want, current *corev1.ConfigMap) (int64, error) {
	if current != nil {
		want.ResourceVersion = current.ResourceVersion
	}
	if err := r.apply(ctx, want); err != nil {
		return 0, fmt.Errorf("apply ConfigMap %s: %w", want.Name, err)
	}
	generation := render.ConfigGeneration(want)
	ctrl.LoggerFrom(ctx).Info("configuration written", "generation", generation, "locking", cs.Status.Locking.Enabled, "reason", cs.Status.Locking.Reason)
	// A decision about locking has an event of its own. Its reason changes often while pods come and go.
	if r.news.once(client.ObjectKeyFromObject(cs), "configuration", strconv.FormatInt(cs.Generation, 10)) {
		r.events.Eventf(cs, nil, corev1.EventTypeNormal, "Configured", "Configure", "sidecars are told configuration %d", generation)
	}
	return generation, nil
}

func (r *Reconciler) apply(ctx context.Context, o client.Object) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: content}
	return r.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(FieldOwner), client.ForceOwnership)
}

// currentConfig returns the ConfigMap of a CartStorage, or nil if there is none.
func currentConfig(ctx context.Context, reader client.Reader, namespace, name string) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{}
	err := reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: render.ConfigMapName(name)}, cm)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return cm, err
}

// written reports whether the operator wrote the ConfigMap, even if somebody has removed its label or its annotation
// since.
func written(cm *corev1.ConfigMap) bool {
	_, generation := cm.Annotations[v1alpha1.GenerationAnnotation]
	return generation || cm.Labels[managedBy] == "sidecart"
}

// same reports whether current has all that want has. Other labels, annotations and keys may stay.
func same(current, want *corev1.ConfigMap) bool {
	return contains(current.Data, want.Data) && contains(current.Labels, want.Labels) && contains(current.Annotations, want.Annotations)
}

func contains(m, part map[string]string) bool {
	for k, v := range part {
		if got, ok := m[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// floor returns the highest generation that any pod was told, so that a ConfigMap that was removed comes back with a
// higher one.
func floor(pods []*corev1.Pod) (highest int64) {
	for _, pod := range pods {
		if n := render.ConfigGeneration(pod); n <= maxGeneration {
			highest = max(highest, n)
		}
	}
	return highest
}

// stamp writes the generation on the pods. Kubelets refresh the volumes of a pod at once when it changes, and otherwise
// within a minute or two.
//
// It is a merge patch with the pod's UID. An apply would try to create a pod that has gone meanwhile, and a pod of the
// same name may be another one.
func (r *Reconciler) stamp(ctx context.Context, pods []*corev1.Pod, generation int64) error {
	var errs []error
	for _, pod := range pods {
		if !render.Injected(pod) || !pod.DeletionTimestamp.IsZero() || render.ConfigGeneration(pod) == generation {
			continue
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid":         pod.UID,
			"annotations": map[string]string{v1alpha1.GenerationAnnotation: strconv.FormatInt(generation, 10)},
		}})
		if err != nil {
			return err
		}
		target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
		err = r.client.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldOwner))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("stamp pod %s: %w", pod.Name, err))
		}
	}
	return errors.Join(errs...)
}

// forget removes what is left of a CartStorage that is gone, once no pod uses it. Until then its pods go on with their
// last configuration, also after a restart.
func (r *Reconciler) forget(ctx context.Context, key types.NamespacedName) error {
	r.census.forget(key)
	r.news.forget(key)
	r.nudges.forget(key)
	outdatedPods.forget(key)
	r.repair.forget(key)
	pods, err := livePods(ctx, r.client, key.Namespace, key.Name)
	if err != nil || len(pods) > 0 {
		return err // the last pod's end starts another round
	}
	cm, err := currentConfig(ctx, r.client, key.Namespace, key.Name)
	if err != nil || cm == nil {
		return err
	}
	ctrl.LoggerFrom(ctx).Info("configuration removed, nothing uses it")
	return client.IgnoreNotFound(r.client.Delete(ctx, cm, client.Preconditions{UID: &cm.UID, ResourceVersion: &cm.ResourceVersion}))
}

// patchStatus writes the status if it differs, and says what is new. It insists on the version that was read, since the
// status is the memory of the decision about locking.
func (r *Reconciler) patchStatus(ctx context.Context, before, after *v1alpha1.CartStorage) error {
	if !equality.Semantic.DeepEqual(before.Status, after.Status) {
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		if err := r.client.Status().Patch(ctx, after.DeepCopy(), patch, client.FieldOwner(FieldOwner)); err != nil {
			return err
		}
	}
	r.announce(before, after)
	return nil
}
