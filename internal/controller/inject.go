package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// InjectPath is where the webhook is served.
const InjectPath = "/inject"

// Injector gives pods their sidecar: it decodes, calls [render.Pod] and answers with the difference. It changes nothing
// but that pod, so any number of replicas may serve it, leader or not.
type Injector struct {
	client client.Reader // reads from the cache
	live   client.Reader // reads from the API server
	image  string
	images render.Images
	misses misses
	// namespaces are those that the operator keeps; empty is every one.
	namespaces []string
}

// Handle implements [admission.Handler].
func (i *Injector) Handle(ctx context.Context, req admission.Request) admission.Response {
	pod := &corev1.Pod{}
	if err := json.Unmarshal(req.Object.Raw, pod); err != nil {
		return admission.Errored(http.StatusBadRequest, fmt.Errorf("decode the pod: %w", err))
	}
	name, asked := pod.Labels[v1alpha1.InjectLabel]
	if !asked {
		return admission.Allowed("") // the selector of the webhook was changed
	}
	if !keeps(i.namespaces, req.Namespace) {
		return admission.Denied(fmt.Sprintf("label %s: this operator does not keep namespace %s: add it to --namespaces (watchNamespaces of the chart), or remove the label",
			v1alpha1.InjectLabel, req.Namespace))
	}
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return admission.Denied(fmt.Sprintf("label %s: %q is no name of a CartStorage: %s", v1alpha1.InjectLabel, name, problems[0]))
	}
	cs, err := i.cartStorage(ctx, req.Namespace, name)
	if apierrors.IsNotFound(err) {
		return admission.Denied(fmt.Sprintf("label %s: there is no CartStorage %s in namespace %s: %screate it, or name another one of this namespace",
			v1alpha1.InjectLabel, name, req.Namespace, i.meant(ctx, req.Namespace, name)))
	} else if errors.Is(err, errBusy) {
		return admission.Errored(http.StatusTooManyRequests, err)
	} else if err != nil {
		return admission.Errored(http.StatusInternalServerError, fmt.Errorf("read CartStorage %s: %w", name, err))
	}
	if !cs.DeletionTimestamp.IsZero() {
		return admission.Denied(fmt.Sprintf("label %s: CartStorage %s is being deleted: name another one, or wait and create it anew", v1alpha1.InjectLabel, name))
	}
	injected, err := i.inject(ctx, pod, cs)
	if err != nil {
		return admission.Denied(fmt.Sprintf("CartStorage %s cannot give this pod a sidecar: %s", name, err))
	}
	after, err := json.Marshal(injected)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(req.Object.Raw, after)
}

// cartStorage looks into the cache first, and then asks the API server: the cache may lack what was created a moment
// ago, and pods that are refused come back only later.
func (i *Injector) cartStorage(ctx context.Context, namespace, name string) (*v1alpha1.CartStorage, error) {
	cs := &v1alpha1.CartStorage{}
	key := client.ObjectKey{Namespace: namespace, Name: name}
	missing := i.client.Get(ctx, key, cs)
	if !apierrors.IsNotFound(missing) {
		return cs, missing
	}
	if known, err := i.misses.look(namespace, name); known {
		return nil, missing
	} else if err != nil {
		return nil, err
	}
	err := i.live.Get(ctx, key, cs)
	if apierrors.IsNotFound(err) {
		i.misses.note(namespace, name)
	}
	return cs, err
}

// meant returns a question whether another CartStorage of the namespace was meant, or "" if no name is similar.
func (i *Injector) meant(ctx context.Context, namespace, name string) string {
	const most = 1000 // to compare
	var all v1alpha1.CartStorageList
	if err := i.client.List(ctx, &all, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return "" // the pod is refused anyway
	}
	names := make([]string, 0, min(len(all.Items), most))
	for n := range min(len(all.Items), most) {
		names = append(names, all.Items[n].Name)
	}
	if best := nearest(name, names); best != "" {
		return "did you mean " + best + "? Otherwise "
	}
	return ""
}

// nearest returns the one of names that is most similar to name, if any is similar at all.
func nearest(name string, names []string) (best string) {
	least := min(max(2, len(name)/3), len(name)/2) + 1 // else short names would all be similar
	slices.Sort(names)
	for _, n := range names {
		if d := edits(name, n); d < least {
			best, least = n, d
		}
	}
	return best
}

// edits returns how many letters must be added, removed or replaced to turn a into b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// inject returns pod with its sidecar. If the pod joins another one before locking is on, its sidecar locks from the
// start.
func (i *Injector) inject(ctx context.Context, pod *corev1.Pod, cs *v1alpha1.CartStorage) (*corev1.Pod, error) {
	current, err := currentConfig(ctx, i.client, cs.Namespace, cs.Name)
	if err != nil {
		return nil, err
	}
	fresh := !render.Injected(pod)
	o := render.PodOptions{Image: i.image, Images: i.images, Generation: render.ConfigGeneration(current)}
	if fresh {
		if err := render.Check(cs); err != nil {
			return nil, err
		}
		if o.Minima, err = i.minima(ctx, cs.Namespace); err != nil {
			return nil, err
		}
	}
	injected, err := render.Pod(pod, cs, o)
	if err != nil || !fresh || cs.Spec.Locking.Mode == v1alpha1.LockingDisabled || render.Locks(current) {
		return injected, err
	}
	others, err := livePods(ctx, i.client, cs.Namespace, cs.Name)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(others, func(other *corev1.Pod) bool { return other.Name != pod.Name || pod.Name == "" }) {
		injected = render.StartLocked(injected)
	}
	return injected, nil
}

// minima returns the least that containers of a namespace must request, by all of its LimitRanges.
func (i *Injector) minima(ctx context.Context, namespace string) (corev1.ResourceList, error) {
	var ranges corev1.LimitRangeList
	if err := i.client.List(ctx, &ranges, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	return render.Minima(ranges.Items), nil
}
