package render

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// WorkloadOf returns what the spec of a workload says about its pods: Deployment, StatefulSet, ReplicaSet,
// ReplicationController, DaemonSet, Job, CronJob or Pod. Pods and Autoscaler are left to the caller. For any other kind
// ok is false: see [ScaledWorkload].
func WorkloadOf(o runtime.Object) (w Workload, ok bool) {
	switch o := o.(type) {
	case *appsv1.Deployment:
		n := one(o.Spec.Replicas)
		return Workload{Kind: "Deployment", Name: o.Name, Replicas: n, Surge: maxSurge(&o.Spec.Strategy, n)}, true
	case *appsv1.StatefulSet:
		// A pod is replaced only when it is gone, since the name of the next is the same.
		return Workload{Kind: "StatefulSet", Name: o.Name, Replicas: one(o.Spec.Replicas)}, true
	case *appsv1.ReplicaSet:
		return Workload{Kind: "ReplicaSet", Name: o.Name, Replicas: one(o.Spec.Replicas)}, true
	case *corev1.ReplicationController:
		return Workload{Kind: "ReplicationController", Name: o.Name, Replicas: one(o.Spec.Replicas)}, true
	case *appsv1.DaemonSet:
		return Workload{Kind: "DaemonSet", Name: o.Name, Unbounded: true}, true
	case *batchv1.Job:
		return Workload{Kind: "Job", Name: o.Name, Replicas: parallelism(&o.Spec, jobEnded(o))}, true
	case *batchv1.CronJob:
		w = Workload{Kind: "CronJob", Name: o.Name, Replicas: parallelism(&o.Spec.JobTemplate.Spec, false)}
		if o.Spec.Suspend != nil && *o.Spec.Suspend {
			w.Replicas = 0
		}
		// A run may start before the last one has ended.
		w.Unbounded = w.Replicas > 0 && (o.Spec.ConcurrencyPolicy == "" || o.Spec.ConcurrencyPolicy == batchv1.AllowConcurrent)
		return w, true
	case *corev1.Pod:
		w = Workload{Kind: "Pod", Name: o.Name}
		if Live(o) {
			w.Replicas = 1
		}
		return w, true
	}
	return Workload{}, false
}

// ScaledWorkload returns a workload of which only the scale subresource is known. How it rolls out is unknown, so one
// more pod is assumed.
func ScaledWorkload(kind, name string, replicas int32) Workload {
	return Workload{Kind: kind, Name: name, Replicas: replicas, Surge: 1}
}

// UnknownWorkload returns a workload for an owner of pods of which nothing is known.
func UnknownWorkload(kind, name string) Workload {
	return Workload{Kind: kind, Name: name, Unbounded: true}
}

// one returns n, or 1, which Kubernetes assumes, if n is nil.
func one(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// maxSurge returns how many pods a rollout may run beyond n. A percentage rounds up, as in the deployment controller. A
// workload at zero replicas counts as one, since it is scaled up before it writes.
func maxSurge(s *appsv1.DeploymentStrategy, n int32) int32 {
	if s.Type == appsv1.RecreateDeploymentStrategyType {
		return 0
	}
	limit := intstr.FromString("25%")
	if s.RollingUpdate != nil && s.RollingUpdate.MaxSurge != nil {
		limit = *s.RollingUpdate.MaxSurge
	}
	surge, err := intstr.GetScaledValueFromIntOrPercent(&limit, int(max(n, 1)), true)
	if err != nil {
		return 1 // the API server accepts no such value; locking is the safe answer
	}
	return int32(surge)
}

// parallelism returns how many pods of a Job run at once.
func parallelism(s *batchv1.JobSpec, ended bool) int32 {
	if ended || s.Suspend != nil && *s.Suspend {
		return 0
	}
	n := one(s.Parallelism)
	if s.Completions != nil {
		n = min(n, *s.Completions)
	}
	return n
}

func jobEnded(j *batchv1.Job) bool {
	for _, c := range j.Status.Conditions {
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
			return true
		}
	}
	return false
}

// Live reports whether a pod can still write: it runs, or is ending.
func Live(pod *corev1.Pod) bool {
	return pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// Owner returns the owner of a pod: its controller, or the pod itself if it has none.
func Owner(pod *corev1.Pod) metav1.OwnerReference {
	if ref := metav1.GetControllerOf(pod); ref != nil {
		return *ref
	}
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
}
