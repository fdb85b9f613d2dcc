package render

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// Minima are the least resources that each container must request, by the LimitRanges of its namespace. Kubernetes
// refuses a pod with a container that requests less.
func Minima(ranges []corev1.LimitRange) corev1.ResourceList {
	least := corev1.ResourceList{}
	for i := range ranges {
		for _, item := range ranges[i].Spec.Limits {
			if item.Type != corev1.LimitTypeContainer {
				continue
			}
			for name, q := range item.Min {
				if have, ok := least[name]; !ok || q.Cmp(have) > 0 {
					least[name] = q
				}
			}
		}
	}
	return least
}

// defaultRequests and defaultLimits are as the CRD has them.
func defaultRequests() corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m"), corev1.ResourceMemory: resource.MustParse("32Mi")}
}

func defaultLimits() corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")}
}

// belowMinima refuses values of the spec that the namespace does not admit. Default values are raised instead: see
// raise. The API server fills in the defaults, so the same values written by hand are raised too.
func belowMinima(cs *v1alpha1.CartStorage, minima corev1.ResourceList) error {
	var errs []error
	r := resources(cs)
	for _, part := range []struct {
		name       string
		set, usual corev1.ResourceList
	}{{"requests", r.Requests, defaultRequests()}, {"limits", r.Limits, defaultLimits()}} {
		for _, name := range slices.SortedFunc(maps.Keys(minima), cmp.Compare[corev1.ResourceName]) {
			least, set := minima[name], part.set[name]
			_, given := part.set[name]
			if usual, ok := part.usual[name]; given && set.Cmp(least) < 0 && (!ok || set.Cmp(usual) != 0) {
				errs = append(errs, fmt.Errorf("spec.sidecar.resources.%s.%s is %s and a LimitRange of the namespace asks for %s at least: write %s or more, or leave it out",
					part.name, name, set.String(), least.String(), least.String()))
			}
		}
	}
	return errors.Join(errs...)
}

// raise makes a container request what a LimitRange demands, and raises a limit that is below that.
func raise(r *corev1.ResourceRequirements, minima corev1.ResourceList) {
	for name, least := range minima {
		if have, ok := r.Requests[name]; !ok || have.Cmp(least) < 0 {
			if r.Requests == nil {
				r.Requests = corev1.ResourceList{}
			}
			r.Requests[name] = least
		}
		if limit, ok := r.Limits[name]; ok && limit.Cmp(r.Requests[name]) < 0 {
			r.Limits[name] = r.Requests[name]
		}
	}
}
