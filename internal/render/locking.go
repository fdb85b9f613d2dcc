package render

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
)

// Topology is everything that could write the carts of one CartStorage.
type Topology struct {
	// Workloads are what runs pods with its sidecar, in a fixed order.
	Workloads []Workload
	// Sharers are the names of other CartStorages of the same namespace on the same backend with the same prefix; see
	// [SameCarts]. Strangers is how many there are in other namespaces. Their names are left out, since readers of this
	// namespace may not see them.
	Sharers   []string
	Strangers int
}

// Workload is something that runs pods.
type Workload struct {
	// Kind and Name are those of the topmost owner: "Deployment", "web".
	Kind, Name string
	// Replicas is how many pods it wants.
	Replicas int32
	// Surge is how many more pods may run during a rollout.
	Surge int32
	// Unbounded says that its spec sets no number of pods.
	Unbounded bool
	// Autoscaler names what may change Replicas, for example "HorizontalPodAutoscaler web". MaxReplicas is the most
	// that it may set; 0 without an autoscaler.
	Autoscaler  string
	MaxReplicas int32
	// Pods is how many of its pods live, including those that are ending.
	Pods int32
}

// String is "Deployment web".
func (w *Workload) String() string { return w.Kind + " " + w.Name }

// writes reports whether the workload could have a pod at all.
func (w *Workload) writes() bool {
	return w.Replicas > 0 || w.MaxReplicas > 0 || w.Pods > 0 || w.Unbounded
}

// DecideLocking says whether the sidecars lock, why, and since when. In mode Auto, locking is on if more than one
// writer can exist, whether or not they do. It comes on at once, and goes off only when one writer has been alone for
// AutoDisableAfter. Previous is the decision before; nil the first time.
//
// Recheck is how long the decision holds if nothing changes; 0 is for ever.
func DecideLocking(spec v1alpha1.Locking, topology Topology, previous *v1alpha1.LockingStatus, now time.Time) (decision v1alpha1.LockingStatus, recheck time.Duration) {
	d := v1alpha1.LockingStatus{Reason: v1alpha1.LockingReasonConfigured}
	switch spec.Mode {
	case v1alpha1.LockingEnabled:
		d.Enabled, d.Message = true, "spec.locking.mode is Enabled"
	case v1alpha1.LockingDisabled:
		d.Message = "spec.locking.mode is Disabled"
	default:
		if d.Reason, d.Message = topology.severalWriters(); d.Reason != "" {
			d.Enabled = true
		} else {
			d, recheck = alone(spec, topology, previous, now)
		}
	}
	d.Since = metav1.NewTime(now)
	if previous != nil && previous.Enabled == d.Enabled {
		d.Since = previous.Since
	}
	return d, recheck
}

// alone decides if there can be one writer at most.
func alone(spec v1alpha1.Locking, topology Topology, previous *v1alpha1.LockingStatus, now time.Time) (d v1alpha1.LockingStatus, recheck time.Duration) {
	d = v1alpha1.LockingStatus{Reason: v1alpha1.LockingReasonNoWorkloads, Message: "no pod uses this CartStorage"}
	if w := topology.writers(); len(w) > 0 {
		d.Reason, d.Message = v1alpha1.LockingReasonSingleWriter, fmt.Sprintf("%s is the only writer and has one pod", &w[0])
	}
	if previous == nil || !previous.Enabled {
		return d, 0
	}
	since := metav1.NewTime(now)
	if previous.AloneSince != nil && !previous.AloneSince.After(now) {
		since = *previous.AloneSince
	}
	after := spec.AutoDisableAfter.Duration
	if after == 0 {
		after = 5 * time.Minute
	}
	recheck = since.Add(after).Sub(now)
	if recheck <= 0 {
		return d, 0
	}
	d.Enabled = true
	d.AloneSince = &since
	d.Reason = v1alpha1.LockingReasonCoolingDown
	d.Message = fmt.Sprintf("%s since %s; locking goes off after %s of that", d.Message, since.UTC().Format(time.RFC3339), config.Duration(after))
	return d, recheck
}

func (t *Topology) writers() (w []Workload) {
	for i := range t.Workloads {
		if t.Workloads[i].writes() {
			w = append(w, t.Workloads[i])
		}
	}
	return w
}

// severalWriters says why more than one writer can exist, or returns "". Settings come before observations, since they
// explain them.
func (t *Topology) severalWriters() (reason, message string) {
	writers := t.writers()
	for _, rule := range []func(*Workload) (string, string){replicas, autoscaler, unbounded, surge} {
		for i := range writers {
			if reason, message = rule(&writers[i]); reason != "" {
				return reason, message
			}
		}
	}
	if len(writers) > 1 {
		names := make([]string, len(writers))
		for i := range writers {
			names[i] = writers[i].String()
		}
		return v1alpha1.LockingReasonMultipleWorkloads, fmt.Sprintf("%s use this CartStorage", list(names))
	}
	if len(writers) == 1 && writers[0].Pods > 1 {
		return v1alpha1.LockingReasonMultiplePods, fmt.Sprintf("%d pods of %s live, those that are ending included", writers[0].Pods, &writers[0])
	}
	if len(t.Sharers)+t.Strangers > 0 {
		return v1alpha1.LockingReasonSharedBackend, t.sharing()
	}
	return "", ""
}

// sharing says which other CartStorages use the same carts.
func (t *Topology) sharing() string {
	names := make([]string, 0, len(t.Sharers)+1)
	for _, s := range t.Sharers {
		names = append(names, "CartStorage "+s)
	}
	switch {
	case t.Strangers == 1:
		names = append(names, "a CartStorage of another namespace")
	case t.Strangers > 1:
		names = append(names, fmt.Sprintf("%d CartStorages of other namespaces", t.Strangers))
	}
	verb := "uses"
	if len(t.Sharers)+t.Strangers > 1 {
		verb = "use"
	}
	return fmt.Sprintf("%s %s the same backend and keyPrefix", list(names), verb)
}

func replicas(w *Workload) (string, string) {
	if w.Replicas > 1 {
		return v1alpha1.LockingReasonMultipleReplicas, fmt.Sprintf("%s has %d replicas", w, w.Replicas)
	}
	return "", ""
}

func autoscaler(w *Workload) (string, string) {
	if w.MaxReplicas > 1 {
		return v1alpha1.LockingReasonAutoscaler, fmt.Sprintf("%s may scale %s to %d replicas", w.Autoscaler, w, w.MaxReplicas)
	}
	return "", ""
}

func unbounded(w *Workload) (string, string) {
	if w.Unbounded {
		return v1alpha1.LockingReasonUnboundedWorkload, fmt.Sprintf("%s may run any number of pods", w)
	}
	return "", ""
}

func surge(w *Workload) (string, string) {
	most := max(w.Replicas, w.MaxReplicas)
	if most > 0 && w.Surge > 0 {
		return v1alpha1.LockingReasonRolloutSurge, fmt.Sprintf("a rollout of %s may run %d pods at once", w, most+w.Surge)
	}
	return "", ""
}

// list is "a", "a and b", "a, b, c and 4 more".
func list(names []string) string {
	const most = 3
	last := names[len(names)-1]
	if more := len(names) - most; more > 0 {
		names, last = names[:most+1], fmt.Sprintf("%d more", more)
	}
	if len(names) == 1 {
		return last
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + last
}
