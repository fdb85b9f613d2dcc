package controller

import (
	"context"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// injectIndex finds pods, and workloads by their pod template, by the
// CartStorage that their label names.
const injectIndex = "inject"

// managedBy is the label of our ConfigMaps.
const managedBy = "app.kubernetes.io/managed-by"

// instance is the label that names the CartStorage of a ConfigMap.
const instance = "app.kubernetes.io/instance"

// workloadKind is a kind of workload, by group and kind.
type workloadKind struct {
	group, kind string
	one         func() client.Object
	list        func() client.ObjectList
}

// workloadKinds are the workloads that are watched. Owners of other kinds are asked for
// their scale.
var workloadKinds = []workloadKind{
	{"apps", "Deployment", func() client.Object { return &appsv1.Deployment{} }, func() client.ObjectList { return &appsv1.DeploymentList{} }},
	{"apps", "StatefulSet", func() client.Object { return &appsv1.StatefulSet{} }, func() client.ObjectList { return &appsv1.StatefulSetList{} }},
	{"apps", "ReplicaSet", func() client.Object { return &appsv1.ReplicaSet{} }, func() client.ObjectList { return &appsv1.ReplicaSetList{} }},
	{"apps", "DaemonSet", func() client.Object { return &appsv1.DaemonSet{} }, func() client.ObjectList { return &appsv1.DaemonSetList{} }},
	{"batch", "Job", func() client.Object { return &batchv1.Job{} }, func() client.ObjectList { return &batchv1.JobList{} }},
	{"batch", "CronJob", func() client.Object { return &batchv1.CronJob{} }, func() client.ObjectList { return &batchv1.CronJobList{} }},
}

// cacheOptions keep the cache small: pods and ConfigMaps of ours only, and of
// everything just what is looked at. A cluster has many more workloads than
// those that use carts.
func cacheOptions() cache.Options {
	asked, err := labels.NewRequirement(v1alpha1.InjectLabel, selection.Exists, nil)
	if err != nil {
		panic(err) // the label is a constant
	}
	shared := true // objects of the cache are only read, so they need not be copied
	reduced := cache.ByObject{Transform: reduce, UnsafeDisableDeepCopy: &shared}
	pods := reduced
	pods.Label = labels.NewSelector().Add(*asked)
	byObject := map[client.Object]cache.ByObject{
		&corev1.Pod{}:                            pods,
		&corev1.ConfigMap{}:                      {Label: labels.SelectorFromSet(labels.Set{managedBy: "sidecart"})},
		&autoscalingv2.HorizontalPodAutoscaler{}: reduced,
	}
	for _, k := range workloadKinds {
		byObject[k.one()] = reduced
	}
	return cache.Options{ByObject: byObject, DefaultTransform: cache.TransformStripManagedFields()}
}

// addIndexes must be called before the cache starts.
func addIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	index := func(o client.Object) []string {
		if name := injectOf(o); name != "" {
			return []string{name}
		}
		return nil
	}
	for _, k := range workloadKinds {
		if err := indexer.IndexField(ctx, k.one(), injectIndex, index); err != nil {
			return err
		}
	}
	return indexer.IndexField(ctx, &corev1.Pod{}, injectIndex, index)
}

// injectOf is the CartStorage that a pod or the template of a workload names.
func injectOf(o client.Object) string {
	if pod, ok := o.(*corev1.Pod); ok {
		return pod.Labels[v1alpha1.InjectLabel]
	}
	if t := template(o); t != nil {
		return t.Labels[v1alpha1.InjectLabel]
	}
	return ""
}

func template(o client.Object) *corev1.PodTemplateSpec {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.ReplicaSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	case *batchv1.Job:
		return &o.Spec.Template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template
	}
	return nil
}

// reduce drops what nobody here looks at.
func reduce(in any) (any, error) {
	o, ok := in.(client.Object)
	if !ok {
		return in, nil // a tombstone
	}
	o.SetManagedFields(nil)
	o.SetFinalizers(nil)
	o.SetSelfLink("")
	if pod, ok := o.(*corev1.Pod); ok {
		reducePod(pod)
		return pod, nil
	}
	o.SetLabels(nil)
	o.SetAnnotations(nil)
	if t := template(o); t != nil {
		*t = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: only(t.Labels, v1alpha1.InjectLabel)}}
	}
	switch o := o.(type) {
	case *appsv1.Deployment:
		o.Spec = appsv1.DeploymentSpec{Replicas: o.Spec.Replicas, Strategy: o.Spec.Strategy, Template: o.Spec.Template}
		o.Status = appsv1.DeploymentStatus{}
	case *appsv1.StatefulSet:
		o.Spec = appsv1.StatefulSetSpec{Replicas: o.Spec.Replicas, Template: o.Spec.Template}
		o.Status = appsv1.StatefulSetStatus{}
	case *appsv1.ReplicaSet:
		o.Spec = appsv1.ReplicaSetSpec{Replicas: o.Spec.Replicas, Template: o.Spec.Template}
		o.Status = appsv1.ReplicaSetStatus{}
	case *appsv1.DaemonSet:
		o.Spec = appsv1.DaemonSetSpec{Template: o.Spec.Template}
		o.Status = appsv1.DaemonSetStatus{}
	case *batchv1.Job:
		o.Spec = reducedJob(&o.Spec)
		o.Status = batchv1.JobStatus{Conditions: o.Status.Conditions}
	case *batchv1.CronJob:
		job := batchv1.JobTemplateSpec{Spec: reducedJob(&o.Spec.JobTemplate.Spec)}
		o.Spec = batchv1.CronJobSpec{Suspend: o.Spec.Suspend, ConcurrencyPolicy: o.Spec.ConcurrencyPolicy, JobTemplate: job}
		o.Status = batchv1.CronJobStatus{}
	case *autoscalingv2.HorizontalPodAutoscaler:
		o.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: o.Spec.ScaleTargetRef, MaxReplicas: o.Spec.MaxReplicas}
		o.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
	}
	return o, nil
}

func reducedJob(s *batchv1.JobSpec) batchv1.JobSpec {
	return batchv1.JobSpec{Parallelism: s.Parallelism, Completions: s.Completions, Suspend: s.Suspend, Template: s.Template}
}

func reducePod(pod *corev1.Pod) {
	pod.Labels = only(pod.Labels, v1alpha1.InjectLabel)
	pod.Annotations = only(pod.Annotations, v1alpha1.InjectedAnnotation, v1alpha1.GenerationAnnotation)
	spec := corev1.PodSpec{HostNetwork: pod.Spec.HostNetwork}
	for _, c := range pod.Spec.InitContainers {
		if c.Name == render.ContainerName {
			spec.InitContainers = append(spec.InitContainers, corev1.Container{Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy})
		}
	}
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, render.ContainerName+"-") {
			spec.Volumes = append(spec.Volumes, v) // render.Missing looks at them
		}
	}
	status := corev1.PodStatus{Phase: pod.Status.Phase, PodIP: pod.Status.PodIP}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady || c.Type == corev1.PodScheduled {
			status.Conditions = append(status.Conditions, corev1.PodCondition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message})
		}
	}
	for _, s := range pod.Status.InitContainerStatuses {
		if s.Name == render.ContainerName {
			status.InitContainerStatuses = append(status.InitContainerStatuses, corev1.ContainerStatus{Name: s.Name, State: s.State, RestartCount: s.RestartCount})
		}
	}
	pod.Spec, pod.Status = spec, status
}

// only are the entries of m with these keys, nil if there are none.
func only(m map[string]string, keys ...string) (out map[string]string) {
	for _, k := range keys {
		if v, ok := m[k]; ok {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}
