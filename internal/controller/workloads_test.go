package controller

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// template is that of a pod that uses a CartStorage.
func podTemplate(cartStorage string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web", v1alpha1.InjectLabel: cartStorage}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "shop:1"}}},
	}
}

func (w *world) pod(name, cartStorage string, change ...func(*corev1.Pod)) *corev1.Pod {
	t := podTemplate(cartStorage)
	pod := &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
	pod.Name, pod.Namespace = name, w.namespace
	for _, c := range change {
		c(pod)
	}
	return pod
}

func ownedBy(o client.Object, gvk schema.GroupVersionKind) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(o, gvk)} }
}

var replicaSet = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

// app is a Deployment, for which the world does the work of the controllers.
type app struct {
	w           *world
	name        string
	cartStorage string
	set         *appsv1.ReplicaSet
	pods        []string
	made        int
}

// deployment creates one of n pods that replaces its pods one after another.
func (w *world) deployment(name, cartStorage string, n int32, change ...func(*appsv1.Deployment)) *app {
	w.t.Helper()
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}}
	d.Spec = appsv1.DeploymentSpec{Replicas: &n, Selector: selector, Template: podTemplate(cartStorage)}
	d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	for _, c := range change {
		c(d)
	}
	w.create(d)
	a := &app{w: w, name: name, cartStorage: cartStorage}
	a.set = &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name + "-1"}}
	a.set.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
	a.set.Spec = appsv1.ReplicaSetSpec{Replicas: &n, Selector: selector, Template: podTemplate(cartStorage)}
	w.create(a.set)
	a.makePods(int(n))
	return a
}

// scale does what `kubectl scale` and the controllers do.
func (a *app) scale(n int32) {
	a.w.t.Helper()
	update(a.w, a.name, &appsv1.Deployment{}, func(d *appsv1.Deployment) { d.Spec.Replicas = &n })
	update(a.w, a.set.Name, &appsv1.ReplicaSet{}, func(s *appsv1.ReplicaSet) { s.Spec.Replicas = &n })
	a.makePods(int(n))
}

func (a *app) makePods(n int) {
	a.w.t.Helper()
	for len(a.pods) < n {
		a.made++
		name := fmt.Sprintf("%s-%d", a.set.Name, a.made)
		a.w.create(a.w.pod(name, a.cartStorage, ownedBy(a.set, replicaSet)))
		a.pods = append(a.pods, name)
	}
	for _, name := range a.pods[n:] {
		a.w.end(name)
	}
	a.pods = slices.Clip(a.pods[:n])
}

func (w *world) end(name string) {
	w.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	if err := w.c.Delete(w.t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) getPod(name string) *corev1.Pod {
	w.t.Helper()
	pod := &corev1.Pod{}
	if err := w.c.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, pod); err != nil {
		w.t.Fatal(err)
	}
	return pod
}

func (w *world) job(name, cartStorage string) *batchv1.Job {
	w.t.Helper()
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}}
	job.Spec.Template = podTemplate(cartStorage)
	job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	w.create(job)
	return job
}

func (w *world) hpa(name, target string, most int32) *autoscalingv2.HorizontalPodAutoscaler {
	w.t.Helper()
	h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: name}}
	h.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: target}
	h.Spec.MaxReplicas = most
	w.create(h)
	return h
}
