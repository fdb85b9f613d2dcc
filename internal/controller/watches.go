package controller

import (
	"context"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// changed lets an update pass if anything differs that is kept of the object. Most updates of pods and workloads change
// only what [reduce] drops.
var changed = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	was, is := e.ObjectOld.DeepCopyObject().(client.Object), e.ObjectNew.DeepCopyObject().(client.Object)
	for _, o := range []client.Object{was, is} {
		o.SetResourceVersion("")
		o.SetGeneration(0)
	}
	return !equality.Semantic.DeepEqual(was, is)
}}

func (r *Reconciler) setup(mgr ctrl.Manager, o controller.Options) error {
	b := ctrl.NewControllerManagedBy(mgr).
		Named("cartstorage").
		For(&v1alpha1.CartStorage{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		// If a new CartStorage uses the same carts, both are reconciled.
		Watches(&v1alpha1.CartStorage{}, handler.EnqueueRequestsFromMapFunc(r.sharersOf), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(configMapOf), builder.WithPredicates(changed)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(named), builder.WithPredicates(changed)).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(r.namespaceOf), builder.WithPredicates(changed))
	for _, k := range workloadKinds {
		b = b.Watches(k.one(), handler.EnqueueRequestsFromMapFunc(named), builder.WithPredicates(changed))
	}
	warm := true // a new leader need not read the whole cluster first
	o.EnableWarmup = &warm
	return b.WithOptions(o).Complete(r)
}

// named returns the CartStorage that a pod or a workload names.
func named(_ context.Context, o client.Object) []reconcile.Request {
	name := injectOf(o)
	if name == "" {
		name = o.GetLabels()[v1alpha1.InjectLabel] // of the workload itself, see misplaced
	}
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// configMapOf returns the CartStorage that a ConfigMap belongs to.
func configMapOf(_ context.Context, o client.Object) []reconcile.Request {
	name := o.GetLabels()[instance]
	if name == "" || render.ConfigMapName(name) != o.GetName() {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// namespaceOf returns all CartStorages in the namespace of an autoscaler. Reconciling finds out which of them its
// target uses, if any.
func (r *Reconciler) namespaceOf(ctx context.Context, o client.Object) []reconcile.Request {
	return r.requests(ctx, func(*v1alpha1.CartStorage) bool { return true }, client.InNamespace(o.GetNamespace()))
}

// sharersOf returns the other CartStorages on the same carts.
func (r *Reconciler) sharersOf(ctx context.Context, o client.Object) []reconcile.Request {
	cs := o.(*v1alpha1.CartStorage)
	return r.requests(ctx, func(other *v1alpha1.CartStorage) bool { return other.UID != cs.UID && render.SameCarts(cs, other) })
}

func (r *Reconciler) requests(ctx context.Context, want func(*v1alpha1.CartStorage) bool, opts ...client.ListOption) (out []reconcile.Request) {
	var all v1alpha1.CartStorageList
	// They are only read, and there may be many, so they are not copied.
	if err := r.client.List(ctx, &all, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list CartStorages")
		return nil
	}
	for i := range all.Items {
		if want(&all.Items[i]) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all.Items[i])})
		}
	}
	return out
}
