package controller

import (
	"context"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/render"
)

// injectIndex finds pods and workloads by the CartStorage that the label of the pod, or of the workload's pod template,
// names.
const injectIndex = "inject"

// misplacedIndex finds workloads by the CartStorage that their own label names, if their template has no such label.
const misplacedIndex = "misplaced"

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

// workloadKinds are the workloads that are watched. Owners of other kinds are asked for their scale.
var workloadKinds = []workloadKind{
	{"apps", "Deployment", func() client.Object { return &appsv1.Deployment{} }, func() client.ObjectList { return &appsv1.DeploymentList{} }},
	{"apps", "StatefulSet", func() client.Object { return &appsv1.StatefulSet{} }, func() client.ObjectList { return &appsv1.StatefulSetList{} }},
	{"apps", "ReplicaSet", func() client.Object { return &appsv1.ReplicaSet{} }, func() client.ObjectList { return &appsv1.ReplicaSetList{} }},
	{"apps", "DaemonSet", func() client.Object { return &appsv1.DaemonSet{} }, func() client.ObjectList { return &appsv1.DaemonSetList{} }},
	{"batch", "Job", func() client.Object { return &batchv1.Job{} }, func() client.ObjectList { return &batchv1.JobList{} }},
	{"batch", "CronJob", func() client.Object { return &batchv1.CronJob{} }, func() client.ObjectList { return &batchv1.CronJobList{} }},
}

// cacheOptions keep the cache small. It has only pods and ConfigMaps of ours, and of each object only the fields that
// are read, since a cluster has many more workloads than those that use carts. If namespaces are named, the API server
// is asked for nothing of others.
func cacheOptions(namespaces []string) cache.Options {
	asked, err := labels.NewRequirement(v1alpha1.InjectLabel, selection.Exists, nil)
	if err != nil {
		panic(err) // the label is a constant
	}
	shared := true // nobody changes objects of the cache, so they need not be copied
	reduced := cache.ByObject{Transform: reduce, UnsafeDisableDeepCopy: &shared}
	pods := reduced
	pods.Label = labels.NewSelector().Add(*asked)
	byObject := map[client.Object]cache.ByObject{
		&v1alpha1.CartStorage{}:                  {Transform: reduceCartStorage},
		&corev1.Pod{}:                            pods,
		&corev1.ConfigMap{}:                      {Label: labels.SelectorFromSet(labels.Set{managedBy: "sidecart"}), Transform: reduceConfigMap},
		&autoscalingv2.HorizontalPodAutoscaler{}: reduced,
		&corev1.LimitRange{}:                     {UnsafeDisableDeepCopy: &shared},
	}
	for _, k := range workloadKinds {
		byObject[k.one()] = reduced
	}
	o := cache.Options{ByObject: byObject, DefaultTransform: cache.TransformStripManagedFields()}
	for _, n := range namespaces {
		if o.DefaultNamespaces == nil {
			o.DefaultNamespaces = map[string]cache.Config{}
		}
		o.DefaultNamespaces[n] = cache.Config{}
	}
	return o
}

// keeps reports whether the operator looks after a namespace. No names stand for all namespaces.
func keeps(namespaces []string, namespace string) bool {
	return len(namespaces) == 0 || slices.Contains(namespaces, namespace)
}

// addIndexes must be called before the cache starts.
func addIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	index := func(o client.Object) []string {
		if name := injectOf(o); name != "" {
			return []string{name}
		}
		return nil
	}
	beside := func(o client.Object) []string {
		if name := o.GetLabels()[v1alpha1.InjectLabel]; name != "" {
			return []string{name}
		}
		return nil
	}
	for _, k := range workloadKinds {
		if err := indexer.IndexField(ctx, k.one(), injectIndex, index); err != nil {
			return err
		}
		if err := indexer.IndexField(ctx, k.one(), misplacedIndex, beside); err != nil {
			return err
		}
	}
	return indexer.IndexField(ctx, &corev1.Pod{}, injectIndex, index)
}

// injectOf returns the CartStorage that a pod or the template of a workload names.
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

// reduce drops the fields that this package does not read.
func reduce(in any) (any, error) {
	o, ok := in.(client.Object)
	if !ok {
		return in, nil // a tombstone
	}
	reduceMeta(o)
	if pod, ok := o.(*corev1.Pod); ok {
		reducePod(pod)
		return pod, nil
	}
	own := o.GetLabels()
	o.SetLabels(nil)
	o.SetAnnotations(nil)
	if t := template(o); t != nil {
		o.SetLabels(misplaced(own, t))
		*t = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: only(t.Labels, v1alpha1.InjectLabel)}}
	}
	switch o := o.(type) {
	case *appsv1.Deployment:
		o.Spec = appsv1.DeploymentSpec{Replicas: o.Spec.Replicas, Strategy: o.Spec.Strategy, Template: o.Spec.Template}
		o.Status = appsv1.DeploymentStatus{}
	case *appsv1.StatefulSet:
		o.Spec = appsv1.StatefulSetSpec{Replicas: o.Spec.Replicas, Template: o.Spec.Template}
		o.Status = appsv1.StatefulSetStatus{Replicas: o.Status.Replicas}
	case *appsv1.ReplicaSet:
		o.Spec = appsv1.ReplicaSetSpec{Replicas: o.Spec.Replicas, Template: o.Spec.Template}
		o.Status = appsv1.ReplicaSetStatus{Conditions: refusals(o.Status.Conditions)}
	case *appsv1.DaemonSet:
		o.Spec = appsv1.DaemonSetSpec{Template: o.Spec.Template}
		o.Status = appsv1.DaemonSetStatus{DesiredNumberScheduled: o.Status.DesiredNumberScheduled, CurrentNumberScheduled: o.Status.CurrentNumberScheduled}
	case *batchv1.Job:
		o.Spec = reducedJob(&o.Spec)
		o.Status = batchv1.JobStatus{Conditions: o.Status.Conditions, Active: o.Status.Active, Succeeded: o.Status.Succeeded}
	case *batchv1.CronJob:
		job := batchv1.JobTemplateSpec{Spec: reducedJob(&o.Spec.JobTemplate.Spec)}
		o.Spec = batchv1.CronJobSpec{Suspend: o.Spec.Suspend, ConcurrencyPolicy: o.Spec.ConcurrencyPolicy, JobTemplate: job}
		o.Status = batchv1.CronJobStatus{}
	case *autoscalingv2.HorizontalPodAutoscaler:
		target := o.Spec.ScaleTargetRef
		target.APIVersion, target.Kind, target.Name = short(target.APIVersion), short(target.Kind), short(target.Name)
		o.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: target, MaxReplicas: o.Spec.MaxReplicas}
		o.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
	}
	return o, nil
}

// misplaced returns our label if a workload itself has it and its template t has not.
func misplaced(own map[string]string, t *corev1.PodTemplateSpec) map[string]string {
	if t.Labels[v1alpha1.InjectLabel] != "" {
		return nil
	}
	return only(own, v1alpha1.InjectLabel)
}

// refusals returns the conditions which say that our webhook has refused pods, or was not reached.
func refusals(in []appsv1.ReplicaSetCondition) (out []appsv1.ReplicaSetCondition) {
	for _, c := range in {
		if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue && strings.Contains(c.Message, webhookName) {
			// The webhook's name stays in the text, since an object may be reduced twice.
			out = append(out, appsv1.ReplicaSetCondition{Type: c.Type, Status: c.Status, Message: webhookName})
		}
	}
	return out
}

// webhookName is the name of our webhook in the API server's messages.
const webhookName = "inject.sidecart.dev"

func reducedJob(s *batchv1.JobSpec) batchv1.JobSpec {
	return batchv1.JobSpec{Parallelism: s.Parallelism, Completions: s.Completions, Suspend: s.Suspend, Template: s.Template}
}

func reducePod(pod *corev1.Pod) {
	pod.Labels = only(pod.Labels, v1alpha1.InjectLabel)
	pod.Annotations = only(pod.Annotations, v1alpha1.InjectedAnnotation, v1alpha1.InjectedAsAnnotation, v1alpha1.GenerationAnnotation)
	spec := corev1.PodSpec{HostNetwork: pod.Spec.HostNetwork}
	for _, c := range pod.Spec.InitContainers {
		if c.Name == render.ContainerName {
			ports := c.Ports[:min(len(c.Ports), 1)] // [adminPort] looks at the first one
			spec.InitContainers = append(spec.InitContainers, corev1.Container{Name: c.Name, Ports: slices.Clone(ports), RestartPolicy: c.RestartPolicy})
		}
	}
	spec.Volumes = render.MountedVolumes(pod)
	status := corev1.PodStatus{Phase: pod.Status.Phase, PodIP: pod.Status.PodIP}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady || c.Type == corev1.PodScheduled {
			status.Conditions = append(status.Conditions, corev1.PodCondition{Type: c.Type, Status: c.Status, Reason: tame(c.Reason), Message: tame(c.Message)})
		}
	}
	for _, s := range pod.Status.InitContainerStatuses {
		if s.Name == render.ContainerName {
			status.InitContainerStatuses = append(status.InitContainerStatuses, corev1.ContainerStatus{
				Name: s.Name, State: reducedState(&s.State), LastTerminationState: reducedState(&s.LastTerminationState), RestartCount: s.RestartCount,
			})
		}
	}
	pod.Spec, pod.Status = spec, status
}

func reducedState(s *corev1.ContainerState) (out corev1.ContainerState) {
	if s.Running != nil {
		out.Running = &corev1.ContainerStateRunning{StartedAt: s.Running.StartedAt}
	}
	if s.Waiting != nil {
		out.Waiting = &corev1.ContainerStateWaiting{Reason: tame(s.Waiting.Reason), Message: tame(s.Waiting.Message)}
	}
	if s.Terminated != nil {
		out.Terminated = &corev1.ContainerStateTerminated{Reason: tame(s.Terminated.Reason), Message: lastLine(s.Terminated.Message), ExitCode: s.Terminated.ExitCode}
	}
	return out
}

// only returns the entries of m with these keys, or nil if there are none.
func only(m map[string]string, keys ...string) (out map[string]string) {
	for _, k := range keys {
		if v, ok := m[k]; ok {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = short(v)
		}
	}
	return out
}

// maxName is longer than every name, kind or API version that the API server accepts for an object. The API server does
// not check references to objects like that. A longer reference names nothing, and is cut.
const maxName = 600

func short(s string) string {
	if len(s) <= maxName {
		return s
	}
	return strings.ToValidUTF8(s[:maxName], "")
}

// reduceMeta drops the metadata that the operator does not read. Of the owners it keeps the controller.
func reduceMeta(o client.Object) {
	o.SetManagedFields(nil)
	o.SetFinalizers(nil)
	o.SetSelfLink("")
	ref := metav1.GetControllerOf(o)
	if ref == nil {
		o.SetOwnerReferences(nil)
		return
	}
	ref.APIVersion, ref.Kind, ref.Name, ref.UID = short(ref.APIVersion), short(ref.Kind), short(ref.Name), types.UID(short(string(ref.UID)))
	o.SetOwnerReferences([]metav1.OwnerReference{*ref})
}

// reduceCartStorage keeps spec and status, which the CRD bounds.
func reduceCartStorage(in any) (any, error) {
	cs, ok := in.(*v1alpha1.CartStorage)
	if !ok {
		return in, nil // a tombstone
	}
	reduceMeta(cs)
	cs.SetOwnerReferences(nil)
	cs.SetAnnotations(nil)
	cs.SetLabels(nil)
	return cs, nil
}

// reduceConfigMap keeps what the operator writes. Anybody can put its label on a ConfigMap. Data that is larger than
// every configuration is dropped, so such a ConfigMap is written anew.
func reduceConfigMap(in any) (any, error) {
	cm, ok := in.(*corev1.ConfigMap)
	if !ok {
		return in, nil // a tombstone
	}
	reduceMeta(cm)
	cm.SetOwnerReferences(nil)
	cm.Labels = only(cm.Labels, managedBy, instance)
	cm.Annotations = only(cm.Annotations, v1alpha1.GenerationAnnotation)
	data, lastGood := cm.Data[render.ConfigFile], cm.Data[render.LastGoodFile]
	cm.Data, cm.BinaryData = nil, nil
	if len(data) <= maxConfig {
		cm.Data = map[string]string{render.ConfigFile: data}
	}
	if lastGood == data {
		lastGood = data // usually equal; one copy of the text is enough
	}
	if lastGood != "" && len(data) <= maxConfig && len(lastGood) <= maxConfig {
		cm.Data[render.LastGoodFile] = lastGood
	}
	return cm, nil
}

// maxConfig is more than the largest CartStorage gives.
const maxConfig = 64 << 10
