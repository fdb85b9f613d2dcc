package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// fleet is everything that uses one CartStorage.
type fleet struct {
	topology render.Topology
	pods     []*corev1.Pod // the live ones, by name
	owners   []workloadKey // of each pod

	workloads map[workloadKey]*render.Workload
	scales    int    // how many owners were asked for their scale
	endless   string // what is wrong with the owner references of a workload, "" for nothing
	strangers []string
	misplaced []string   // workloads with our label on themselves and not on their template, "Deployment web"
	failing   []workload // whose controller does not make the pods that it should
}

// Users write owner references. So the number of owners that are followed is bounded, and so is the number of questions
// to the API server.
const (
	// maxOwners is how many owners above a pod are followed. Kubernetes' own chains have two.
	maxOwners = 16
	// maxScales is how many owners of kinds that are not watched are asked for their scale in one round: each question
	// goes to the API server, and a pod can name any owner.
	maxScales = 16
)

// workloadKey names a topmost owner.
type workloadKey struct{ group, kind, name string }

// observe gathers, from the cache, everything that could write the carts of cs.
func (r *Reconciler) observe(ctx context.Context, cs *v1alpha1.CartStorage) (*fleet, error) {
	f := &fleet{workloads: map[workloadKey]*render.Workload{}}
	if err := r.templates(ctx, cs, f); err != nil {
		return nil, err
	}
	if err := r.misplaced(ctx, cs, f); err != nil {
		return nil, err
	}
	if err := r.pods(ctx, cs, f); err != nil {
		return nil, err
	}
	if err := r.autoscalers(ctx, cs.Namespace, f.workloads); err != nil {
		return nil, err
	}
	for _, w := range f.workloads {
		f.topology.Workloads = append(f.topology.Workloads, *w)
	}
	slices.SortFunc(f.topology.Workloads, func(a, b render.Workload) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	r.sharers(ctx, cs, f)
	return f, nil
}

// sharers adds the other CartStorages on the same carts. Those of other namespaces are only counted, since readers of
// cs's status may not be allowed to see them.
func (r *Reconciler) sharers(ctx context.Context, cs *v1alpha1.CartStorage, f *fleet) {
	for _, other := range r.sharersOf(ctx, cs) {
		if other.Namespace == cs.Namespace {
			f.topology.Sharers = append(f.topology.Sharers, other.Name)
		} else {
			f.topology.Strangers++
			f.strangers = append(f.strangers, other.String())
		}
	}
	slices.Sort(f.topology.Sharers)
	slices.Sort(f.strangers)
}

// templates adds the workloads whose template names cs. Their replicas count before their first pod is there.
func (r *Reconciler) templates(ctx context.Context, cs *v1alpha1.CartStorage, f *fleet) error {
	for _, k := range workloadKinds {
		list := k.list()
		if err := r.client.List(ctx, list, client.InNamespace(cs.Namespace), client.MatchingFields{injectIndex: cs.Name}); err != nil {
			return err
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return err
		}
		for _, item := range items {
			o := item.(client.Object)
			if failing(o) {
				f.failing = append(f.failing, workload{k, o})
			}
			// A Deployment keeps old ReplicaSets, which want no pods.
			if w, _ := render.WorkloadOf(item); metav1.GetControllerOf(o) != nil && w.Replicas == 0 {
				continue
			}
			if _, err := r.topmost(ctx, o, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// misplaced adds the workloads that have our label themselves, instead of on their template.
func (r *Reconciler) misplaced(ctx context.Context, cs *v1alpha1.CartStorage, f *fleet) error {
	for _, k := range workloadKinds {
		list := k.list()
		if err := r.client.List(ctx, list, client.InNamespace(cs.Namespace), client.MatchingFields{misplacedIndex: cs.Name}); err != nil {
			return err
		}
		err := meta.EachListItem(list, func(o runtime.Object) error {
			if o := o.(client.Object); metav1.GetControllerOf(o) == nil {
				f.misplaced = append(f.misplaced, k.kind+" "+o.GetName())
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.Sort(f.misplaced)
	return nil
}

func (r *Reconciler) pods(ctx context.Context, cs *v1alpha1.CartStorage, f *fleet) error {
	pods, err := livePods(ctx, r.client, cs.Namespace, cs.Name)
	if err != nil {
		return err
	}
	f.pods = pods
	for _, pod := range pods {
		key, err := r.topmost(ctx, pod, f)
		if err != nil {
			return err
		}
		f.workloads[key].Pods++
		f.owners = append(f.owners, key)
	}
	return nil
}

// livePods returns the pods that name the CartStorage and can still write, sorted by name. They belong to the cache and
// must not be changed.
func livePods(ctx context.Context, c client.Reader, namespace, name string) (live []*corev1.Pod, err error) {
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(namespace), client.MatchingFields{injectIndex: name}); err != nil {
		return nil, err
	}
	for i := range pods.Items {
		if render.Live(&pods.Items[i]) {
			live = append(live, &pods.Items[i])
		}
	}
	slices.SortFunc(live, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return live, nil
}

// topmost adds the workload at the end of o's chain of owners, and returns its key.
func (r *Reconciler) topmost(ctx context.Context, o client.Object, f *fleet) (workloadKey, error) {
	for seen := []workloadKey(nil); ; {
		if err := ctx.Err(); err != nil {
			return workloadKey{}, err
		}
		ref := metav1.GetControllerOf(o)
		if ref == nil || ref.Kind == "Node" { // a static pod belongs to its node
			w, _ := render.WorkloadOf(o)
			return f.add(workloadKey{groupOf(w.Kind), w.Kind, w.Name}, w), nil
		}
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		if err != nil {
			gv = schema.GroupVersion{Group: ref.APIVersion} // no such group exists, so the owner is unknown
		}
		key := workloadKey{gv.Group, ref.Kind, ref.Name}
		if f.workloads[key] != nil {
			return key, nil
		}
		if i := slices.Index(seen, key); i >= 0 {
			return f.addCircle(seen[i:]), nil
		}
		if len(seen) == maxOwners {
			return f.addChain(seen), nil
		}
		seen = append(seen, key)
		i := slices.IndexFunc(workloadKinds, func(k workloadKind) bool { return k.group == gv.Group && k.kind == ref.Kind })
		if i < 0 {
			w, err := r.scaled(ctx, o.GetNamespace(), ref, f)
			if err != nil {
				return key, err
			}
			return f.add(key, w), nil
		}
		owner := workloadKinds[i].one()
		err = r.client.Get(ctx, client.ObjectKey{Namespace: o.GetNamespace(), Name: ref.Name}, owner)
		if apierrors.IsNotFound(err) || err == nil && owner.GetUID() != ref.UID {
			// The owner is gone and wants no more pods. Its pods are ending.
			return f.add(key, render.Workload{Kind: ref.Kind, Name: ref.Name}), nil
		}
		if err != nil {
			return key, err
		}
		o = owner
	}
}

func (f *fleet) add(key workloadKey, w render.Workload) workloadKey {
	if f.workloads[key] == nil {
		f.workloads[key] = &w
	}
	return key
}

// addCircle adds owners that own each other as one workload. It is named after the first of them in order, so that the
// name does not depend on where the walk began. How many pods it may run is unknown.
func (f *fleet) addCircle(circle []workloadKey) workloadKey {
	first := slices.MinFunc(circle, func(a, b workloadKey) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name), cmp.Compare(a.group, b.group))
	})
	i := slices.Index(circle, first)
	names := make([]string, 0, len(circle))
	for _, k := range slices.Concat(circle[i:], circle[:i]) {
		names = append(names, k.kind+" "+k.name)
	}
	if len(names) == 1 {
		return f.addEndless(first, names[0]+" is its own controller: remove that owner reference")
	}
	return f.addEndless(first, strings.Join(names, " is controlled by ")+", which is controlled by the first again: remove one of these owner references")
}

// addChain adds the last workload of a chain that has more owners than are followed.
func (f *fleet) addChain(chain []workloadKey) workloadKey {
	last := chain[len(chain)-1]
	return f.addEndless(last, fmt.Sprintf("%s %s has more than %d controllers above it: remove the owner reference of one", chain[0].kind, chain[0].name, maxOwners))
}

func (f *fleet) addEndless(key workloadKey, why string) workloadKey {
	if f.endless == "" || why < f.endless {
		f.endless = why
	}
	return f.add(key, render.UnknownWorkload(key.kind, key.name))
}

// groupOf is the API group of a watched kind; "" for Pod.
func groupOf(kind string) string {
	for _, k := range workloadKinds {
		if k.kind == kind {
			return k.group
		}
	}
	return ""
}

// scaled asks an owner of a kind that is not watched for its scale. The operator notices changes of the scale when pods
// change.
func (r *Reconciler) scaled(ctx context.Context, namespace string, ref *metav1.OwnerReference, f *fleet) (render.Workload, error) {
	if f.scales++; f.scales > maxScales {
		return render.UnknownWorkload(ref.Kind, ref.Name), nil
	}
	owner, scale := &unstructured.Unstructured{}, &unstructured.Unstructured{}
	owner.SetAPIVersion(ref.APIVersion)
	owner.SetKind(ref.Kind)
	owner.SetNamespace(namespace)
	owner.SetName(ref.Name)
	scale.SetAPIVersion("autoscaling/v1")
	scale.SetKind("Scale")
	err := r.client.SubResource("scale").Get(ctx, owner, scale)
	switch {
	case err == nil:
		n, _, _ := unstructured.NestedInt64(scale.Object, "spec", "replicas")
		return render.ScaledWorkload(ref.Kind, ref.Name, int32(n)), nil
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err), apierrors.IsForbidden(err), meta.IsNoMatchError(err):
		return render.UnknownWorkload(ref.Kind, ref.Name), nil
	}
	return render.Workload{}, fmt.Errorf("scale of %s %s: %w", ref.Kind, ref.Name, err)
}

// autoscalers adds how far each workload may be scaled. KEDA uses a HorizontalPodAutoscaler too.
func (r *Reconciler) autoscalers(ctx context.Context, namespace string, workloads map[workloadKey]*render.Workload) error {
	var list autoscalingv2.HorizontalPodAutoscalerList
	if err := r.client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return err
	}
	for i := range list.Items {
		hpa := &list.Items[i]
		target := hpa.Spec.ScaleTargetRef
		gv, err := schema.ParseGroupVersion(target.APIVersion)
		if err != nil {
			continue // such a reference leads the autoscaler to nothing either
		}
		w := workloads[workloadKey{gv.Group, target.Kind, target.Name}]
		if w != nil && hpa.Spec.MaxReplicas > w.MaxReplicas {
			w.MaxReplicas = hpa.Spec.MaxReplicas
			w.Autoscaler = "HorizontalPodAutoscaler " + hpa.Name
		}
	}
	return nil
}
